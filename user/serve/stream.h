/* SPDX-License-Identifier: MIT */
/*
 * A context's blocks as one reply: a range of them, with their exact length announced. Read with pread() from the .lskv as the client takes
 * them; they are not verified here, because the receiver must and does.
 */
#ifndef LSLM_SERVE_STREAM_H
#define LSLM_SERVE_STREAM_H

#include <microhttpd.h>

#include "kv/lskv.h"
#include "serve/range.h"

/*
 * Queue the reply; f is taken over, and closed when the reply has ended. A read error in the middle cuts the
 * connection: the length no longer fits.
 */
enum MHD_Result stream_blocks(struct MHD_Connection *conn, struct lskv *f,
			      const struct range *range);

#endif
