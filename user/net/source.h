/* SPDX-License-Identifier: MIT */
/*
 * A source: where a courier gets a context from. A file and a URL have the same shape.
 *
 * The courier asks for the manifest, decides whether it is to be trusted, makes the
 * buffer, and then hands the source a sink. The source puts every block that is
 * wanted, in the sink's order where it can, into its place and reports each complete
 * one with sink_block(), which verifies it there. Nothing that a source says about sizes is
 * believed: places and lengths come from the sink, whose geometry was checked.
 *
 * Wanted is what sink_wants() says when the source is about to fetch: not a block that is READY
 * already (another source, or a store, brought it), nor one of a stripe below `head`, which the
 * engine has computed meanwhile. A place that is not wanted must not be written: somebody may
 * be reading it. One source writes at a time.
 *
 * A source is used by one thread at a time, except wake().
 */
#ifndef LSLM_NET_SOURCE_H
#define LSLM_NET_SOURCE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "kv/buffer.h"
#include "kv/control.h"
#include "kv/manifest.h"
#include "net/order.h"
#include "net/choice.h"

struct calibration;
struct courier_opts;
struct courier_udp;
struct http_opts;
struct keeper;
struct peers;
struct shares;

enum { SOURCE_PATH_BYTES = 512 };

/* Where blocks go. The courier fills it before receive(); only the atomics and the choice change from then on. */
struct sink {
	struct order order;
	const struct manifest *manifest;
	struct choice *choice; /* the courier's; which level each stripe comes at */
	size_t pitch; /* from one stripe's place to the next */
	struct buffer *buffer; /* read-write, for sources that have it written to by others */
	uint8_t *base; /* the same, mapped RW */
	size_t size; /* bytes of all stripes; the mapping may be longer */
	/* Likewise, where stripes come to that are decoded on arrival; NULL where none may come. */
	struct buffer *staging;
	uint8_t *staging_base;
	size_t staging_pitch;
	const struct calibration *calibration; /* what level p is decoded with; NULL: none comes */
	bool *torn; /* [n_stripes] of which not all was brought by this process; NULL: none */
	struct control *control;
	enum control_source from;
	struct keeper *keeper; /* of stripes that are complete; NULL: none */
	struct shares *
		shares; /* with peers that bring parts too (net/shares.h); NULL: this source is alone */
	/* Both written by the source's thread, read by anybody. */
	atomic_uint_fast64_t received; /* bytes */
	atomic_uint_fast64_t ready; /* blocks verified and marked */
	/* Set by anybody: the source returns -ECANCELED soon. */
	atomic_bool stop;
	/* Stripes below it need not come any more; only grows. The source looks at it as at stop. */
	atomic_uint head;
};

/*
 * The source is about to ask for the index-th block of the order: settle the level of its stripe, which
 * stays what it is until receive() returns. How much it may ask for like this before it looks at sink_budget()
 * again: bytes, UINT64_MAX for all. One stripe may always be asked for.
 */
void sink_choose(struct sink *sink, uint32_t index);
uint64_t sink_budget(struct sink *sink);

/*
 * May the source ask for the stripe of this block? Then its level is settled as well, and nobody else brings it. False: a peer
 * does, or this is to be asked for later, when sink_wait() has returned, which looks after the peers for a moment. With over, for
 * a source that has nothing else to ask for: also what a peer has not brought for a while.
 */
bool sink_claim(struct sink *sink, uint32_t index, bool over);
void sink_wait(struct sink *sink);
/* So many bytes have come; whatever was asked for has come, or will not. */
void sink_came(struct sink *sink, uint64_t bytes);
void sink_settle(struct sink *sink);

/* What a peer is about to bring: stripes first, first - 1, ... at a level. */
struct sink_pick {
	uint32_t source; /* of the peer, in the sink's shares */
	uint32_t first, n;
	const struct manifest_level *level;
};

/*
 * For a peer that has each stripe at a level, 1 + enum kv_level, or not, 0: what it should bring next. False:
 * nothing for now. With alone there is nobody else whom better levels may come from. *recall as by shares_take_over().
 */
bool sink_pick(struct sink *sink, const uint8_t *held, bool alone, struct sink_pick *pick,
	       bool *recall);
/*
 * A unit of it has come, at data: check its digest and take it, if it is still wanted and nobody else is bringing it. -EBADMSG as
 * sink_block().
 */
int sink_offer(struct sink *sink, const struct sink_pick *pick, uint32_t stripe, uint32_t unit,
	       const uint8_t *data, struct lslm_error *err);

/* The level of the stripe of the index-th block of the order; NULL before it is settled. */
const struct manifest_level *sink_level(const struct sink *sink, uint32_t index);
/* Of a block whose level is settled: how long it is as it travels, and where it is brought. */
size_t sink_bytes(const struct sink *sink, uint32_t index);
uint8_t *sink_place(const struct sink *sink, uint32_t index);
/* Of a stripe whose level is settled: the buffer that its blocks are brought to, and where there it begins. */
struct buffer *sink_buffer(const struct sink *sink, uint32_t stripe, uint64_t *base);
/*
 * All bytes of the block are at its place: check the digest there, decode it where it is not read as it came, and mark
 * the block READY, or all of its stripe where that is the unit. -EBADMSG with a line when the digest or
 * what it stands for is wrong; the source must then give up.
 */
int sink_block(struct sink *sink, uint32_t index, struct lslm_error *err);
/* Nothing is asked for now: stripes of which no block has come may come at another level. */
void sink_forget(struct sink *sink);
/* A stripe that was read to its place whole, and whose digests are right: the same. */
int sink_stripe(struct sink *sink, uint32_t stripe, enum control_source from,
		struct lslm_error *err);
/* Should the index-th block of the order come? Of a stripe that is a unit its first block stands for all. */
bool sink_wants(const struct sink *sink, uint32_t index);
/* The first wanted block at or after this one; order_count() when there is none. */
uint32_t sink_next(const struct sink *sink, uint32_t index);
/* Nothing is wanted any more: all has come, or what has not was computed. */
bool sink_is_done(const struct sink *sink);

struct source;

struct source_ops {
	/* Manifest as published, malloc'd for the caller. */
	int (*manifest)(struct source *s, uint8_t **data, size_t *size, struct lslm_error *err);
	/*
	 * The manifest has this salt: whatever is asked from now on is asked by its token (net/rights.h). NULL: by the same one always.
	 */
	void (*salt)(struct source *s, const struct kv_hash *salt);
	/*
	 * Deliver every wanted block: 0, or the reason why some are missing. The courier takes any
	 * result for success once sink_is_done().
	 */
	int (*receive)(struct source *s, struct sink *sink, struct lslm_error *err);
	/* From another thread: make a running receive() look at sink->stop now. NULL if it polls. */
	void (*wake)(struct source *s);
	/* What source_path() says, where it is not the source's own; NULL: it is. */
	void (*path)(struct source *s, char out[SOURCE_PATH_BYTES]);
	/* From any thread: how placement is going; false when there was none. NULL: there never is. */
	bool (*udp)(struct source *s, struct courier_udp *out);
	void (*close)(struct source *s);
};

/* Every source begins with this. */
struct source {
	const struct source_ops *ops;
	enum control_source from;
	/* The key that the manifest must carry; NULL when the user named none. */
	const struct kv_hash *key;
	pthread_mutex_t lock; /* of path, which receive() settles and anybody reads */
	char path[SOURCE_PATH_BYTES];
};

/* For those that implement one; the path is what is said until receive() knows better. */
void source_init(struct source *s, const struct source_ops *ops, enum control_source from,
		 const char *path);
void source_fini(struct source *s);
void source_set_path(struct source *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* How the bytes come, for people: "https", "file (io_uring, O_DIRECT)". From any thread. */
void source_path(struct source *s, char out[SOURCE_PATH_BYTES]);

int source_file_open(struct source **out, const struct courier_opts *opts, struct lslm_error *err);
/* The key that a context's URL names; -EINVAL for what is no such URL. */
int source_https_key(const char *url, struct kv_hash *key, struct lslm_error *err);
/* How whatever is asked of a URL's server is asked (net/http_client.h): all that opts says of it, but stop and site. */
struct http_opts source_https_opts(const struct courier_opts *opts);
int source_https_open(struct source **out, const struct courier_opts *opts, struct lslm_error *err);
/* Over UDP, with an HTTPS source for all that goes before, and for what UDP cannot bring. */
int source_udp_open(struct source **out, const struct courier_opts *opts, struct lslm_error *err);

/* That one and the context's other holders at once; takes cloud over, unless it fails. opts->peers is set. */
int source_fleet_open(struct source **out, struct source *cloud, const struct courier_opts *opts,
		      struct lslm_error *err);

struct http_client;
struct site;

/* Of an HTTPS source: its connection, for the thread that uses the source, and "https://HOST[:PORT]". */
struct http_client *source_https_client(struct source *s);
const char *source_https_site(const struct source *s);
/* Whether it is to be asked (net/sites.h); NULL: always. */
struct site *source_https_breaker(const struct source *s);

#endif
