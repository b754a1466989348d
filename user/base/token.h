/* SPDX-License-Identifier: MIT */
/* Bearer tokens in files: the first word of the first line. */
#ifndef LSLM_BASE_TOKEN_H
#define LSLM_BASE_TOKEN_H

#include <stdbool.h>

#include "base/error.h"

/*
 * NULL, and no error, where path is NULL. secret: -EACCES where others than its owner may read the file. -EINVAL: there is none, or it
 * is not of printable ASCII alone.
 */
int token_read(const char *path, bool secret, char **token, struct lslm_error *err);
/* Wiped. NULL is allowed. */
void token_free(char *token);

#endif
