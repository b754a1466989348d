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
	bool shared;
	struct lslm_error miss; /* why it is not shared although a stream was asked for */
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

int context_attach(struct context **out, struct engine *e, const struct courier_opts *opts,
		   const struct kv_hash *salt, bool stream, struct lslm_error *err)
{
	struct context *c = calloc(1, sizeof(*c));
	struct kv_identity id;
	int rc;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->wanted = clock_seconds();
	rc = engine_identity(e, &id, err);
	if (!rc)
		rc = courier_open(&c->courier, opts, err);
	if (!rc) {
		id.salt = *salt;
		c->manifest = courier_manifest(c->courier);
		rc = manifest_match(c->manifest, &id, &e->geo, e->model->params.n_vocab, err);
		if (rc)
			error_prefix(err, rc, "%s", opts->source);
	}
	if (!rc && stream)
		courier_is_offline(c->courier, &c->miss);
	if (!rc && stream && c->manifest->n_stripes && !c->miss.code) {
		rc = courier_run(c->courier, err);
		if (!rc)
			rc = import(c, err);
		c->shared = !rc;
	}
	if (rc) {
		context_close(c);
		return rc;
	}
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

bool context_is_shared(const struct context *c)
{
	return c->shared;
}

int context_share(struct context *c, struct sequence *s, struct lslm_error *err)
{
	const struct segment seg = {
		.base = buffer_ro_data(c->buffer),
		.first = 0,
		.n_tokens = c->manifest->n_stripes * KV_BLOCK_TOKENS,
		.buffer = c->buffer,
		.generation = c->generation,
		.control = c->control,
	};

	return sequence_share(s, &seg, err);
}

void context_give_up(struct context *c, const struct lslm_error *why)
{
	c->shared = false;
	c->miss = *why;
	/* The pass saw only that a layer is missing; the courier knows the cause. */
	courier_finish(c->courier, &c->miss);
}

const struct lslm_error *context_miss(const struct context *c)
{
	return &c->miss;
}

void context_stats(const struct context *c, struct courier_stats *out)
{
	courier_stats(c->courier, out);
}

const char *context_backend(const struct context *c)
{
	struct buffer_info info;

	if (!c->shared || buffer_query(c->buffer, &info, NULL))
		return "private";
	return buffer_backend_name(info.backend);
}
