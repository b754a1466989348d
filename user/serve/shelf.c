// SPDX-License-Identifier: MIT
#include "serve/shelf.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kv/memfd.h"
#include "net/peers.h"
#include "net/source.h"

enum {
	SHELF_FIRST_WAIT_MS = 1000,
	SHELF_LAST_WAIT_MS = 60000,
};

struct slot {
	struct shelf *shelf;
	char *source;
	char name[24]; /* of the context, for the log */
	pthread_t thread;
	struct courier *courier; /* the thread's, until others see it; likewise */
	int manifest;
	int wait_ms;
	struct shelf_context seen; /* by others; under the shelf's lock */
	uint64_t blocks; /* that were there after the last attempt; likewise */
};

struct shelf {
	struct shelf_opts opts;
	atomic_bool stop;
	pthread_mutex_t lock; /* of what follows, and of every slot's `seen` */
	pthread_cond_t changed; /* stop was set */
	struct slot *slots[SHELF_CONTEXTS];
	uint32_t n;
	uint32_t n_unkept; /* contexts of which something is not kept */
};

__attribute__((format(printf, 2, 3))) static void say(struct slot *t, const char *fmt, ...)
{
	const struct shelf_opts *o = &t->shelf->opts;
	struct lslm_error line;
	va_list ap;
	size_t n;

	if (!o->log)
		return;
	n = (size_t)snprintf(line.text, sizeof(line.text), "%s: ", t->name);
	va_start(ap, fmt);
	vsnprintf(line.text + n, sizeof(line.text) - n, fmt, ap);
	va_end(ap);
	o->log(o->arg, line.text);
}

static void set_state(struct slot *t, enum courier_state state, const struct lslm_error *why)
{
	pthread_mutex_lock(&t->shelf->lock);
	t->seen.state = state;
	t->seen.courier = t->courier;
	t->seen.manifest = t->manifest;
	if (why)
		t->seen.why = *why;
	else if (state == COURIER_COMPLETE)
		t->seen.why.code = 0;
	pthread_mutex_unlock(&t->shelf->lock);
}

static struct timespec after(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000L;
	if (t.tv_nsec >= 1000000000L) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000L;
	}
	return t;
}

/* Before another attempt: false when there will be none. */
static bool wait_before_next(struct slot *t)
{
	struct shelf *s = t->shelf;
	const struct timespec until = after(t->wait_ms);
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	while (!atomic_load(&s->stop) && !ret)
		ret = pthread_cond_timedwait(&s->changed, &s->lock, &until);
	pthread_mutex_unlock(&s->lock);
	t->wait_ms = t->wait_ms < SHELF_LAST_WAIT_MS / 2 ? 2 * t->wait_ms : SHELF_LAST_WAIT_MS;
	return !atomic_load(&s->stop);
}

static void start_waits_over(struct slot *t)
{
	const int first = t->shelf->opts.first_wait_ms;

	t->wait_ms = first ? first : SHELF_FIRST_WAIT_MS;
}

static void take_key(struct slot *t, const struct kv_hash *key)
{
	char hex[KV_HASH_TEXT];

	kv_hash_format(key, hex);
	snprintf(t->name, sizeof(t->name), "context %.12s", hex);
	pthread_mutex_lock(&t->shelf->lock);
	t->seen.key = *key;
	t->seen.has_key = true;
	pthread_mutex_unlock(&t->shelf->lock);
}

/* A disk is as full for one context as for the next: said of the first, and when the last one is kept. */
static void keeps(void *arg, const struct lslm_error *why)
{
	struct slot *t = arg;
	struct shelf *s = t->shelf;
	bool news;

	pthread_mutex_lock(&s->lock);
	news = why ? !s->n_unkept++ : !--s->n_unkept;
	pthread_mutex_unlock(&s->lock);
	if (news && why)
		say(t, "%s; it is served all the same, and tried again", why->text);
	else if (news)
		say(t, "what had not been kept is kept now");
}

/* The manifest, and the buffer for what it names; afterwards engines can have both. */
static int begin(struct slot *t, struct lslm_error *err)
{
	struct courier_opts o = t->shelf->opts.courier;
	const uint8_t *data;
	size_t size;
	int ret;

	o.source = t->source;
	o.order = ORDER_TAIL;
	o.offline = o.store;
	o.keeps = keeps;
	o.keeps_arg = t;
	o.stop = &t->shelf->stop;
	ret = courier_open(&t->courier, &o, err);
	if (ret < 0)
		return ret;
	take_key(t, &courier_manifest(t->courier)->key);
	data = courier_manifest_data(t->courier, &size);
	ret = memfd_constant("lslm-manifest", data, size, err);
	t->manifest = ret;
	if (ret >= 0 && courier_manifest(t->courier)->n_stripes)
		ret = courier_run(t->courier, err);
	if (ret >= 0)
		return 0;
	if (t->manifest >= 0)
		close(t->manifest);
	t->manifest = -1;
	courier_close(t->courier);
	t->courier = NULL;
	return ret;
}

static void tell_failure(struct slot *t, const struct lslm_error *why, bool last)
{
	if (atomic_load(&t->shelf->stop))
		return;
	if (last)
		say(t, "%s", why->text);
	else
		say(t, "%s; again in %d s", why->text, (t->wait_ms + 999) / 1000);
}

/* A run that brought something was no failure of the connection as such. */
static void note_progress(struct slot *t)
{
	struct courier_stats st;

	courier_stats(t->courier, &st);
	if (st.blocks_ready > t->blocks)
		start_waits_over(t);
	pthread_mutex_lock(&t->shelf->lock);
	t->blocks = st.blocks_ready;
	pthread_mutex_unlock(&t->shelf->lock);
}

static void tell_complete(struct slot *t)
{
	struct courier_stats st;

	courier_stats(t->courier, &st);
	say(t, "complete in %.1f s, %llu bytes by %s, %llu of %llu blocks from the store",
	    st.seconds, (unsigned long long)st.bytes_received, st.path,
	    (unsigned long long)st.blocks_from_disk, (unsigned long long)st.blocks_total);
}

/* For other gateways: what is here so far, as long as it is on the shelf. */
static void announce(struct slot *t)
{
	const struct manifest *m = courier_manifest(t->courier);
	uint32_t held = 0;

	for (uint32_t i = 0; i < m->n_stripes; i++)
		held += courier_held(t->courier, i) >= 0;
	if (m->n_stripes)
		peers_have(t->shelf->opts.courier.peers, &m->key, held, m->n_stripes);
}

/* Waits until another run has begun; false when there will be none. */
static bool run_again(struct slot *t)
{
	struct lslm_error why;

	while (wait_before_next(t)) {
		if (!courier_run(t->courier, &why))
			return true;
		set_state(t, COURIER_FAILING, &why);
		tell_failure(t, &why, false);
	}
	return false;
}

/* A wrong digest, or a context through a map that is off: no other attempt would end otherwise. */
static bool is_final(int code)
{
	return code == -EBADMSG || code == -ENOEXEC;
}

static void *bring(void *arg)
{
	struct slot *t = arg;
	struct lslm_error why = { 0 };
	int ret;

	start_waits_over(t);
	while ((ret = begin(t, &why)) < 0) {
		set_state(t, COURIER_WAITING, &why);
		tell_failure(t, &why, false);
		if (!wait_before_next(t))
			return NULL;
	}
	start_waits_over(t);
	set_state(t, COURIER_RECEIVING, &(struct lslm_error){ 0 });
	announce(t);
	while (courier_manifest(t->courier)->n_stripes) {
		set_state(t, COURIER_RECEIVING, NULL);
		/* shelf_close() has looked for it before or sees it after. */
		if (atomic_load(&t->shelf->stop))
			courier_stop(t->courier);
		ret = courier_finish(t->courier, &why);
		if (!ret)
			break;
		note_progress(t);
		set_state(t, COURIER_FAILING, &why);
		tell_failure(t, &why, is_final(ret));
		if (is_final(ret) || !run_again(t))
			return NULL;
	}
	set_state(t, COURIER_COMPLETE, NULL);
	announce(t);
	tell_complete(t);
	return NULL;
}

int shelf_open(struct shelf **out, const struct shelf_opts *opts, struct lslm_error *err)
{
	struct shelf *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return error_sys(err, -ENOMEM, "shelf");
	s->opts = *opts;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	*out = s;
	return 0;
}

static void free_slot(struct slot *t)
{
	if (t->manifest >= 0)
		close(t->manifest);
	courier_close(t->courier);
	free(t->source);
	free(t);
}

static struct slot *make_slot(struct shelf *s, const char *source)
{
	struct slot *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->shelf = s;
	t->manifest = t->seen.manifest = -1;
	t->source = strdup(source);
	if (!t->source) {
		free(t);
		return NULL;
	}
	return t;
}

/* Two sources of one context would be two buffers of the same. Under the lock. */
static bool is_there(const struct shelf *s, const char *source, const struct kv_hash *key)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (!strcmp(s->slots[i]->source, source) ||
		    (key && s->slots[i]->seen.has_key &&
		     kv_hash_equal(key, &s->slots[i]->seen.key)))
			return true;
	return false;
}

int shelf_add(struct shelf *s, const char *source, struct lslm_error *err)
{
	const bool url = strstr(source, "://");
	struct kv_hash key;
	struct slot *t;
	int ret;

	ret = url ? source_https_key(source, &key, err) : 0;
	if (ret < 0)
		return error_prefix(err, ret, "%s", source);
	t = make_slot(s, source);
	if (!t)
		return error_sys(err, -ENOMEM, "%s", source);
	if (url)
		take_key(t, &key);
	else
		snprintf(t->name, sizeof(t->name), "context %u", s->n);
	pthread_mutex_lock(&s->lock);
	if (is_there(s, source, url ? &key : NULL))
		ret = error_set(err, -EEXIST, "%s: named twice", source);
	else if (s->n == SHELF_CONTEXTS)
		ret = error_set(err, -ENOSPC, "%s: there is room for %d contexts", source,
				SHELF_CONTEXTS);
	else if ((ret = -pthread_create(&t->thread, NULL, bring, t)))
		error_sys(err, ret, "%s: cannot start a thread", source);
	if (!ret)
		s->slots[s->n++] = t;
	pthread_mutex_unlock(&s->lock);
	if (ret)
		free_slot(t);
	return ret;
}

uint32_t shelf_count(struct shelf *s)
{
	uint32_t n;

	pthread_mutex_lock(&s->lock);
	n = s->n;
	pthread_mutex_unlock(&s->lock);
	return n;
}

int shelf_look(struct shelf *s, uint32_t index, struct shelf_context *out)
{
	struct courier_stats st;
	struct slot *t;

	pthread_mutex_lock(&s->lock);
	t = index < s->n ? s->slots[index] : NULL;
	if (t)
		*out = t->seen;
	if (t && out->state == COURIER_RECEIVING && out->why.code) {
		courier_stats(out->courier, &st);
		if (st.blocks_ready > t->blocks)
			out->why.code = 0;
	}
	pthread_mutex_unlock(&s->lock);
	return t ? 0 : -ENOENT;
}

/* Those that are stopped first, then waited for: together they take as long as the slowest. */
void shelf_close(struct shelf *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	pthread_mutex_lock(&s->lock);
	pthread_cond_broadcast(&s->changed);
	for (uint32_t i = 0; i < s->n; i++)
		if (s->slots[i]->seen.courier)
			courier_stop(s->slots[i]->seen.courier);
	pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < s->n; i++)
		pthread_join(s->slots[i]->thread, NULL);
	for (uint32_t i = 0; i < s->n; i++)
		free_slot(s->slots[i]);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
