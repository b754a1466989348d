// SPDX-License-Identifier: MIT
#include "net/courier.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "codec/calibration.h"
#include "codec/codec.h"
#include "lslm/page.h"
#include "net/http_client.h"
#include "net/keeper.h"
#include "net/manifest_cache.h"
#include "net/source.h"

_Static_assert((int)SOURCE_PATH_BYTES == (int)COURIER_PATH_BYTES, "a path is copied whole");

struct courier {
	struct source *source;
	char *name; /* of the source, for error lines */
	struct manifest *manifest;
	uint8_t *manifest_data;
	size_t manifest_size;
	size_t manifest_received; /* 0: it was here */
	bool uncached; /* the cache of manifests did not take it */
	double manifest_rate; /* bytes per second at which it came, all waiting included */
	double deadline_s; /* of each run; 0: none */
	enum buffer_backend backend;
	const char *backend_name; /* of the buffer */
	struct buffer *buffer;
	struct sink sink;
	struct stripe_store *store; /* NULL: none, or the source is a file itself */
	void (*keeps)(void *arg, const struct lslm_error *why); /* as in courier_opts */
	void *keeps_arg;
	const struct courier_custody *custody; /* of the place, beyond this process; NULL: none */
	const atomic_bool *cancel; /* as in courier_opts */
	double started; /* clock_seconds() */
	bool offline; /* the manifest is from the cache: why */
	struct lslm_error outage;

	pthread_t thread;
	bool running; /* the thread exists and was not joined */
	bool looked; /* in the store */
	atomic_uint order; /* enum order_kind that is wanted; the sink's is the one in use */
	atomic_bool ending; /* before sink.stop, which also ends a receive() that begins anew */
	atomic_uint_fast64_t from_disk; /* blocks */
	uint64_t adopted; /* blocks; settled before the thread starts */
	atomic_bool asked; /* the source, for blocks */

	pthread_mutex_t lock; /* of what follows; done is looked at without it too */
	struct lslm_error failure;
	double seconds;
	atomic_bool done; /* the thread has ended, or will at once */
};

static int check_level(struct courier *c, const struct manifest_level *lv,
		       const struct calibrations *calibrations, struct lslm_error *err)
{
	const struct calibration *cal = NULL;
	char hex[KV_HASH_TEXT];

	if (!kv_hash_is_zero(&lv->calibration)) {
		cal = calibrations_named(calibrations, &lv->calibration);
		kv_hash_format(&lv->calibration, hex);
		if (!cal)
			return error_set(
				err, -ENOTSUP,
				"level %s was made with calibration %.16s..., which is not here; give "
				"its file with --calibration, or choose another level",
				kv_level_name(lv->level), hex);
	}
	if (lv->level == KV_LEVEL_P)
		c->sink.calibration = cal;
	return codec_check(&c->manifest->geo, lv->level, cal, err);
}

/* Of those that may come the ones that can be read here; what is not on offer is left to choice_open(). */
static int usable_levels(struct courier *c, const struct courier_opts *opts, uint32_t *levels,
			 struct lslm_error *err)
{
	const uint32_t wanted = opts->levels ? opts->levels : CHOICE_ALL_LEVELS;
	const struct manifest *m = c->manifest;
	uint32_t refused = 0;
	int ret;

	*levels = wanted;
	for (uint32_t i = 0; i < m->n_levels; i++) {
		const struct manifest_level *lv = &m->levels[i];

		if (!(wanted >> lv->level & 1))
			continue;
		ret = check_level(c, lv, opts->calibrations, err);
		if (ret < 0)
			refused |= 1u << lv->level;
	}
	*levels &= ~refused;
	for (uint32_t i = 0; i < m->n_levels; i++)
		if (*levels >> m->levels[i].level & 1)
			return 0;
	return refused ? -ENOTSUP : 0;
}

/* Who computes from E blocks wants them all first, whatever else. */
static enum order_kind order_of(const struct courier *c)
{
	return c->manifest->geo.hidden ? ORDER_LAYER : (enum order_kind)atomic_load(&c->order);
}

/* Afterwards no offset or length is used on this side but those that the manifest's parser has checked. */
static int make_choice(struct courier *c, const struct courier_opts *opts, struct lslm_error *err)
{
	const struct manifest *m = c->manifest;
	struct sink *sink = &c->sink;
	uint32_t levels = 0;
	int ret;

	ret = kv_geometry_check(&m->geo, err);
	if (!ret)
		ret = usable_levels(c, opts, &levels, err);
	if (!ret)
		ret = choice_open(&sink->choice, m, levels, err);
	if (ret < 0)
		return ret;
	sink->pitch = choice_pitch(sink->choice);
	if (__builtin_mul_overflow((size_t)m->n_stripes, sink->pitch, &sink->size))
		return error_set(err, -EOVERFLOW, "the context is too large for this machine");
	sink->order = (struct order){ order_of(c), m->n_stripes, m->geo.n_layer };
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
	return make_choice(c, opts, err);
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
		c->manifest_received = size;
		c->manifest_rate = (double)size / (clock_seconds() - c->started);
	} else {
		c->offline = opts->offline && c->source->key && http_is_outage(ret) &&
			     !manifest_cache_get(c->source->key, &data, &size);
		if (!c->offline)
			return error_set(err, ret, "%s", why.text);
		c->outage = why;
	}
	c->manifest_data = data;
	c->manifest_size = size;
	ret = take_manifest(c, opts, data, size, err);
	if (!ret && c->source->ops->salt)
		c->source->ops->salt(c->source, &c->manifest->identity.salt);
	if (!ret && c->source->key && !c->offline)
		c->uncached = manifest_cache_put(c->source->key, data, size, NULL);
	return ret;
}

int courier_open(struct courier **out, const struct courier_opts *opts, struct lslm_error *err)
{
	struct courier *c;
	int ret;

	c = calloc(1, sizeof(*c));
	if (!c)
		return error_sys(err, -ENOMEM, "courier");
	c->started = clock_seconds();
	pthread_mutex_init(&c->lock, NULL);
	c->backend = opts->backend;
	c->cancel = opts->stop;
	c->custody = opts->custody;
	c->keeps = opts->keeps;
	c->keeps_arg = opts->keeps_arg;
	atomic_store(&c->order, opts->order);
	c->name = http_printable(opts->source);
	if (!c->name) {
		courier_close(c);
		return error_sys(err, -ENOMEM, "courier");
	}
	if (!strstr(opts->source, "://"))
		ret = source_file_open(&c->source, opts, err);
	else if (opts->transport == COURIER_HTTPS)
		ret = source_https_open(&c->source, opts, err);
	else
		ret = source_udp_open(&c->source, opts, err);
	if (!ret && c->source->key && opts->peers)
		ret = source_fleet_open(&c->source, c->source, opts, err);
	if (!ret)
		ret = fetch_manifest(c, opts, err);
	if (!ret && c->source->key) {
		c->store = opts->store;
		c->deadline_s = opts->deadline_s > 0 ? opts->deadline_s : COURIER_DEADLINE_S;
	}
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
		*why = c->outage;
	return c->offline;
}

const struct manifest *courier_manifest(const struct courier *c)
{
	return c->manifest;
}

const uint8_t *courier_manifest_data(const struct courier *c, size_t *size)
{
	*size = c->manifest_size;
	return c->manifest_data;
}

/* ---- receiving ---- */

/* Is a block of it READY, brought by an earlier process? Then nothing may be written over it. */
static bool is_begun(const struct control *control, uint32_t stripe)
{
	for (uint32_t layer = 0; layer < control_n_layer(control); layer++)
		if (control_get(control, stripe, layer) == CONTROL_READY)
			return true;
	return false;
}

/* The finest that is there. */
static void look_for(struct courier *c, uint32_t stripe)
{
	struct sink *sink = &c->sink;
	const uint32_t index = order_index(&sink->order, stripe, 0);
	const struct manifest_level *lv;

	for (uint32_t i = 0; (lv = choice_candidate(sink->choice, i)); i++) {
		if (!choice_take(sink->choice, stripe, lv))
			continue;
		/* A stripe that is signed and cannot be decoded is not looked at again: it would come as it is. */
		if (!stripe_store_load(c->store, c->manifest, lv, stripe,
				       sink_place(sink, index)) &&
		    !sink_stripe(sink, stripe, CONTROL_FROM_DISK, NULL)) {
			atomic_fetch_add_explicit(&c->from_disk, sink->order.n_layer,
						  memory_order_relaxed);
			return;
		}
		choice_forget(sink->choice, stripe);
	}
}

/*
 * What an earlier run has kept, in the order in which it is wanted. Only as the first of all: a stripe that
 * turns out to be wrong was written to its place, where nothing may be READY.
 */
static void look_in_store(struct courier *c)
{
	struct sink *sink = &c->sink;
	const uint32_t n = sink->order.n_stripes;
	uint32_t stripe;

	for (uint32_t i = 0; i < n && !atomic_load(&c->ending); i++) {
		stripe = sink->order.kind == ORDER_TAIL ? n - 1 - i : i;
		if (stripe >= atomic_load(&sink->head) && !is_begun(sink->control, stripe))
			look_for(c, stripe);
	}
}

/* Nothing more is wanted, of the source or at all. */
static bool is_over(const struct courier *c)
{
	return atomic_load(&c->ending) || (c->cancel && atomic_load(c->cancel)) ||
	       sink_is_done(&c->sink);
}

/* Once more whenever it was stopped for nothing but a change of the order. */
static int ask_source(struct courier *c, struct lslm_error *why)
{
	struct sink *sink = &c->sink;
	enum order_kind kind;
	int ret = -ECANCELED;

	error_set(why, ret, "stopped");
	while (ret == -ECANCELED) {
		/* In this order: whoever stops it says why before, so a stop undone here is not lost. */
		atomic_store(&sink->stop, false);
		if (is_over(c))
			break;
		atomic_store(&c->asked, true);
		/* Not written for nothing: whoever told the head looks at it (courier_set_head()). */
		kind = order_of(c);
		if (sink->order.kind != kind)
			sink->order.kind = kind;
		sink_forget(sink);
		ret = c->source->ops->receive(c->source, sink, why);
	}
	return ret;
}

/* From the store, then from the source. */
static int bring(struct courier *c, struct lslm_error *why)
{
	if (c->store && !c->looked)
		look_in_store(c);
	c->looked = true;
	if (!c->offline)
		return ask_source(c, why);
	*why = c->outage;
	return why->code;
}

static void *receive(void *arg)
{
	struct courier *c = arg;
	struct lslm_error why = { 0 };
	int ret = 0;

	choice_begin(c->sink.choice, clock_seconds(), c->deadline_s, atomic_load(&c->sink.received),
		     c->manifest_rate);
	if (manifest_map_is_off(c->manifest, &why))
		ret = why.code;
	else
		ret = bring(c, &why);
	pthread_mutex_lock(&c->lock);
	c->seconds = clock_seconds() - c->started;
	/* However it ended: nothing is missing. */
	if (ret < 0 && !sink_is_done(&c->sink)) {
		if (!c->offline)
			error_prefix(&why, ret, "%s", c->name);
		c->failure = why;
		control_fail(c->sink.control);
	}
	atomic_store(&c->done, true);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

static int new_place(struct courier *c, struct lslm_error *err)
{
	struct sink *sink = &c->sink;
	int ret = buffer_create(&c->buffer, c->backend, sink->size, 0, err);

	if (ret < 0)
		return ret;
	return control_create(&sink->control, sink->order.n_stripes, sink->order.n_layer, err);
}

/* Both are this context's, and hold what the page says. */
static bool is_place(struct courier *c, struct buffer *b, const struct control *control)
{
	bool retained = false;

	return buffer_data(b) && buffer_size(b) >= c->sink.size && control_is_writable(control) &&
	       control_n_stripes(control) == c->sink.order.n_stripes &&
	       control_n_layer(control) == c->sink.order.n_layer &&
	       !buffer_hold(b, &retained, NULL, NULL) && !buffer_release(b, NULL) && retained;
}

/* Stripes that have begun stay at their level; false where one is at none that may come. */
static bool adopt_levels(struct courier *c, const struct control *control)
{
	struct sink *sink = &c->sink;
	const struct order *o = &sink->order;

	for (uint32_t i = 0; i < order_count(o); i++) {
		const struct manifest_level *lv, *is;
		uint32_t stripe, layer;

		order_block(o, i, &stripe, &layer);
		if (control_get(control, stripe, layer) != CONTROL_READY)
			continue;
		lv = manifest_level(c->manifest, control_get_level(control, stripe, layer));
		is = choice_level(sink->choice, stripe);
		if (!lv || (is ? is != lv : !choice_take(sink->choice, stripe, lv)))
			return false;
	}
	return true;
}

/* A stripe that is one unit was all decoded before its first block was marked. */
static void finish_stripes(struct sink *sink)
{
	const uint32_t n = sink->order.n_layer;

	for (uint32_t s = 0; s < sink->order.n_stripes; s++) {
		const struct manifest_level *lv = choice_level(sink->choice, s);
		uint32_t ready = 0;

		if (!lv || lv->n_units == n)
			continue;
		/* That the level is known means that there is one. */
		while (control_get(sink->control, s, ready) != CONTROL_READY)
			ready++;
		for (uint32_t l = 0; l < n; l++)
			control_set(sink->control, s, l, CONTROL_READY,
				    control_get_source(sink->control, s, ready), lv->level);
	}
}

/* Whoever marked a block READY had verified it, and only couriers can write there. */
static void count_adopted(struct courier *c)
{
	struct sink *sink = &c->sink;

	control_retry(sink->control);
	finish_stripes(sink);
	for (uint32_t i = 0; i < order_count(&sink->order); i++) {
		uint32_t stripe, layer;

		order_block(&sink->order, i, &stripe, &layer);
		if (control_get(sink->control, stripe, layer) != CONTROL_READY)
			continue;
		c->adopted++;
		if (control_get_source(sink->control, stripe, layer) == CONTROL_FROM_DISK)
			atomic_fetch_add(&c->from_disk, 1);
	}
	atomic_store(&sink->ready, c->adopted);
}

/* What an earlier process left; false: nothing that fits. */
static bool adopt_place(struct courier *c, const struct kv_hash *digest)
{
	int fds[2];
	struct buffer *buffer = NULL;
	struct control *control = NULL;

	if (c->custody->reclaim(c->custody->arg, &c->manifest->key, digest, &fds[0], &fds[1]))
		return false;
	if (buffer_import(&buffer, fds[0], NULL))
		close(fds[0]);
	if (control_import(&control, fds[1], NULL))
		close(fds[1]);
	if (!buffer || !control || !is_place(c, buffer, control) || !adopt_levels(c, control)) {
		for (uint32_t s = 0; s < c->sink.order.n_stripes; s++)
			choice_forget(c->sink.choice, s);
		buffer_close(buffer);
		control_close(control);
		return false;
	}
	c->buffer = buffer;
	c->sink.control = control;
	count_adopted(c);
	return true;
}

/* What a place is for: this manifest's context, with stripes so far apart. */
static struct kv_hash place_digest(const struct courier *c)
{
	struct kv_hash d = kv_digest(c->manifest_data, c->manifest_size);
	uint8_t both[KV_HASH_BYTES + 8];

	memcpy(both, d.b, KV_HASH_BYTES);
	put_le64(both + KV_HASH_BYTES, c->sink.pitch);
	return kv_digest(both, sizeof(both));
}

static int find_place(struct courier *c, struct lslm_error *err)
{
	const struct courier_custody *k = c->custody;
	struct kv_hash digest;
	int ret = 0;

	if (!k)
		return new_place(c, err);
	digest = place_digest(c);
	if (!adopt_place(c, &digest))
		ret = new_place(c, err);
	if (!ret)
		k->deposit(k->arg, &c->manifest->key, &digest, buffer_fd(c->buffer),
			   control_fd(c->sink.control));
	return ret;
}

/*
 * Touched only where something that is decoded comes, and so costs nothing with memfd otherwise. Of the place's backend, for
 * a session has one: a place that an earlier process made may have another one than would be taken now.
 */
static int make_staging(struct courier *c, enum buffer_backend backend, struct lslm_error *err)
{
	struct sink *sink = &c->sink;
	size_t size;
	int ret;

	sink->staging_pitch = lslm_round_up(choice_encoded(sink->choice), LSLM_DIRECT_ALIGN);
	if (!sink->staging_pitch)
		return 0;
	if (__builtin_mul_overflow((size_t)sink->order.n_stripes, sink->staging_pitch, &size))
		return error_set(err, -EOVERFLOW, "the context is too large for this machine");
	ret = buffer_create(&sink->staging, backend, size, 0, err);
	if (ret < 0)
		return ret;
	sink->staging_base = buffer_data(sink->staging);
	if (!c->adopted)
		return 0;
	sink->torn = calloc(sink->order.n_stripes, sizeof(*sink->torn));
	if (!sink->torn)
		return error_sys(err, -ENOMEM, "courier");
	for (uint32_t s = 0; s < sink->order.n_stripes; s++)
		sink->torn[s] = is_begun(sink->control, s);
	return 0;
}

static int start_keeper(struct courier *c, struct lslm_error *err)
{
	const struct keeper_opts opts = {
		.store = c->store,
		.manifest = c->manifest,
		.told = c->keeps,
		.arg = c->keeps_arg,
	};
	int ret = keeper_start(&c->sink.keeper, &opts, err);

	if (!ret && c->uncached)
		keeper_add_manifest(c->sink.keeper, c->manifest_data, c->manifest_size);
	return ret;
}

static int make_place(struct courier *c, struct lslm_error *err)
{
	struct sink *sink = &c->sink;
	struct buffer_info info;
	int ret;

	if (!sink->size)
		return error_set(err, -ENODATA, "the context has no full block; compute it here");
	ret = find_place(c, err);
	if (ret < 0)
		return ret;
	sink->buffer = c->buffer;
	ret = buffer_query(c->buffer, &info, err);
	if (ret < 0)
		return ret;
	c->backend_name = buffer_backend_name(info.backend);
	sink->base = buffer_data(c->buffer);
	sink->from = c->source->from;
	ret = make_staging(c, info.backend, err);
	if (ret < 0)
		return ret;
	if (c->store)
		ret = start_keeper(c, err);
	/* What the earlier process may not have come to, as far as it is here as it came. */
	for (uint32_t s = 0; !ret && c->adopted && sink->keeper && s < sink->order.n_stripes; s++) {
		const struct manifest_level *lv = choice_level(sink->choice, s);

		if (control_stripe_ready(sink->control, s) &&
		    kv_level_in_memory(lv->level) == lv->level)
			keeper_add(sink->keeper, s, lv, sink->base + s * sink->pitch);
	}
	return ret;
}

/* The thread has ended: with failure, or there is nothing to begin anew. */
static int begin_anew(struct courier *c, struct lslm_error *err)
{
	if (!courier_failed(c, NULL) || atomic_load(&c->ending))
		return error_set(err, -EALREADY, "the courier is running already");
	courier_finish(c, NULL);
	c->offline = false;
	pthread_mutex_lock(&c->lock);
	c->failure.code = 0;
	control_retry(c->sink.control);
	atomic_store(&c->done, false);
	pthread_mutex_unlock(&c->lock);
	return 0;
}

/* Like a run that has failed at once, so that another one can be tried. */
static int cannot_start(struct courier *c, int code, struct lslm_error *err)
{
	struct lslm_error why;

	error_sys(&why, code, "cannot start the receiving thread");
	pthread_mutex_lock(&c->lock);
	c->failure = why;
	control_fail(c->sink.control);
	atomic_store(&c->done, true);
	pthread_mutex_unlock(&c->lock);
	return error_set(err, code, "%s", why.text);
}

int courier_run(struct courier *c, struct lslm_error *err)
{
	int ret;

	if (!c->buffer && c->offline && !c->store)
		return error_set(err, -ENOTCONN, "%s", c->outage.text);
	ret = c->buffer ? begin_anew(c, err) : make_place(c, err);
	if (ret < 0)
		return ret;
	ret = -pthread_create(&c->thread, NULL, receive, c);
	if (ret < 0)
		return cannot_start(c, ret, err);
	c->running = true;
	return 0;
}

static void interrupt(struct courier *c)
{
	atomic_store(&c->sink.stop, true);
	if (c->source->ops->wake)
		c->source->ops->wake(c->source);
}

void courier_set_head(struct courier *c, uint32_t stripes)
{
	struct sink *sink = &c->sink;
	unsigned int was = atomic_load(&sink->head);

	while (was < stripes && !atomic_compare_exchange_weak(&sink->head, &was, stripes))
		;
	/* A source that delivers finds out by itself; one that waits for bytes must be told. */
	if (c->running && sink_is_done(sink))
		interrupt(c);
}

void courier_set_order(struct courier *c, enum order_kind order)
{
	const enum order_kind was = order_of(c);

	atomic_store(&c->order, order);
	if (order_of(c) != was)
		interrupt(c);
}

size_t courier_pitch(const struct courier *c)
{
	return c->sink.pitch;
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

/* What is decoded was kept as it came, unless an earlier process had brought a part of it. */
int courier_held(const struct courier *c, uint32_t stripe)
{
	const struct sink *sink = &c->sink;
	const struct manifest_level *lv;
	uint32_t level;

	if (!sink->control || stripe >= sink->order.n_stripes ||
	    !control_stripe_ready(sink->control, stripe))
		return -1;
	level = control_get_level(sink->control, stripe, 0);
	lv = manifest_level(c->manifest, level);
	if (!lv || (kv_level_in_memory(level) != level && sink->torn && sink->torn[stripe]))
		return -1;
	return (int)level;
}

const uint8_t *courier_unit(const struct courier *c, const struct manifest_level *lv,
			    uint32_t stripe, uint32_t unit)
{
	const struct sink *sink = &c->sink;
	const uint64_t offset = manifest_unit_offset(c->manifest, lv, stripe, unit);

	return kv_level_in_memory(lv->level) == lv->level ?
		       sink->base + stripe * sink->pitch + offset :
		       sink->staging_base + stripe * sink->staging_pitch + offset;
}

uint64_t courier_kept_bytes(const struct courier *c)
{
	const uint32_t n = c->store ? c->manifest->n_stripes : 0;
	const struct manifest_level *lv;
	uint64_t sum = 0, most;

	for (uint32_t s = 0; s < n; s++) {
		most = 0;
		for (uint32_t i = 0; (lv = choice_candidate(c->sink.choice, i)); i++)
			most = lv->length[s] > most ? lv->length[s] : most;
		sum += stripe_store_bytes(c->store, most);
	}
	return sum;
}

void courier_keep_again(struct courier *c)
{
	const struct sink *sink = &c->sink;

	if (!sink->keeper || !atomic_load(&c->done) || !sink_is_done(sink))
		return;
	for (uint32_t s = 0; s < sink->order.n_stripes; s++) {
		const int level = courier_held(c, s);
		const struct manifest_level *lv =
			level < 0 ? NULL : manifest_level(c->manifest, (uint32_t)level);

		if (lv)
			keeper_add(sink->keeper, s, lv, courier_unit(c, lv, s, 0));
	}
}

/* The choice is the receiving thread's, the page everybody's. */
static void count_ready(const struct sink *sink, struct courier_stats *out)
{
	const struct order *o = &sink->order;

	memset(out->blocks_at, 0, sizeof(out->blocks_at));
	out->blocks_from_peers = 0;
	for (uint32_t s = 0; sink->control && s < o->n_stripes; s++)
		for (uint32_t l = 0; l < o->n_layer; l++) {
			if (control_get(sink->control, s, l) != CONTROL_READY)
				continue;
			out->blocks_at[control_get_level(sink->control, s, l)]++;
			out->blocks_from_peers += control_get_source(sink->control, s, l) ==
						  CONTROL_FROM_PEER;
		}
}

void courier_levels_text(const uint64_t blocks_at[KV_LEVELS], char *text, size_t size)
{
	size_t n = 0;

	snprintf(text, size, "none");
	for (int i = 0; i < KV_LEVELS && n < size; i++)
		if (blocks_at[i])
			n += (size_t)snprintf(text + n, size - n, "%s%s %llu", n ? ", " : "",
					      kv_level_name(i), (unsigned long long)blocks_at[i]);
}

void courier_stats(struct courier *c, struct courier_stats *out)
{
	const struct sink *sink = &c->sink;

	out->bytes_received =
		c->manifest_received + atomic_load_explicit(&sink->received, memory_order_relaxed);
	out->blocks_ready = atomic_load_explicit(&sink->ready, memory_order_relaxed);
	out->blocks_from_disk = atomic_load_explicit(&c->from_disk, memory_order_relaxed);
	out->blocks_adopted = c->adopted;
	out->blocks_total = order_count(&sink->order);
	count_ready(sink, out);
	out->from = c->source->from;
	out->backend = c->backend_name;
	source_path(c->source, out->path);
	if (out->blocks_from_disk && !atomic_load(&c->asked))
		strcpy(out->path, "stripe store");
	pthread_mutex_lock(&c->lock);
	out->seconds = atomic_load(&c->done) ? c->seconds : clock_seconds() - c->started;
	pthread_mutex_unlock(&c->lock);
}

bool courier_udp(struct courier *c, struct courier_udp *out)
{
	return c->source->ops->udp && c->source->ops->udp(c->source, out);
}

bool courier_keeps_badly(struct courier *c, struct lslm_error *why)
{
	why->code = 0;
	if (c->sink.keeper)
		keeper_failure(c->sink.keeper, why);
	return why->code;
}

bool courier_failed(struct courier *c, struct lslm_error *why)
{
	bool failed;

	pthread_mutex_lock(&c->lock);
	failed = atomic_load(&c->done) && c->failure.code;
	if (failed && why)
		*why = c->failure;
	pthread_mutex_unlock(&c->lock);
	return failed;
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

void courier_stop(struct courier *c)
{
	atomic_store(&c->ending, true);
	interrupt(c);
}

void courier_close(struct courier *c)
{
	if (!c)
		return;
	if (c->running) {
		courier_stop(c);
		pthread_join(c->thread, NULL);
	}
	keeper_finish(c->sink.keeper);
	choice_close(c->sink.choice);
	buffer_close(c->sink.staging);
	free(c->sink.torn);
	if (c->source)
		c->source->ops->close(c->source);
	if (c->sink.control)
		control_close(c->sink.control);
	if (c->buffer)
		buffer_close(c->buffer);
	manifest_free(c->manifest);
	pthread_mutex_destroy(&c->lock);
	free(c->manifest_data);
	free(c->name);
	free(c);
}
