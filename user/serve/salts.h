/* SPDX-License-Identifier: MIT */
/* The salts that a file of tenants (serve/tenants.h) names, and the tokens that go with them. */
#ifndef LSLM_SERVE_SALTS_H
#define LSLM_SERVE_SALTS_H

#include <stdbool.h>

#include "base/error.h"
#include "net/rights.h"

/*
 * Each salt once; of several tenants with one the first that names a token says which. path NULL: none. tokens: their files are read
 * too; else only which salts there are. -EACCES: others may read one; -E2BIG: more than RIGHTS_MAX salts.
 */
int salts_read(struct rights *r, const char *path, bool tokens, struct lslm_error *err);
/* Wiped. */
void salts_free(struct rights *r);

#endif
