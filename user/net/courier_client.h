/* SPDX-License-Identifier: MIT */
/*
 * A connection to a courier in another process: net/courier_wire.h spoken by the one who asks.
 *
 * Every answer was checked before it is returned: its size, version, op and enums, and its texts end and
 * hold no control characters. One that is wrong, or does not come within the connection's time, ends the
 * connection for good; the calls after it are -EPIPE with the same line. A courier that went away is
 * -ECONNRESET. Used by one thread at a time, but for courier_client_fd().
 */
#ifndef LSLM_NET_COURIER_CLIENT_H
#define LSLM_NET_COURIER_CLIENT_H

#include <stdbool.h>

#include "base/error.h"
#include "net/courier_wire.h"
#include "net/order.h"

struct courier_client;

/*
 * Connect and agree on the version. -ENOENT, -ECONNREFUSED: nobody serves it; -EACCES: not for this user;
 * -EPROTO: something else does. timeout_ms: for every answer; 0: 5000.
 */
int courier_client_open(struct courier_client **out, const char *path, int timeout_ms,
			struct lslm_error *err);
/* The same over a connection that somebody else has made; fd is taken, whatever comes of it. name: for lines. */
int courier_client_take(struct courier_client **out, int fd, const char *name, int timeout_ms,
			struct lslm_error *err);
/* NULL is allowed. */
void courier_client_close(struct courier_client *c);
/* Hung up once the courier is gone; owned by c. */
int courier_client_fd(const struct courier_client *c);
/* Without asking it: is the connection over, and why? */
bool courier_client_is_over(struct courier_client *c, struct lslm_error *why);

/*
 * The context with this number, or the next one that there is: out->index. Behind the last context -ENOENT, or -EAGAIN while the courier
 * has just started, and will know of others.
 */
int courier_client_list(struct courier_client *c, uint32_t index, struct courier_entry *out,
			struct lslm_error *err);
static inline bool courier_list_has_ended(int ret)
{
	return ret == -ENOENT || ret == -EAGAIN;
}
/*
 * fds: manifest, buffer, control page, owned by the caller; the latter two are -1 where out->n_stripes is 0.
 * -EAGAIN while its manifest is not there.
 */
int courier_client_attach(struct courier_client *c, uint32_t index, enum order_kind order,
			  struct courier_attached *out, int fds[COURIER_WIRE_FDS],
			  struct lslm_error *err);
/*
 * fds: buffer, control page, owned by the caller. -ENOENT: there is no such model; other codes say why its weights
 * are not shared.
 */
int courier_client_weights(struct courier_client *c, uint32_t index, struct courier_weights *out,
			   int fds[COURIER_WIRE_WEIGHTS_FDS], struct lslm_error *err);
/* Told, not asked: nothing comes back. */
void courier_client_head(struct courier_client *c, uint32_t index, uint32_t stripes);
int courier_client_status(struct courier_client *c, uint32_t index, struct courier_status *out,
			  struct lslm_error *err);
/* Of the clouds; -ENOENT behind the last one. */
int courier_client_cloud(struct courier_client *c, uint32_t index, struct courier_cloud *out,
			 struct lslm_error *err);
/* -ENOENT: there is no supervisor. */
int courier_client_serving(struct courier_client *c, struct courier_serving *out,
			   struct lslm_error *err);
int courier_client_stat(struct courier_client *c, struct courier_stat *out, struct lslm_error *err);

#endif
