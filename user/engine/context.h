/* SPDX-License-Identifier: MIT */
/*
 * An attached context, seen from the engine.
 *
 * Attaching asks a courier, of this process or another, for the manifest (net/delivery.h); here it
 * is checked against the engine's own identity. The courier then receives, and this side holds only
 * read-only descriptors of the buffer and of the control page.
 *
 * Where its KV comes from: both sides at once, which meet (engine/meet.h), or one of them. What was
 * computed stays with the context, so that all sequences share it; once the stripes that were computed have come as well, those that begin from
 * then on read them where all engines do, and what was computed here is freed when the last one that shares it has ended. The last
 * n_tokens % KV_BLOCK_TOKENS tokens are nobody's: each sequence computes them.
 *
 * A context that another model of the same shape made may leave a run of layers to this side (kv/run.h): they are computed
 * before its stripes are shared, while the layers that travel are still arriving.
 */
#ifndef LSLM_ENGINE_CONTEXT_H
#define LSLM_ENGINE_CONTEXT_H

#include <stdbool.h>

#include "engine/engine.h"
#include "engine/meet.h"
#include "engine/reuse.h"
#include "engine/sequence.h"
#include "net/delivery.h"

struct context;

enum context_source {
	CONTEXT_BOTH,
	CONTEXT_STREAM, /* in layer order, for a pass that follows it */
	CONTEXT_COMPUTE, /* only the manifest is fetched */
};

/* The order that suits a source. */
enum order_kind context_order(enum context_source source);
/*
 * A courier of this process. Nothing in opts is kept but its store and steering; its order is not
 * looked at.
 */
int context_attach(struct context **out, struct engine *e, const struct courier_opts *opts,
		   const struct kv_hash *salt, enum context_source source, struct lslm_error *err);
/* Another process's courier: the same, but for whom the buffer, and what went wrong, belong to. */
int context_attach_remote(struct context **out, struct engine *e,
			  const struct delivery_remote_opts *opts, const struct kv_hash *salt,
			  enum context_source source, struct lslm_error *err);
/* The same by a link that several contexts share, see delivery_open_linked(); its salt is one of these, of which there is at least one. */
int context_attach_linked(struct context **out, struct engine *e, struct courier_link *link,
			  const struct kv_hash *key,
			  const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES], size_t n_trusted,
			  const struct kv_hash *salts, uint32_t n_salts, struct lslm_error *err);
void context_close(struct context *c);

const int32_t *context_tokens(const struct context *c, uint32_t *n);
/* Monotonic seconds when it was asked for. */
double context_wanted(const struct context *c);
const struct kv_hash *context_key(const struct context *c);
/* The first 64 bits of its key, as probes name it. */
uint64_t context_number(const struct context *c);

/*
 * Whose values its stripes have, as a name: what is computed after them belongs to it. The key, but for a context through a map
 * whose stripes were lost: what is computed here in their place is another model's, and what came after the lost
 * ones is not to stand behind it. Changes with context_give_up() only.
 */
const struct kv_hash *context_values(const struct context *c);

/*
 * Compute what has to be computed here before the stripes can be shared: nothing of a stream, all
 * without one, the head until it meets the tail where both are at work.
 */
int context_settle(struct context *c, struct lslm_error *err);
/*
 * A piece of that, see meet_step(); of a stream alone it does not compute but look. 1: settled, and
 * no pass over its stripes will wait; 0: not yet. -EIO when the stream alone was to bring it and
 * failed.
 */
int context_settle_step(struct context *c, uint32_t most, struct lslm_error *err);
/* Does a pass over its stripes wait for layers that are still arriving? */
bool context_is_gated(const struct context *c);
/* Append its stripes to an empty sequence; after context_settle(). */
int context_share(struct context *c, struct sequence *s, struct lslm_error *err);
/* This sequence, with what it has of them, is about to end; who never says so keeps what was computed here until the context is closed. */
void context_unshare(struct context *c, const struct sequence *s);
/* Of its stripes: computed here, streamed; the first of the latter is where the two met. */
uint32_t context_computed(const struct context *c);
uint32_t context_streamed(const struct context *c);
/* Grows with whatever is computed here for it; for who wants to see whether anything was. */
uint64_t context_work(const struct context *c);

/* Could a pass over its shared stripes fail, and be repeated without the stream? */
bool context_is_streamed(const struct context *c);
/*
 * The stream failed, or the buffer lost its contents, as a pass has seen (why): wait for the
 * courier to end, learn its reason, and use nothing of the buffer again. What was computed stays.
 */
void context_give_up(struct context *c, const struct lslm_error *why);
/* Is it left to the caller whether to go on without the stream? With both sides it never is. */
bool context_must_stream(const struct context *c);
/* What was wrong with a stream that was asked for; code 0 where nothing is known of that kind. */
const struct lslm_error *context_miss(struct context *c);

void context_stats(const struct context *c, struct courier_stats *out);
/* "kernel", "memfd", or "private" when nothing is shared. */
const char *context_backend(const struct context *c);

/* For reports, from any thread. */
const struct manifest *context_manifest(const struct context *c);

struct context_block {
	enum control_state state;
	enum control_source source; /* of one that is READY */
	enum kv_level level;
};

struct context_block context_block(const struct context *c, uint32_t stripe, uint32_t layer);

#endif
