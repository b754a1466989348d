/* SPDX-License-Identifier: MIT */
/* One bearer token for all who may ask: kept as a digest, so that equal lengths compare in constant time. */
#ifndef LSLM_SERVE_BEARER_H
#define LSLM_SERVE_BEARER_H

#include <microhttpd.h>
#include <stdbool.h>

#include "kv/key.h"

struct kv_hash bearer_digest(const char *token);
/* Does the request carry this token? */
bool bearer_matches(struct MHD_Connection *conn, const struct kv_hash *digest);

#endif
