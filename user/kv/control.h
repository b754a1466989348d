/* SPDX-License-Identifier: MIT */
/*
 * The control page: what the courier knows about each block, for engines to read.
 *
 * One memfd per attached context, mapped RW by the courier and RO by engines:
 * a header, one word per layer and one for all to wait on, one byte per block. The courier
 * marks a block READY only after its digest was verified in place; the store is a
 * release and the reader's load an acquire, so a reader that sees READY sees the
 * bytes. A waiter sleeps on its layer's word (a futex; count of changes of that
 * layer), or on the word that counts all changes, so it wakes when something it needs next has happened.
 *
 * READY stays READY as long as the buffer's generation is the one that was attached.
 *
 * Engines are readers and cannot write the page: the futex wait is on a
 * read-only shared mapping, which Linux allows.
 */
#ifndef LSLM_KV_CONTROL_H
#define LSLM_KV_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/geometry.h"

struct control;

enum control_state {
	CONTROL_WANTED = 0, /* not here yet */
	CONTROL_READY, /* verified, in place */
	CONTROL_FAILED, /* will not come from this source */
};

enum control_source {
	CONTROL_FROM_NONE = 0,
	CONTROL_FROM_CLOUD,
	CONTROL_FROM_FILE,
	CONTROL_FROM_COMPUTE,
	CONTROL_FROM_DISK, /* the stripe store */
	CONTROL_FROM_PEER, /* another gateway */
	CONTROL_SOURCES
};

int control_create(struct control **out, uint32_t n_stripes, uint32_t n_layer,
		   struct lslm_error *err);
/* A read-only descriptor for another process, owned by the caller. */
int control_ro_fd(struct control *c, struct lslm_error *err);
/* Its own descriptor, with the rights that it was made or imported with. */
int control_fd(const struct control *c);
bool control_is_writable(const struct control *c);
int control_import(struct control **out, int fd, struct lslm_error *err);
void control_close(struct control *c);

uint32_t control_n_stripes(const struct control *c);
uint32_t control_n_layer(const struct control *c);

/* Courier side. */
void control_set(struct control *c, uint32_t stripe, uint32_t layer, enum control_state state,
		 enum control_source source, enum kv_level level);
/* No more blocks will become ready: all WANTED ones turn FAILED and every waiter wakes. */
void control_fail(struct control *c);
/* Another attempt is made: all FAILED ones turn WANTED. */
void control_retry(struct control *c);

/* Engine side. */

/*
 * Whoever writes the page is at the other end of this socket, which stays the caller's and must outlive
 * the page's last waiter. A writer that was killed cannot say that nothing more will come, so waiters look
 * at the socket every quarter of a second; once it is hung up they take what is WANTED for FAILED.
 */
void control_watch(struct control *c, int socket);

enum control_state control_get(const struct control *c, uint32_t stripe, uint32_t layer);
enum control_source control_get_source(const struct control *c, uint32_t stripe, uint32_t layer);
/* At which a READY block came; any number below 8 where a courier lies. */
uint32_t control_get_level(const struct control *c, uint32_t stripe, uint32_t layer);

/*
 * Wait until every block of this layer is READY: 0. -EIO when one has FAILED, -ETIMEDOUT after
 * timeout_ms (negative: no limit). Spurious wake-ups are handled inside.
 */
int control_wait_layer(const struct control *c, uint32_t layer, int timeout_ms);

/* Are all layers of this stripe READY? */
bool control_stripe_ready(const struct control *c, uint32_t stripe);
/*
 * First stripe of the READY suffix: it and all behind it are READY; n_stripes when the last one is
 * not. Costs a load per block of that suffix, at most.
 */
uint32_t control_tail(const struct control *c);
/*
 * Wait until control_tail() is at most this stripe: 0. -EIO when a block of that suffix has FAILED,
 * -ETIMEDOUT as above.
 */
int control_wait_tail(const struct control *c, uint32_t stripe, int timeout_ms);

#endif
