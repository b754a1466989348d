/* SPDX-License-Identifier: MIT */
/*
 * The courier: brings a context's blocks into a buffer, and vouches for them.
 *
 * It owns everything that is writable or secret: the RW buffer, the control page,
 * the connection, the keys. It never sees a user's text. courier_start() fetches
 * and verifies the manifest (signature against the pinned keys), creates the
 * buffer, and starts a thread that receives blocks in the order asked for (net/order.h), each
 * straight to its place, checks the digest there, and marks it READY. A block whose digest is wrong is never marked; the source is
 * given up, all that is missing turns FAILED, and courier_finish() tells why. courier_run() then tries again, if wanted.
 * Nothing is asked for where the manifest says that nobody is to use its blocks (manifest_map_is_off()): -ENOEXEC, for good.
 *
 * The engine gets read-only descriptors (courier_buffer_fd, courier_control_fd),
 * as it would over a unix socket, and may compute as layers arrive; or it computes stripes from the
 * head while others arrive from the tail, and says how far it is (courier_set_head).
 *
 * With a stripe store (kv/stripe_store.h) a URL's stripes are looked for there before the source is asked, and
 * those that the source brought are kept there.
 *
 * Levels (kv/geometry.h): which one a stripe comes at is decided when it is asked for, from those that the user allows,
 * by the time there is until the deadline and the goodput (net/choice.h). A file's stripes come at the finest.
 *
 * Sources: a .lskv file (read with io_uring) or a context's URL (https://host/v1/contexts/KEY).
 */
#ifndef LSLM_NET_COURIER_H
#define LSLM_NET_COURIER_H

#include <stdatomic.h>

#include "kv/buffer.h"
#include "kv/control.h"
#include "kv/manifest.h"
#include "kv/stripe_store.h"
#include "net/order.h"
#include "net/receiver.h"

struct allow;
struct calibrations;
struct courier;
struct peers;
struct rights;
struct sites;
struct steer;

enum {
	COURIER_PATH_BYTES = 512,
	COURIER_DEADLINE_S = 5, /* what a person waits for an answer's beginning */
};

/* How blocks come from a URL. */
enum courier_transport {
	COURIER_HTTPS,
	COURIER_AUTO, /* over UDP, and what that cannot bring over HTTPS */
	COURIER_UDP, /* over UDP; what it cannot bring is an error */
};

/*
 * Somebody who keeps duplicates of a courier's buffer and control page, so that the next process of it goes on
 * where this one was killed: what is READY there was verified, stays READY, and is not fetched again. Engines that have
 * them mapped notice nothing.
 */
struct courier_custody {
	/*
	 * Of the context with this key whose manifest has this digest: 0 and read-write descriptors, owned by the
	 * caller. -ENOENT: nobody has left any.
	 */
	int (*reclaim)(void *arg, const struct kv_hash *key, const struct kv_hash *digest,
		       int *buffer, int *control);
	/* These are in use from now on. Duplicates them where it wants to. */
	void (*deposit)(void *arg, const struct kv_hash *key, const struct kv_hash *digest,
			int buffer, int control);
	void *arg;
};

struct courier_opts {
	const char *source; /* path of a .lskv, or https URL */
	const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	enum buffer_backend backend;
	enum order_kind order;
	/* For URLs: PEM of the CA, bearer token, client certificate; NULL for none. */
	const char *cacert;
	const char *token;
	const char *cert;
	const char *key;
	/* When the server is away, make do with the manifest of an earlier time (courier_is_offline()). */
	bool offline;
	/* Tokens of salts that have their own; outlives the courier; NULL: none. */
	const struct rights *rights;
	struct stripe_store *store; /* outlives the courier; NULL: none */
	/* The store or the cache of manifests does not take something, and why; NULL: now it has. As in net/keeper.h. */
	void (*keeps)(void *arg, const struct lslm_error *why);
	void *keeps_arg;
	/* Steering of the interface that datagrams come in by, likewise; told by the courier's thread. */
	struct steer *steer;
	/* Told which clouds datagrams may come from, likewise. */
	struct allow *allow;
	struct peers *peers; /* of a URL, that parts of it may come from; likewise */
	struct sites *sites; /* whether a URL's cloud is to be asked, likewise; NULL: always */
	/* Likewise; NULL: there is none. Called by whoever calls courier_run(). */
	const struct courier_custody *custody;
	const atomic_bool *
		stop; /* ends courier_open() and what follows, within a second; NULL: nothing does */
	int connect_timeout_ms; /* 0: 5000 */
	int stall_timeout_ms; /* no byte for so long: the source is dead; 0: 10000 */
	enum courier_transport transport;
	uint32_t levels; /* that may come: bits 1 << enum kv_level; 0: all that are on offer */
	const struct calibrations *calibrations; /* for level p; outlive the courier; NULL: none */
	/* All of a URL's context is to be here so many seconds after courier_run(); 0: COURIER_DEADLINE_S. */
	double deadline_s;
};

struct courier_stats {
	uint64_t bytes_received; /* over the network or from the file, manifest included */
	uint64_t blocks_ready; /* of them and of those from the store, verified and in place */
	uint64_t blocks_from_disk; /* from the store */
	uint64_t blocks_from_peers;
	uint64_t blocks_adopted; /* of those that are ready, an earlier process had brought these */
	uint64_t blocks_total;
	enum control_source from; /* of those that are neither from the store nor from peers */
	uint64_t blocks_at[KV_LEVELS]; /* of those that are ready, by level */
	double seconds; /* from start to the last block or failure, so far if it runs */
	/* "https", "udp (kernel)", ...; "stripe store" when the source brought none. */
	char path[COURIER_PATH_BYTES];
	const char *backend; /* of the buffer: "kernel", "memfd"; NULL while there is none */
};

/* How placement over UDP is going, all sessions of the courier together; chunk and times are the last one's. */
struct courier_udp {
	uint32_t sessions;
	char backend[32]; /* of the last one: "kernel", "twin" */
	char reason[192]; /* why it: session_backend_reason() */
	struct receiver_stats sum;
};

/*
 * Manifest only: fetched and verified; no block is received yet. The engine checks it with
 * manifest_match() and then calls courier_run().
 */
int courier_open(struct courier **out, const struct courier_opts *opts, struct lslm_error *err);
/*
 * The manifest is of an earlier time, because the server could not be reached: why. No block can be
 * received then (courier_run() is -ENOTCONN where no store is to be looked through), but the context can be computed.
 */
bool courier_is_offline(const struct courier *c, struct lslm_error *why);
const struct manifest *courier_manifest(const struct courier *c);
/* As its publisher signed it; as long as the courier. */
const uint8_t *courier_manifest_data(const struct courier *c, size_t *size);

/*
 * Create buffer and control page and start receiving. -ENODATA for a context of fewer than
 * KV_BLOCK_TOKENS tokens, which has no block to receive. After it has ended in failure: the same buffer and page, what is
 * missing is WANTED once more, and the source is asked again. -EALREADY while it runs and after success.
 * -EAGAIN when there can be no thread; that is a failure like any other, and may be tried again.
 */
int courier_run(struct courier *c, struct lslm_error *err);

/*
 * The stripes below this one were computed elsewhere and need not come; from any thread, only ever
 * upwards. Once all others are here the courier stops asking, at once, even where the source is
 * silent: courier_finish() then returns 0, and the stats say how many blocks came.
 */
void courier_set_head(struct courier *c, uint32_t stripes);

/*
 * Go on in this order, if it is not the one in use; from any thread. It is dear: what is under way is thrown away and asked
 * for again. By HTTPS that is a request, and a connection if the server closes this one; by UDP it is a session (a grant,
 * a socket, the search for the path's size, bindings), the congestion control begins anew, and a cloud has a limit for
 * sessions. So some round trips and up to a second; not for every hint. Not together with courier_set_head().
 */
void courier_set_order(struct courier *c, enum order_kind order);

/* From one stripe's place in the buffer to the next one's. */
size_t courier_pitch(const struct courier *c);
/* New read-only descriptors, owned by the caller. */
int courier_buffer_fd(struct courier *c, struct lslm_error *err);
int courier_control_fd(struct courier *c, struct lslm_error *err);

/*
 * For others who want the same: the stripe's level, if all of it is here as its publisher signed it; -1: it is not. A
 * unit of such a one, at that level, as it came, as long as the courier. From any thread, after courier_run().
 */
int courier_held(const struct courier *c, uint32_t stripe);
const uint8_t *courier_unit(const struct courier *c, const struct manifest_level *lv,
			    uint32_t stripe, uint32_t unit);

/*
 * What the stripe store has of it when all of it is there, at most; 0: nothing is kept. And keep now what is here and
 * may have gone from there: of one that is complete. From any thread, after courier_run().
 */
uint64_t courier_kept_bytes(const struct courier *c);
void courier_keep_again(struct courier *c);

void courier_stats(struct courier *c, struct courier_stats *out);
/* "f16 36, q4 12", for people; "none". */
void courier_levels_text(const uint64_t blocks_at[KV_LEVELS], char *text, size_t size);
/* False as long as there was no session over UDP. From any thread, like courier_stats(). */
bool courier_udp(struct courier *c, struct courier_udp *out);
/* Is there something that the store does not take, and why? False also without a store. */
bool courier_keeps_badly(struct courier *c, struct lslm_error *why);
/* Has it ended in failure already? Does not wait; why may be NULL. */
bool courier_failed(struct courier *c, struct lslm_error *why);
/* Make it end soon; from any thread. */
void courier_stop(struct courier *c);
/* Wait for the thread. 0 when every block that was wanted arrived and was right, else the reason. */
int courier_finish(struct courier *c, struct lslm_error *err);
/* Stops the thread if it runs, lets the store finish, and frees everything the courier owns. */
void courier_close(struct courier *c);

#endif
