/* SPDX-License-Identifier: MIT */
/*
 * The body of a request, as it arrives in pieces.
 *
 * Of a body that is larger than what is taken nothing is kept, but it is read on for a while: a client that is still
 * sending would see a broken connection, and not the reply that says why.
 */
#ifndef LSLM_SERVE_BODY_H
#define LSLM_SERVE_BODY_H

#include <stddef.h>
#include <stdint.h>

/* Read and thrown away beyond the limit before the connection is cut. */
#define BODY_DISCARD_MAX ((uint64_t)128 << 20)

struct body {
	uint64_t received;
	char *text; /* the first `received` bytes; NULL where it is not kept */
	size_t room;
};

/*
 * Count a piece that is not kept here. 0; -EFBIG: it is over max now; -EMSGSIZE: so far over it that the connection
 * should be cut.
 */
int body_count(struct body *b, size_t size, uint64_t max);
/* Keep a piece. The same, or -ENOMEM; after an error nothing is kept any more. */
int body_keep(struct body *b, const char *data, size_t size, uint64_t max);
void body_free(struct body *b);

#endif
