// SPDX-License-Identifier: MIT
#include "engine/context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/probes.h"

struct context {
	struct delivery *delivery;
	const struct manifest *manifest; /* the delivery's */
	struct buffer *buffer; /* read-only import; NULL without a stream */
	struct control *control;
	size_t pitch; /* of the buffer's stripes */
	uint64_t generation;
	double wanted;
	enum context_source source;
	bool streamed; /* the buffer's stripes arrive, or are there */
	bool whole; /* asked for from both sides, but of a kind that is used as a whole or not at all */
	bool foreign; /* what streams in is not what this model would compute */
	struct kv_hash own_values; /* a name for what it does compute, where that is not the same */
	struct meet meet;
	struct sequence
		*past; /* a head that has come as well, for those who share it still; NULL: none */
	uint32_t sharers; /* sequences that have a head, this one or the past one */
	struct reuse reuse; /* of a manifest with a run */
	struct segment_run run; /* where its layers are */
	struct lslm_error miss;
};

/* What a courier hands out is what the manifest's context needs, and no more than a right to read. */
static int check_import(const struct context *c, struct lslm_error *err)
{
	const struct manifest *m = c->manifest;

	if (buffer_data(c->buffer))
		return error_set(err, -EPROTO, "the courier gave a right to write to its buffer");
	if (!c->pitch || c->pitch % KV_ALIGN || buffer_size(c->buffer) / c->pitch < m->n_stripes ||
	    control_n_stripes(c->control) != m->n_stripes ||
	    control_n_layer(c->control) != m->geo.n_layer)
		return error_set(err, -EPROTO,
				 "the courier's buffer or control page is of another context");
	return 0;
}

static int import(struct context *c, const struct delivery_fds *fds, struct lslm_error *err)
{
	bool retained;
	int rc;

	c->pitch = fds->pitch;
	rc = buffer_import(&c->buffer, fds->buffer, err);
	if (rc)
		close(fds->buffer);
	if (!rc)
		rc = control_import(&c->control, fds->control, err);
	if (rc) {
		if (!c->control)
			close(fds->control);
		return rc;
	}
	rc = check_import(c, err);
	if (!rc && fds->courier >= 0)
		control_watch(c->control, fds->courier);
	if (!rc)
		rc = buffer_hold(c->buffer, &retained, &c->generation, err);
	if (!rc)
		rc = buffer_release(c->buffer, err);
	return rc;
}

/*
 * A context that another model made, through a map. It is used as a whole or not at all: what this model computes never stands beside what
 * the map made, token by token. Where it is not used its tokens are still good.
 */
static int take_mapped(struct context *c, const struct engine *e, struct lslm_error *err)
{
	const bool known = kv_hash_equal(&c->manifest->identity.map, &e->map.fingerprint);
	const bool off = manifest_map_is_off(c->manifest, &c->miss);

	/* What a publisher signed and what the map's file says are the same, or one of them is wrong. */
	if (!off && (known ? e->map.proven : c->manifest->proof.metric != PROOF_NONE)) {
		c->foreign = true;
		c->whole = c->source == CONTEXT_BOTH;
		c->source = c->whole ? CONTEXT_STREAM : c->source;
		return 0;
	}
	if (!off && known)
		error_set(&c->miss, -ENOEXEC, "the map is off: %s", e->map.why);
	else if (!off)
		error_set(
			&c->miss, -ENOEXEC,
			"the context was made through a map that was not named, and comes without an "
			"evaluation of it; see --map");
	if (c->source == CONTEXT_STREAM)
		return error_set(err, -ENOEXEC, "%s", c->miss.text);
	c->source = CONTEXT_COMPUTE;
	return 0;
}

static int check_identity(struct context *c, struct engine *e, const struct kv_hash *salt,
			  const char *name, struct lslm_error *err)
{
	struct kv_identity id;
	int rc = engine_identity(e, &id, err);

	if (rc)
		return rc;
	id.salt = *salt;
	c->manifest = c->delivery->manifest;
	if (!kv_hash_is_zero(&c->manifest->identity.map))
		rc = take_mapped(c, e, err);
	if (rc)
		return error_prefix(err, rc, "%s", name);
	id.map = c->manifest->identity.map;
	rc = manifest_match(c->manifest, &id, &e->geo, e->model->params.n_vocab, err);
	return rc ? error_prefix(err, rc, "%s", name) : 0;
}

static bool has_run(const struct context *c)
{
	return !kv_run_is_none(&c->manifest->run);
}

/* Which layers are whose, of one whose stripes are used. */
static int open_run(struct context *c, struct engine *e, struct lslm_error *err)
{
	const struct manifest *m = c->manifest;
	int rc;

	if (!has_run(c) || !m->n_stripes)
		return 0;
	rc = reuse_open(&c->reuse, e, &m->run, m->tokens, m->n_stripes * KV_BLOCK_TOKENS, err);
	if (rc)
		return rc;
	c->run = (struct segment_run){
		.layers = m->run,
		.geo = m->geo,
		.base = c->reuse.seq->memory,
		.stripe = kv_stripe_bytes(&c->reuse.seq->geo, KV_LEVEL_F16),
	};
	return 0;
}

static void probe_stream(const struct context *c)
{
	struct buffer_info info;

	/* Asked only when somebody wants to know: it is a call into the kernel. */
	if (PROBE_ON(stream) && !buffer_query(c->buffer, &info, NULL))
		PROBE(stream, context_number(c), info.id, c->generation,
		      (uint64_t)buffer_size(c->buffer));
}

static int start_stream(struct context *c, struct lslm_error *err)
{
	struct delivery_fds fds;
	int rc;

	if (!c->manifest->n_stripes)
		return 0;
	rc = c->delivery->ops->start(c->delivery, &fds, err);
	if (rc == -ENOTCONN) {
		c->miss = c->delivery->outage;
		return 0;
	}
	if (!rc)
		rc = import(c, &fds, err);
	if (rc)
		return rc;
	c->streamed = true;
	c->meet.control = c->control;
	c->meet.delivery = c->delivery;
	probe_stream(c);
	return 0;
}

/* Takes the delivery, also where it fails. */
static int attach(struct context **out, struct engine *e, struct context *c,
		  const struct kv_hash *salt, const char *name, struct lslm_error *err)
{
	int rc = check_identity(c, e, salt, name, err);

	if (!rc)
		PROBE(context_wanted, context_number(c), c->manifest->n_tokens,
		      c->manifest->n_stripes, (uint64_t)((clock_seconds() - c->wanted) * 1e9));
	if (!rc && c->source != CONTEXT_COMPUTE)
		rc = open_run(c, e, err);
	if (!rc && c->source != CONTEXT_COMPUTE)
		rc = start_stream(c, err);
	if (rc) {
		context_close(c);
		return rc;
	}
	c->meet.e = e;
	c->meet.tokens = c->manifest->tokens;
	c->meet.n_stripes = c->manifest->n_stripes;
	c->own_values = kv_digest(&c->manifest->key, sizeof(c->manifest->key));
	*out = c;
	return 0;
}

static struct context *fresh(enum context_source source)
{
	struct context *c = calloc(1, sizeof(*c));

	if (c) {
		c->wanted = clock_seconds();
		c->source = source;
	}
	return c;
}

enum order_kind context_order(enum context_source source)
{
	return source == CONTEXT_STREAM ? ORDER_LAYER : ORDER_TAIL;
}

int context_attach(struct context **out, struct engine *e, const struct courier_opts *opts,
		   const struct kv_hash *salt, enum context_source source, struct lslm_error *err)
{
	struct context *c = fresh(source);
	struct courier_opts o = *opts;
	int rc;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	o.order = context_order(source);
	/* Whoever computes anyway can do so with a manifest of an earlier time. */
	o.offline = o.offline || source == CONTEXT_BOTH;
	rc = delivery_open_local(&c->delivery, &o, err);
	if (rc) {
		context_close(c);
		return rc;
	}
	return attach(out, e, c, salt, opts->source, err);
}

int context_attach_remote(struct context **out, struct engine *e,
			  const struct delivery_remote_opts *opts, const struct kv_hash *salt,
			  enum context_source source, struct lslm_error *err)
{
	struct context *c = fresh(source);
	int rc;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	rc = delivery_open_remote(&c->delivery, opts, err);
	if (rc) {
		context_close(c);
		return rc;
	}
	return attach(out, e, c, salt, opts->socket, err);
}

/* Of several the manifest's own, if it is among them; else any, which will be found wrong. */
static const struct kv_hash *which_salt(const struct kv_hash *is, const struct kv_hash *salts,
					uint32_t n)
{
	for (uint32_t i = 1; i < n; i++)
		if (kv_hash_equal(is, &salts[i]))
			return &salts[i];
	return &salts[0];
}

int context_attach_linked(struct context **out, struct engine *e, struct courier_link *link,
			  const struct kv_hash *key,
			  const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES], size_t n_trusted,
			  const struct kv_hash *salts, uint32_t n_salts, struct lslm_error *err)
{
	/* Whoever would wait for the stream alone would wait for a courier that does not come back. */
	struct context *c = fresh(CONTEXT_BOTH);
	const struct kv_hash *salt;
	char hex[KV_HASH_TEXT], name[24];
	int rc;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	rc = delivery_open_linked(&c->delivery, link, key, context_order(c->source), trusted,
				  n_trusted, err);
	if (rc) {
		context_close(c);
		return rc;
	}
	kv_hash_format(key, hex);
	snprintf(name, sizeof(name), "context %.12s", hex);
	salt = which_salt(&c->delivery->manifest->identity.salt, salts, n_salts);
	return attach(out, e, c, salt, name, err);
}

void context_close(struct context *c)
{
	if (!c)
		return;
	/* First: a courier of this process writes into the buffer that is mapped here. */
	if (c->delivery)
		c->delivery->ops->close(c->delivery);
	meet_free(&c->meet);
	sequence_destroy(c->past);
	reuse_close(&c->reuse);
	if (c->control)
		control_close(c->control);
	if (c->buffer)
		buffer_close(c->buffer);
	free(c);
}

const int32_t *context_tokens(const struct context *c, uint32_t *n)
{
	*n = c->manifest->n_tokens;
	return c->manifest->tokens;
}

double context_wanted(const struct context *c)
{
	return c->wanted;
}

const struct kv_hash *context_key(const struct context *c)
{
	return &c->manifest->key;
}

const struct kv_hash *context_values(const struct context *c)
{
	return c->foreign && !c->streamed ? &c->own_values : &c->manifest->key;
}

uint64_t context_number(const struct context *c)
{
	return kv_hash_number(&c->manifest->key);
}

bool context_is_streamed(const struct context *c)
{
	return c->streamed;
}

bool context_must_stream(const struct context *c)
{
	return c->source == CONTEXT_STREAM && !c->whole;
}

bool context_is_gated(const struct context *c)
{
	return c->streamed && c->source == CONTEXT_STREAM;
}

static void probe_met(const struct context *c)
{
	PROBE(met, context_number(c), context_computed(c) * KV_BLOCK_TOKENS, context_computed(c),
	      context_streamed(c));
}

/*
 * At which level a stripe lies there. A courier of another process may say anything: what it says is looked
 * at once, and a stripe of it must fit where it is.
 */
static int level_at(const struct context *c, uint32_t stripe, enum kv_level *level,
		    struct lslm_error *err)
{
	const uint32_t said = control_get_level(c->control, stripe, 0);

	if (!kv_level_name(said))
		return error_set(err, -EPROTO, "the courier names level %u, which there is not",
				 said);
	*level = kv_level_in_memory(said);
	if (kv_stripe_bytes(&c->manifest->geo, *level) > c->pitch)
		return error_set(err, -EPROTO,
				 "the courier's buffer has no room for stripes of level %s",
				 kv_level_name(said));
	return 0;
}

/* The hidden state of the next piece, which is in the buffer. */
static int take_hidden(struct context *c, uint32_t tokens, struct lslm_error *err)
{
	const uint32_t first = sequence_len(c->reuse.seq) / KV_BLOCK_TOKENS;
	uint64_t generation;
	bool retained;
	int rc = buffer_hold(c->buffer, &retained, &generation, err);

	if (rc)
		return rc;
	if (!retained || generation != c->generation)
		rc = error_set(err, -ESTALE, "the context's buffer lost its contents");
	for (uint32_t i = 0; !rc && i < tokens / KV_BLOCK_TOKENS; i++) {
		enum kv_level level;

		rc = level_at(c, first + i, &level, err);
		if (!rc)
			reuse_take(&c->reuse, i, level,
				   (const uint8_t *)buffer_ro_data(c->buffer) +
					   (first + i) * c->pitch);
	}
	buffer_release(c->buffer, NULL);
	return rc;
}

/*
 * A piece of the run's layers: 1 where there is nothing left of them to compute, 0 where there is. The E blocks of all stripes come first, so
 * they are waited for together; wait: as long as it takes, else -ETIMEDOUT.
 */
static int run_step(struct context *c, uint32_t most, bool wait, struct lslm_error *err)
{
	const uint32_t tokens = reuse_next(&c->reuse, most);
	int rc = 0;

	if (!tokens)
		return 1;
	if (c->manifest->run.hidden)
		rc = control_wait_layer(c->control, 0, wait ? -1 : 0);
	if (rc == -ETIMEDOUT)
		return rc;
	if (rc)
		return error_set(err, -EIO, "the hidden state of the context did not arrive");
	if (c->manifest->run.hidden)
		rc = take_hidden(c, tokens, err);
	return rc ? rc : reuse_compute(&c->reuse, tokens, err);
}

static int settle_run(struct context *c, struct lslm_error *err)
{
	int rc = has_run(c) ? 0 : 1;

	while (!rc)
		rc = run_step(c, 0, true, err);
	return rc < 0 ? rc : 0;
}

int context_settle(struct context *c, struct lslm_error *err)
{
	int rc = context_is_gated(c) ? settle_run(c, err) : meet_walk(&c->meet, err);

	if (!rc)
		probe_met(c);
	return rc;
}

/* Are all layers there? */
static int look(const struct context *c, struct lslm_error *err)
{
	for (uint32_t l = 0; l < c->manifest->geo.n_layer; l++) {
		int rc = control_wait_layer(c->control, l, 0);

		if (rc == -ETIMEDOUT)
			return 0;
		if (rc)
			return error_set(err, -EIO, "layer %u of the context did not arrive", l);
	}
	return 1;
}

/* What arrives is looked at where nothing is left to compute, or to compute from. */
static int gated_step(struct context *c, uint32_t most, struct lslm_error *err)
{
	int rc = has_run(c) ? run_step(c, most, false, err) : 1, there;

	if (rc != 1 && rc != -ETIMEDOUT)
		return rc;
	there = look(c, err);
	/* All may have come since then; what is to be computed from it still is. */
	return there == 1 && rc != 1 ? 0 : there;
}

int context_settle_step(struct context *c, uint32_t most, struct lslm_error *err)
{
	int rc = context_is_gated(c) ? gated_step(c, most, err) : meet_step(&c->meet, most, err);

	if (rc == 1)
		probe_met(c);
	return rc;
}

uint32_t context_computed(const struct context *c)
{
	return meet_head(&c->meet);
}

uint64_t context_work(const struct context *c)
{
	return meet_head(&c->meet) + (c->reuse.seq ? sequence_len(c->reuse.seq) : 0);
}

uint32_t context_streamed(const struct context *c)
{
	return c->manifest->n_stripes - meet_head(&c->meet);
}

static int share_computed(struct context *c, struct sequence *s, struct lslm_error *err)
{
	/* Plain memory of the context's: nothing to hold or to wait for. */
	struct segment seg = c->meet.head->own;
	int rc;

	seg.rounded = true;
	rc = sequence_share(s, &seg, err);
	c->sharers += !rc;
	return rc;
}

static void free_past(struct context *c)
{
	if (c->sharers)
		return;
	sequence_destroy(c->past);
	c->past = NULL;
}

/* What was computed here has come from elsewhere too: it is there once for all engines, and here it is too much. */
static void leave_head(struct context *c)
{
	if (!c->meet.head || c->past || !c->streamed || control_tail(c->control))
		return;
	c->past = c->meet.head;
	c->meet.head = NULL;
	meet_free(&c->meet);
	free_past(c);
}

static int share_run(struct context *c, struct sequence *s, uint32_t first, uint32_t end,
		     enum kv_level level, struct lslm_error *err)
{
	const struct segment seg = {
		.base = (const uint8_t *)buffer_ro_data(c->buffer) + first * c->pitch,
		.level = level,
		.pitch = c->pitch,
		.rounded = true,
		.first = first * KV_BLOCK_TOKENS,
		.n_tokens = (end - first) * KV_BLOCK_TOKENS,
		.buffer = c->buffer,
		.generation = c->generation,
		.run = has_run(c) ? &c->run : NULL,
		/* A tail was seen to be ready as a whole, while layers without the head never are. */
		.control = context_is_gated(c) ? c->control : NULL,
	};

	return sequence_share(s, &seg, err);
}

/* One segment for each run of stripes of one level. */
static int share_streamed(struct context *c, struct sequence *s, struct lslm_error *err)
{
	const uint32_t n = c->manifest->n_stripes;
	uint32_t first = context_computed(c), end;
	enum kv_level level, next;
	int rc;

	rc = level_at(c, first, &level, err);
	for (end = first + 1; !rc; end++) {
		if (end < n)
			rc = level_at(c, end, &next, err);
		if (rc || (end < n && next == level))
			continue;
		rc = share_run(c, s, first, end, level, err);
		if (end == n)
			break;
		first = end;
		level = next;
	}
	return rc;
}

int context_share(struct context *c, struct sequence *s, struct lslm_error *err)
{
	int rc = 0;

	leave_head(c);
	if (context_computed(c))
		rc = share_computed(c, s, err);
	/* The level of a stripe is known when it is there; the first layer is what the pass waits for first. */
	if (!rc && context_is_gated(c))
		rc = control_wait_layer(c->control, 0, -1) ?
			     error_set(err, -EIO, "layer 0 of the context did not arrive") :
			     0;
	if (!rc && context_streamed(c))
		rc = share_streamed(c, s, err);
	return rc;
}

void context_unshare(struct context *c, const struct sequence *s)
{
	/* What stands in no buffer was computed. */
	if (!s->n_segments || s->segments[0].buffer)
		return;
	c->sharers--;
	free_past(c);
	leave_head(c);
}

void context_give_up(struct context *c, const struct lslm_error *why)
{
	c->streamed = false;
	c->meet.control = NULL;
	c->meet.delivery = NULL;
	c->miss = *why;
	/* The pass saw only that something is missing; the courier may know the cause. */
	c->delivery->ops->finish(c->delivery, &c->miss);
}

const struct lslm_error *context_miss(struct context *c)
{
	/*
	 * Nobody waits for a stream that others do without, so its end is looked for here. A courier that went
	 * away after it had brought everything has missed nothing.
	 */
	if (c->streamed && !c->miss.code && control_tail(c->control))
		c->delivery->ops->failed(c->delivery, &c->miss);
	return &c->miss;
}

void context_stats(const struct context *c, struct courier_stats *out)
{
	c->delivery->ops->stats(c->delivery, out);
}

const char *context_backend(const struct context *c)
{
	struct buffer_info info;

	if (!c->streamed || buffer_query(c->buffer, &info, NULL))
		return "private";
	return buffer_backend_name(info.backend);
}

const struct manifest *context_manifest(const struct context *c)
{
	return c->manifest;
}

struct context_block context_block(const struct context *c, uint32_t stripe, uint32_t layer)
{
	struct context_block b = { CONTROL_WANTED, CONTROL_FROM_NONE, KV_LEVEL_F16 };

	if (stripe < context_computed(c)) {
		b.state = CONTROL_READY;
		b.source = CONTROL_FROM_COMPUTE;
	} else if (c->control) {
		b.state = control_get(c->control, stripe, layer);
		b.source = control_get_source(c->control, stripe, layer);
		b.level = (enum kv_level)control_get_level(c->control, stripe, layer);
	}
	return b;
}
