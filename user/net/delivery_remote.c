// SPDX-License-Identifier: MIT
#include "net/delivery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "kv/memfd.h"
#include "net/courier_link.h"

enum {
	REMOTE_WAIT_MS = 5000,
	REMOTE_TICK_MS = 50, /* how often the courier is asked whether the context is there now */
};

struct remote {
	struct delivery delivery;
	struct courier_client *client; /* of its own, or */
	struct courier_link *link; /* shared */
	struct manifest *manifest;
	uint32_t index;
	int buffer, control; /* until they are handed out */
	size_t pitch; /* of the buffer */
	struct courier_status last; /* so that there are figures after the courier's end */
};

static struct remote *of(struct delivery *d)
{
	return (struct remote *)d;
}

static int remote_start(struct delivery *d, struct delivery_fds *fds, struct lslm_error *err)
{
	struct remote *r = of(d);

	if (r->buffer < 0)
		return error_set(err, -ENODATA, "the context has no full block; compute it here");
	*fds = (struct delivery_fds){
		.buffer = r->buffer,
		.control = r->control,
		/* A linked one does not go for good. */
		.courier = r->client ? courier_client_fd(r->client) : -1,
		.pitch = r->pitch,
	};
	r->buffer = r->control = -1;
	return 0;
}

static void remote_set_head(struct delivery *d, uint32_t stripes)
{
	struct remote *r = of(d);

	if (r->link)
		courier_link_head(r->link, &r->manifest->key, stripes);
	else
		courier_client_head(r->client, r->index, stripes);
}

static int ask_status(struct remote *r, struct lslm_error *err)
{
	return r->link ? courier_link_status(r->link, &r->manifest->key, &r->last, err) :
			 courier_client_status(r->client, r->index, &r->last, err);
}

static void remote_stats(struct delivery *d, struct courier_stats *out)
{
	struct remote *r = of(d);
	const struct courier_status *s = &r->last;

	ask_status(r, NULL);
	*out = (struct courier_stats){
		.bytes_received = s->bytes_received,
		.blocks_ready = s->blocks_ready,
		.blocks_from_disk = s->blocks_from[CONTROL_FROM_DISK],
		.blocks_from_peers = s->blocks_from[CONTROL_FROM_PEER],
		.blocks_total = s->blocks_total,
		.seconds = s->seconds,
	};
	for (int i = 0; i < KV_LEVELS; i++)
		out->blocks_at[i] = s->blocks_at[i];
	snprintf(out->path, sizeof(out->path), "%s", s->path);
}

static bool remote_failed(struct delivery *d, struct lslm_error *why)
{
	struct remote *r = of(d);

	if ((r->client && courier_client_is_over(r->client, why)) || ask_status(r, why))
		return true;
	if (r->last.state == COURIER_COMPLETE || !*r->last.why)
		return false;
	error_set(why, -EIO, "%s", r->last.why);
	return true;
}

/* The courier goes on trying; what it says now is all there is to learn. */
static void remote_finish(struct delivery *d, struct lslm_error *why)
{
	remote_failed(d, why);
}

static void remote_close(struct delivery *d)
{
	struct remote *r = of(d);

	courier_client_close(r->client);
	if (r->buffer >= 0)
		close(r->buffer);
	if (r->control >= 0)
		close(r->control);
	manifest_free(r->manifest);
	free(r);
}

static const struct delivery_ops remote_ops = {
	.start = remote_start,
	.set_head = remote_set_head,
	.stats = remote_stats,
	.failed = remote_failed,
	.finish = remote_finish,
	.close = remote_close,
};

/* ---- which one ---- */

/* What is known about a name after one look at the list. */
struct found {
	uint32_t n; /* contexts that it names */
	uint32_t index; /* the last of them */
	bool waiting; /* that one, or any while n is 0: more may become known */
	uint32_t all;
	char why[256]; /* of one that is waiting */
};

static bool is_named(const struct courier_entry *e, const char *name)
{
	struct kv_hash key;

	if (!name || !*name)
		return true;
	memcpy(key.b, e->key, sizeof(key.b));
	if (e->has_key && kv_hash_begins(&key, name))
		return true;
	return e->state != COURIER_WAITING && !strcmp(e->title, name);
}

static int look(struct courier_client *c, const char *name, struct found *f, struct lslm_error *err)
{
	struct courier_entry e;
	bool any_waiting = false;
	int ret;

	memset(f, 0, sizeof(*f));
	for (uint32_t i = 0; !(ret = courier_client_list(c, i, &e, err)); i = e.index + 1) {
		const bool waiting = e.state == COURIER_WAITING, named = is_named(&e, name);

		any_waiting |= waiting;
		if (waiting && (named || !f->n))
			memcpy(f->why, e.why, sizeof(f->why));
		if (named) {
			f->n++;
			f->index = e.index;
			f->waiting = waiting;
		}
		f->all++;
	}
	if (!f->n)
		f->waiting = any_waiting || !f->all || ret == -EAGAIN;
	return courier_list_has_ended(ret) ? 0 : ret;
}

static int explain(const struct found *f, const char *socket, const char *name,
		   struct lslm_error *err)
{
	const bool named = name && *name;
	const char *what = named ? name : "context";

	if (f->n > 1 && named)
		return error_set(
			err, -ENOTUNIQ,
			"%s: %u contexts of the courier at %s are called that; name one by its key, lslm stat lists them",
			what, f->n, socket);
	if (f->n > 1)
		return error_set(
			err, -ENOTUNIQ,
			"%s: the courier has %u contexts; name one with --context, lslm stat lists them",
			socket, f->n);
	if (f->waiting && *f->why)
		return error_set(err, -ENXIO, "%s: the courier does not have it yet: %s", what,
				 f->why);
	if (f->waiting)
		return error_set(err, -ENXIO, "%s: the courier at %s does not have it yet", what,
				 socket);
	return error_set(err, -ENXIO,
			 "%s: the courier at %s has no such context; lslm stat lists what it has",
			 what, socket);
}

/* What the courier has only just been told of is waited for. */
static int find(struct remote *r, const struct delivery_remote_opts *o, struct lslm_error *err)
{
	const struct timespec tick = { .tv_nsec = REMOTE_TICK_MS * 1000000L };
	const int limit = o->timeout_ms ? o->timeout_ms : REMOTE_WAIT_MS;
	const double until = clock_seconds() + limit * 1e-3;
	struct found f;
	int ret;

	for (;;) {
		ret = look(r->client, o->context, &f, err);
		if (ret < 0)
			return ret;
		r->index = f.index;
		if (f.n == 1 && !f.waiting)
			return 0;
		if (f.n > 1 || !f.waiting || clock_seconds() >= until)
			return explain(&f, o->socket, o->context, err);
		nanosleep(&tick, NULL);
	}
}

/* ---- its manifest ---- */

static int take_manifest(struct remote *r, int fd, uint64_t bytes,
			 const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES], size_t n_trusted,
			 struct lslm_error *err)
{
	uint8_t *data;
	size_t size;
	int ret;

	/* Sealed, so reading it cannot hang or fall short. */
	ret = memfd_check(fd, &size, err);
	if (ret < 0)
		return ret;
	if (size != bytes || size > MANIFEST_MAX_BYTES)
		return error_set(err, -EBADMSG, "the manifest has not the size that was said");
	data = malloc(size ? size : 1);
	if (!data)
		return error_sys(err, -ENOMEM, "manifest");
	ret = file_pread_all(fd, data, size, 0);
	if (ret < 0)
		error_sys(err, ret, "the manifest cannot be read");
	if (!ret && trusted)
		ret = manifest_verify(data, size, trusted, n_trusted, err);
	if (!ret)
		ret = manifest_parse(&r->manifest, data, size, err);
	free(data);
	return ret;
}

/* Takes the descriptors. */
static int take_attached(struct remote *r, const struct courier_attached *a, const int *fds,
			 const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES], size_t n_trusted,
			 struct lslm_error *err)
{
	int ret;

	r->buffer = fds[1];
	r->control = fds[2];
	r->pitch = a->pitch;
	ret = take_manifest(r, fds[0], a->manifest_bytes, trusted, n_trusted, err);
	close(fds[0]);
	if (!ret && r->manifest->n_stripes != a->n_stripes)
		ret = error_set(err, -EBADMSG, "the manifest is not of what was attached");
	return ret;
}

static int attach(struct remote *r, const struct delivery_remote_opts *o, struct lslm_error *err)
{
	struct courier_attached a;
	int fds[COURIER_WIRE_FDS];
	int ret;

	ret = courier_client_attach(r->client, r->index, o->order, &a, fds, err);
	if (ret < 0)
		return ret;
	ret = take_attached(r, &a, fds, o->trusted, o->n_trusted, err);
	return ret < 0 ? error_prefix(err, ret, "%s", o->socket) : 0;
}

static struct remote *fresh(void)
{
	struct remote *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->delivery.ops = &remote_ops;
	r->buffer = r->control = -1;
	return r;
}

int delivery_open_remote(struct delivery **out, const struct delivery_remote_opts *opts,
			 struct lslm_error *err)
{
	struct remote *r = fresh();
	int ret;

	if (!r)
		return error_sys(err, -ENOMEM, "courier");
	ret = courier_client_open(&r->client, opts->socket, 0, err);
	if (!ret)
		ret = find(r, opts, err);
	if (!ret)
		ret = attach(r, opts, err);
	if (ret < 0) {
		remote_close(&r->delivery);
		return ret;
	}
	r->delivery.manifest = r->manifest;
	*out = &r->delivery;
	return 0;
}

int delivery_open_linked(struct delivery **out, struct courier_link *link,
			 const struct kv_hash *key, enum order_kind order,
			 const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES], size_t n_trusted,
			 struct lslm_error *err)
{
	struct remote *r = fresh();
	struct courier_attached a;
	int fds[COURIER_WIRE_FDS];
	int ret;

	if (!r)
		return error_sys(err, -ENOMEM, "courier");
	r->link = link;
	ret = courier_link_attach(link, key, order, &a, fds, err);
	if (!ret)
		ret = take_attached(r, &a, fds, trusted, n_trusted, err);
	if (!ret && !kv_hash_equal(&r->manifest->key, key))
		ret = error_set(err, -EBADMSG, "the courier attached another context");
	if (ret < 0) {
		remote_close(&r->delivery);
		return ret;
	}
	r->delivery.manifest = r->manifest;
	*out = &r->delivery;
	return 0;
}
