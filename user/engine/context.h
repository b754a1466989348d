/* SPDX-License-Identifier: MIT */
/*
 * An attached context, seen from the engine.
 *
 * Attaching opens a courier for the source, which fetches the manifest; here it is checked
 * against the engine's own identity. The courier's thread then receives, and this side holds
 * only what an engine in another process would: read-only descriptors of the buffer and
 * of the control page, imported like received ones.
 */
#ifndef LSLM_ENGINE_CONTEXT_H
#define LSLM_ENGINE_CONTEXT_H

#include <stdbool.h>

#include "engine/engine.h"
#include "engine/sequence.h"
#include "net/courier.h"

struct context;

/* stream false: fetch only the manifest. The strings in opts are not kept. */
int context_attach(struct context **out, struct engine *e, const struct courier_opts *opts,
		   const struct kv_hash *salt, bool stream, struct lslm_error *err);
void context_close(struct context *c);

const int32_t *context_tokens(const struct context *c, uint32_t *n);
/* Monotonic seconds when it was asked for. */
double context_wanted(const struct context *c);

/* Does it have streamed stripes to share? Not when it is computed here, or once given up. */
bool context_is_shared(const struct context *c);
/* Append its stripes to an empty sequence. */
int context_share(struct context *c, struct sequence *s, struct lslm_error *err);

/*
 * The stream failed, as a pass has seen (why): wait for the courier to end, learn its reason, and never
 * share again.
 */
void context_give_up(struct context *c, const struct lslm_error *why);
/* Why it is not shared although a stream was asked for; code 0 where nothing went wrong. */
const struct lslm_error *context_miss(const struct context *c);

void context_stats(const struct context *c, struct courier_stats *out);
/* "kernel", "memfd", or "private" when nothing is shared. */
const char *context_backend(const struct context *c);

#endif
