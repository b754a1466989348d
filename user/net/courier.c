// SPDX-License-Identifier: MIT
#include "net/courier.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/http_client.h"
#include "net/manifest_cache.h"
#include "net/source.h"

struct courier {
	struct source *source;
	char *name; /* of the source, for error lines */
	struct manifest *manifest;
	size_t manifest_bytes;
	enum buffer_backend backend;
	enum order_kind order;
	struct buffer *buffer;
	struct sink sink;
	struct timespec started;

	pthread_t thread;
	bool running; /* the thread exists and was not joined */
	bool offline; /* the manifest is from the cache; failure says why */

	/* Written by the thread before it sets done, read after. */
	struct lslm_error failure;
	double seconds;
	atomic_bool done;
};

static double seconds_since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - t->tv_sec) + (now.tv_nsec - t->tv_nsec) * 1e-9;
}

/*
 * The level's layout must be the geometry's: equal stripes of the size that the block format
 * gives. Afterwards no offset or length from the manifest is used on this side.
 */
static int check_level(struct courier *c, struct lslm_error *err)
{
	const struct manifest *m = c->manifest;
	struct sink *sink = &c->sink;
	uint32_t s;
	int ret;

	ret = kv_geometry_check(&m->geo, err);
	if (ret < 0)
		return ret;
	sink->level = manifest_level(m, KV_LEVEL_F16);
	if (!sink->level)
		return error_set(err, -EINVAL,
				 "the context is not on offer at level f16; publish it again");
	sink->block_bytes = kv_block_bytes(&m->geo, KV_LEVEL_F16);
	sink->stripe_bytes = kv_stripe_bytes(&m->geo, KV_LEVEL_F16);
	for (s = 0; s < m->n_stripes; s++)
		if (sink->level->length[s] != sink->stripe_bytes)
			return error_set(
				err, -EINVAL,
				"manifest: stripe %u has %llu bytes where its geometry gives %zu",
				s, (unsigned long long)sink->level->length[s], sink->stripe_bytes);
	if (__builtin_mul_overflow((size_t)m->n_stripes, sink->stripe_bytes, &sink->size))
		return error_set(err, -EOVERFLOW, "the context is too large for this machine");
	sink->order = (struct order){ c->order, m->n_stripes, m->geo.n_layer };
	sink->manifest = m;
	return 0;
}

static int take_manifest(struct courier *c, const struct courier_opts *opts, const uint8_t *data,
			 size_t size, struct lslm_error *err)
{
	int ret;

	ret = manifest_verify(data, size, opts->trusted, opts->n_trusted, err);
	if (!ret)
		ret = manifest_parse(&c->manifest, data, size, err);
	if (ret < 0)
		return ret;
	if (c->source->key && !kv_hash_equal(c->source->key, &c->manifest->key))
		return error_set(err, -EBADMSG,
				 "the manifest is of another context than the one asked for");
	return check_level(c, err);
}

/* No connection, or one that broke or went silent: nothing that the server decided. */
static bool is_outage(int code)
{
	return http_is_transient(code) || code == -ETIMEDOUT;
}

static int fetch_manifest(struct courier *c, const struct courier_opts *opts,
			  struct lslm_error *err)
{
	struct lslm_error why = { 0 };
	uint8_t *data;
	size_t size;
	int ret;

	ret = c->source->ops->manifest(c->source, &data, &size, &why);
	if (!ret) {
		c->manifest_bytes = size;
	} else {
		c->offline = opts->offline && c->source->key && is_outage(ret) &&
			     !manifest_cache_get(c->source->key, &data, &size);
		if (!c->offline)
			return error_set(err, ret, "%s", why.text);
		c->failure = why;
	}
	ret = take_manifest(c, opts, data, size, err);
	if (!ret && c->source->key && !c->offline)
		manifest_cache_put(c->source->key, data, size);
	free(data);
	return ret;
}

/* The source as error lines name it: without a user and password, should a URL hold them. */
static char *printable_name(const char *source)
{
	const char *host = strstr(source, "://"), *end, *at;
	char *name = strdup(source);

	if (!host || !name)
		return name;
	host += 3;
	end = host + strcspn(host, "/?#");
	at = memrchr(host, '@', end - host);
	if (at)
		memmove(name + (host - source), at + 1, strlen(at + 1) + 1);
	return name;
}

int courier_open(struct courier **out, const struct courier_opts *opts, struct lslm_error *err)
{
	struct courier *c;
	int ret;

	c = calloc(1, sizeof(*c));
	if (!c)
		return error_sys(err, -ENOMEM, "courier");
	clock_gettime(CLOCK_MONOTONIC, &c->started);
	c->backend = opts->backend;
	c->order = opts->order;
	c->name = printable_name(opts->source);
	if (!c->name) {
		free(c);
		return error_sys(err, -ENOMEM, "courier");
	}
	if (strstr(opts->source, "://"))
		ret = source_https_open(&c->source, opts, err);
	else
		ret = source_file_open(&c->source, opts, err);
	if (!ret)
		ret = fetch_manifest(c, opts, err);
	if (ret < 0) {
		/* Lines about a file name it already. */
		if (!err || strncmp(err->text, c->name, strlen(c->name)))
			ret = error_prefix(err, ret, "%s", c->name);
		courier_close(c);
		return ret;
	}
	*out = c;
	return 0;
}

bool courier_is_offline(const struct courier *c, struct lslm_error *why)
{
	if (c->offline && why)
		*why = c->failure;
	return c->offline;
}

const struct manifest *courier_manifest(const struct courier *c)
{
	return c->manifest;
}

static void *receive(void *arg)
{
	struct courier *c = arg;
	struct lslm_error why = { 0 };
	int ret;

	ret = c->source->ops->receive(c->source, &c->sink, &why);
	c->seconds = seconds_since(&c->started);
	/* However it ended: nothing is missing. */
	if (ret < 0 && !sink_is_done(&c->sink)) {
		error_prefix(&why, ret, "%s", c->name);
		c->failure = why;
		control_fail(c->sink.control);
	}
	atomic_store(&c->done, true);
	return NULL;
}

int courier_run(struct courier *c, struct lslm_error *err)
{
	struct sink *sink = &c->sink;
	int ret;

	if (c->buffer)
		return error_set(err, -EALREADY, "the courier is running already");
	if (c->offline)
		return error_set(err, -ENOTCONN, "%s", c->failure.text);
	if (!sink->size)
		return error_set(err, -ENODATA, "the context has no full block; compute it here");
	ret = buffer_create(&c->buffer, c->backend, sink->size, 0, err);
	if (ret < 0)
		return ret;
	sink->base = buffer_data(c->buffer);
	ret = control_create(&sink->control, sink->order.n_stripes, sink->order.n_layer, err);
	if (ret < 0)
		return ret;
	sink->from = c->source->from;
	ret = -pthread_create(&c->thread, NULL, receive, c);
	if (ret < 0)
		return error_sys(err, ret, "cannot start the receiving thread");
	c->running = true;
	return 0;
}

void courier_set_head(struct courier *c, uint32_t stripes)
{
	struct sink *sink = &c->sink;
	unsigned int was = atomic_load(&sink->head);

	while (was < stripes && !atomic_compare_exchange_weak(&sink->head, &was, stripes))
		;
	/* A source that delivers finds out by itself; one that waits for bytes must be told. */
	if (c->running && sink_is_done(sink)) {
		atomic_store(&sink->stop, true);
		if (c->source->ops->wake)
			c->source->ops->wake(c->source);
	}
}

int courier_buffer_fd(struct courier *c, struct lslm_error *err)
{
	if (!c->buffer)
		return error_set(err, -EINVAL, "the courier has not been started");
	return buffer_ro_fd(c->buffer, err);
}

int courier_control_fd(struct courier *c, struct lslm_error *err)
{
	if (!c->sink.control)
		return error_set(err, -EINVAL, "the courier has not been started");
	return control_ro_fd(c->sink.control, err);
}

void courier_stats(const struct courier *c, struct courier_stats *out)
{
	out->bytes_received =
		c->manifest_bytes + atomic_load_explicit(&c->sink.received, memory_order_relaxed);
	out->blocks_ready = atomic_load_explicit(&c->sink.ready, memory_order_relaxed);
	out->blocks_total = order_count(&c->sink.order);
	out->seconds = atomic_load(&c->done) ? c->seconds : seconds_since(&c->started);
	out->path = atomic_load(&c->source->path);
}

bool courier_failed(const struct courier *c, struct lslm_error *why)
{
	if (!atomic_load(&c->done) || !c->failure.code)
		return false;
	if (why)
		*why = c->failure;
	return true;
}

int courier_finish(struct courier *c, struct lslm_error *err)
{
	if (c->running) {
		pthread_join(c->thread, NULL);
		c->running = false;
	}
	if (!atomic_load(&c->done))
		return error_set(err, -EINVAL, "the courier has not been started");
	if (c->failure.code < 0 && err)
		*err = c->failure;
	return c->failure.code;
}

void courier_close(struct courier *c)
{
	if (!c)
		return;
	if (c->running) {
		atomic_store(&c->sink.stop, true);
		if (c->source->ops->wake)
			c->source->ops->wake(c->source);
		pthread_join(c->thread, NULL);
	}
	if (c->source)
		c->source->ops->close(c->source);
	if (c->sink.control)
		control_close(c->sink.control);
	if (c->buffer)
		buffer_close(c->buffer);
	manifest_free(c->manifest);
	free(c->name);
	free(c);
}
