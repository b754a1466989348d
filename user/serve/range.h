/* SPDX-License-Identifier: MIT */
/* What a request for blocks asks for: ?level=f16&order=layer|tail&from=N&count=M (docs/protocol.md, section 8). */
#ifndef LSLM_SERVE_RANGE_H
#define LSLM_SERVE_RANGE_H

#include <microhttpd.h>

#include "kv/manifest.h"
#include "net/order.h"

struct range {
	const struct manifest_level *level;
	struct order order; /* of the level's units */
	uint32_t from, end; /* units in that order */
};

/* Within what the manifest has. *status: of HTTP, where the errno does not say it, else 0. */
int range_parse(struct MHD_Connection *conn, const struct manifest *m, struct range *out,
		unsigned int *status, struct lslm_error *err);
/* Of all its units. */
uint64_t range_bytes(const struct range *r, const struct manifest *m);

#endif
