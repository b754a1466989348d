// SPDX-License-Identifier: MIT
#include "engine/context.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"

struct context {
	struct courier *courier;
	const struct manifest *manifest; /* the courier's */
	struct buffer *buffer; /* read-only import; NULL without a stream */
	struct control *control;
	uint64_t generation;
	double wanted;
	enum context_source source;
	bool streamed; /* the buffer's stripes arrive, or are there */
	struct meet meet;
	struct lslm_error miss;
};

static int import(struct context *c, struct lslm_error *err)
{
	bool retained;
	int fd, rc;

	fd = courier_buffer_fd(c->courier, err);
	if (fd < 0)
		return fd;
	rc = buffer_import(&c->buffer, fd, err);
	if (rc) {
		close(fd);
		return rc;
	}
	fd = courier_control_fd(c->courier, err);
	if (fd < 0)
		return fd;
	rc = control_import(&c->control, fd, err);
	if (rc) {
		close(fd);
		return rc;
	}
	rc = buffer_hold(c->buffer, &retained, &c->generation, err);
	if (!rc)
		rc = buffer_release(c->buffer, err);
	return rc;
}

static int open_courier(struct context *c, struct engine *e, const struct courier_opts *opts,
			const struct kv_hash *salt, struct lslm_error *err)
{
	struct courier_opts o = *opts;
	struct kv_identity id;
	int rc;

	o.order = c->source == CONTEXT_BOTH ? ORDER_TAIL : ORDER_LAYER;
	/* Whoever computes anyway can do so with a manifest of an earlier time. */
	o.offline = o.offline || c->source == CONTEXT_BOTH;
	rc = engine_identity(e, &id, err);
	if (!rc)
		rc = courier_open(&c->courier, &o, err);
	if (rc)
		return rc;
	id.salt = *salt;
	c->manifest = courier_manifest(c->courier);
	rc = manifest_match(c->manifest, &id, &e->geo, e->model->params.n_vocab, err);
	return rc ? error_prefix(err, rc, "%s", opts->source) : 0;
}

static int start_stream(struct context *c, struct lslm_error *err)
{
	int rc;

	if (courier_is_offline(c->courier, &c->miss) || !c->manifest->n_stripes)
		return 0;
	rc = courier_run(c->courier, err);
	if (!rc)
		rc = import(c, err);
	if (rc)
		return rc;
	c->streamed = true;
	c->meet.control = c->control;
	c->meet.courier = c->courier;
	return 0;
}

int context_attach(struct context **out, struct engine *e, const struct courier_opts *opts,
		   const struct kv_hash *salt, enum context_source source, struct lslm_error *err)
{
	struct context *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->wanted = clock_seconds();
	c->source = source;
	rc = open_courier(c, e, opts, salt, err);
	if (!rc && source != CONTEXT_COMPUTE)
		rc = start_stream(c, err);
	if (rc) {
		context_close(c);
		return rc;
	}
	c->meet.e = e;
	c->meet.tokens = c->manifest->tokens;
	c->meet.n_stripes = c->manifest->n_stripes;
	*out = c;
	return 0;
}

void context_close(struct context *c)
{
	if (!c)
		return;
	/* The courier first: it writes into the buffer that is mapped here. */
	if (c->courier)
		courier_close(c->courier);
	meet_free(&c->meet);
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

bool context_is_streamed(const struct context *c)
{
	return c->streamed;
}

bool context_must_stream(const struct context *c)
{
	return c->source == CONTEXT_STREAM;
}

int context_settle(struct context *c, struct lslm_error *err)
{
	if (c->streamed && c->source == CONTEXT_STREAM)
		return 0;
	return meet_walk(&c->meet, err);
}

uint32_t context_computed(const struct context *c)
{
	return meet_head(&c->meet);
}

uint32_t context_streamed(const struct context *c)
{
	return c->manifest->n_stripes - meet_head(&c->meet);
}

static int share_computed(struct context *c, struct sequence *s, struct lslm_error *err)
{
	/* Plain memory of the context's: nothing to hold or to wait for. */
	return sequence_share(s, &c->meet.head->own, err);
}

static int share_streamed(struct context *c, struct sequence *s, struct lslm_error *err)
{
	const struct manifest *m = c->manifest;
	const uint32_t first = context_computed(c);
	const size_t stripe = kv_stripe_bytes(&m->geo, KV_LEVEL_F16);
	const struct segment seg = {
		.base = (const uint8_t *)buffer_ro_data(c->buffer) + first * stripe,
		.first = first * KV_BLOCK_TOKENS,
		.n_tokens = (m->n_stripes - first) * KV_BLOCK_TOKENS,
		.buffer = c->buffer,
		.generation = c->generation,
		/* A tail was seen to be ready as a whole, while layers without the head never are. */
		.control = c->source == CONTEXT_STREAM ? c->control : NULL,
	};

	return sequence_share(s, &seg, err);
}

int context_share(struct context *c, struct sequence *s, struct lslm_error *err)
{
	int rc = 0;

	if (context_computed(c))
		rc = share_computed(c, s, err);
	if (!rc && context_streamed(c))
		rc = share_streamed(c, s, err);
	return rc;
}

void context_give_up(struct context *c, const struct lslm_error *why)
{
	c->streamed = false;
	c->meet.control = NULL;
	c->meet.courier = NULL;
	c->miss = *why;
	/* The pass saw only that something is missing; the courier may know the cause. */
	courier_finish(c->courier, &c->miss);
}

const struct lslm_error *context_miss(struct context *c)
{
	/* Nobody waits for a stream that others do without, so its end is looked for here. */
	if (c->streamed && !c->miss.code)
		courier_failed(c->courier, &c->miss);
	return &c->miss;
}

void context_stats(const struct context *c, struct courier_stats *out)
{
	courier_stats(c->courier, out);
}

const char *context_backend(const struct context *c)
{
	struct buffer_info info;

	if (!c->streamed || buffer_query(c->buffer, &info, NULL))
		return "private";
	return buffer_backend_name(info.backend);
}
