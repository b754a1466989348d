/* SPDX-License-Identifier: MIT */
/*
 * A delivery: one context on its way, as an engine sees it, whoever its courier is.
 *
 * The courier may be of this process (net/courier.h) or another one, reached by its socket
 * (net/courier_client.h). Either way the engine gets the manifest and read-only descriptors, may say
 * how far it has computed, and can ask what went wrong.
 */
#ifndef LSLM_NET_DELIVERY_H
#define LSLM_NET_DELIVERY_H

#include "net/courier.h"

struct delivery;

struct delivery_fds {
	int buffer, control; /* owned by the caller */
	/* Hung up when the courier is gone, for control_watch(); the delivery's own. -1: it cannot go alone. */
	int courier;
	size_t pitch; /* from one stripe's place in the buffer to the next one's */
};

struct delivery_ops {
	/*
	 * What is missing starts to come, if it does not already. -ENODATA: there is nothing to receive;
	 * -ENOTCONN: nothing will be received, and err says why.
	 */
	int (*start)(struct delivery *d, struct delivery_fds *fds, struct lslm_error *err);
	void (*set_head)(struct delivery *d, uint32_t stripes);
	void (*stats)(struct delivery *d, struct courier_stats *out);
	/* Has it failed already? Does not wait for blocks. */
	bool (*failed)(struct delivery *d, struct lslm_error *why);
	/* After a block turned FAILED: why. */
	void (*finish)(struct delivery *d, struct lslm_error *why);
	void (*close)(struct delivery *d);
};

/* Every delivery begins with this. */
struct delivery {
	const struct delivery_ops *ops;
	const struct manifest *manifest;
	/* The manifest is of an earlier time, because the server could not be reached; code 0: it is not. */
	struct lslm_error outage;
};

/* The engine's own courier: errors as courier_open(). */
int delivery_open_local(struct delivery **out, const struct courier_opts *opts,
			struct lslm_error *err);

struct delivery_remote_opts {
	const char *socket; /* of the courier */
	/* Key, a beginning of it that is no other context's, or title; NULL or "": the only one there is. */
	const char *context;
	enum order_kind order; /* that suits this engine; a hint */
	/* NULL: what the courier has verified is believed. Else the manifest must be signed by one of these. */
	const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	/* How long to wait for the courier to have the context's manifest; 0: 5000. */
	int timeout_ms;
};

/*
 * Somebody else's. -ECONNREFUSED or -ENOENT: nobody serves the socket; -ENXIO: no such context;
 * -ENOTUNIQ: more than one; -EPROTO: what answers is no courier of this version.
 */
int delivery_open_remote(struct delivery **out, const struct delivery_remote_opts *opts,
			 struct lslm_error *err);

struct courier_link;

/*
 * By a link that several share, of a courier that is restarted when it dies. What is attached goes on then: the page
 * and the buffer are the same, so WANTED is not taken for FAILED in between, and whoever waits should have another way
 * to get on. trusted as above. The link outlives it. -ENXIO, -EAGAIN: the courier does not have it, or not yet.
 */
int delivery_open_linked(struct delivery **out, struct courier_link *link,
			 const struct kv_hash *key, enum order_kind order,
			 const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES], size_t n_trusted,
			 struct lslm_error *err);

#endif
