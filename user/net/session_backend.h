/* SPDX-License-Identifier: MIT */
/*
 * What a backend of net/session.h provides. Private to user/net/session*.c.
 *
 * session.c chooses the backend and checks what is the same for both; a backend's own structure
 * begins with struct session. Every operation may assume that slot and key numbers are in range.
 */
#ifndef LSLM_NET_SESSION_BACKEND_H
#define LSLM_NET_SESSION_BACKEND_H

#include "net/session.h"

enum {
	SESSION_REASON_BYTES = 400,
	SESSION_SLOTS_MAX = 65536,
	SESSION_LIFETIME_MAX_S = 86400,
};

struct session {
	const struct session_backend_ops *backend;
	uint32_t number;
	uint32_t n_slots;
	bool plain; /* the twin may take LSLM_CIPHER_PLAIN */
	char reason[SESSION_REASON_BYTES]; /* "name: why", by session.c */
};

struct session_backend_ops {
	const char *name;
	/* Sets number, and what the backend has to say of itself, or "". */
	int (*open)(struct session **out, int socket, uint32_t n_slots,
		    char note[SESSION_REASON_BYTES / 2], struct lslm_error *err);
	void (*close)(struct session *s);
	int (*key)(struct session *s, uint32_t key, enum lslm_cipher cipher, const uint8_t *secret,
		   uint64_t max_packets, uint32_t lifetime_s, struct lslm_error *err);
	/* units: the length of each. The region was found to be one, and to lie in the buffer. */
	int (*bind)(struct session *s, uint32_t slot, const struct session_region *region,
		    const uint32_t *units, uint32_t *generation, struct lslm_error *err);
	int (*unbind)(struct session *s, uint32_t slot);
	int (*missing)(struct session *s, uint32_t slot, uint32_t generation, uint32_t from,
		       struct lslm_range *ranges, uint32_t max);
	int (*poll)(struct session *s, uint64_t timeout_ns, const struct session_ops *ops,
		    void *arg, struct lslm_error *err);
	void (*wake)(struct session *s);
	void (*progress)(const struct session *s, struct session_progress *out);
	int (*stats)(struct session *s, struct session_stats *out);
};

extern const struct session_backend_ops session_kernel_ops;
extern const struct session_backend_ops session_twin_ops;

#endif
