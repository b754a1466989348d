// SPDX-License-Identifier: MIT
#include "serve/shelf.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "kv/memfd.h"
#include "net/peers.h"
#include "net/sites.h"
#include "net/source.h"
#include "serve/gone.h"

enum {
	SHELF_FIRST_WAIT_MS = 1000,
	SHELF_LAST_WAIT_MS = 60000,
};

struct slot {
	struct shelf *shelf;
	char *source;
	struct site *site; /* its cloud; NULL: none that may be away */
	uint32_t returns; /* of that, when the last attempt began */
	atomic_bool stop;
	bool asked_for; /* whatever was chosen before */
	char name[24]; /* of the context, for the log */
	pthread_t thread;
	struct courier *courier; /* the thread's, until others see it */
	int manifest;
	int wait_ms;
	struct shelf_context seen; /* by others; under the shelf's lock, as all that follows */
	uint32_t drops; /* of its key, when that came to be known */
	uint32_t holds; /* of shelf_hold() */
	bool released; /* its thread has ended, and nobody finds it any more */
	bool unkept; /* something of it is not kept */
	bool hidden; /* by then it had been dropped: its thread has ended, or will at once */
	uint64_t blocks; /* that were there after the last attempt */
};

struct shelf {
	struct shelf_opts opts;
	atomic_int expected; /* who will add some */
	struct sites_listener listener;
	pthread_mutex_t use; /* held by who looks; taken before `lock` */
	pthread_mutex_t lock; /* of what follows, and of every slot's `seen` */
	pthread_cond_t changed; /* a slot's stop was set */
	struct slot *slots[SHELF_CONTEXTS]; /* by place; NULL: free */
	uint32_t next; /* number */
	uint32_t named; /* numbers below it are of contexts that were named at the start */
	struct gone gone;
	uint32_t n_unkept; /* contexts of which something is not kept */
};

__attribute__((format(printf, 2, 3))) static void say(struct slot *t, const char *fmt, ...)
{
	const struct shelf_opts *o = &t->shelf->opts;
	va_list ap;

	va_start(ap, fmt);
	error_tell(o->log, o->arg, t->name, fmt, ap);
	va_end(ap);
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

static void start_waits_over(struct slot *t)
{
	const int first = t->shelf->opts.first_wait_ms;

	t->wait_ms = first ? first : SHELF_FIRST_WAIT_MS;
}

/* With peers there is somebody to ask all the same. */
static bool is_worthless_now(const struct slot *t)
{
	return !t->shelf->opts.courier.peers && site_away_since(t->site) > 0;
}

/*
 * Before another attempt: false when there will be none. A cloud that has come back since the last one is not waited for any
 * longer, and one that is away is.
 */
static bool wait_before_next(struct slot *t)
{
	struct shelf *s = t->shelf;
	struct timespec until = clock_after_ms(t->wait_ms);
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	while (!atomic_load(&t->stop) && site_returns(t->site) == t->returns &&
	       (!ret || is_worthless_now(t))) {
		if (ret)
			until = clock_after_ms(SHELF_LAST_WAIT_MS);
		ret = pthread_cond_timedwait(&s->changed, &s->lock, &until);
	}
	pthread_mutex_unlock(&s->lock);
	t->wait_ms = t->wait_ms < SHELF_LAST_WAIT_MS / 2 ? 2 * t->wait_ms : SHELF_LAST_WAIT_MS;
	if (site_returns(t->site) != t->returns)
		start_waits_over(t);
	t->returns = site_returns(t->site);
	return !atomic_load(&t->stop);
}

static void site_has_changed(void *arg)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* False: an admin has dropped it. */
static bool take_key(struct slot *t, const struct kv_hash *key)
{
	struct shelf *s = t->shelf;
	struct board_choice c;
	char hex[KV_HASH_TEXT];

	kv_hash_format(key, hex);
	snprintf(t->name, sizeof(t->name), "context %.12s", hex);
	pthread_mutex_lock(&s->lock);
	/* Read under the lock: who drops it later finds it by its key. */
	board_choice(s->opts.board, key, &c);
	if (!t->seen.has_key)
		t->drops = c.drops;
	t->seen.key = *key;
	t->seen.has_key = true;
	t->hidden = (c.flags & BOARD_DROPPED) && !t->asked_for;
	pthread_mutex_unlock(&s->lock);
	return !t->hidden;
}

/* A disk is as full for one context as for the next: said of the first, and when the last one is kept. */
static void keeps(void *arg, const struct lslm_error *why)
{
	struct slot *t = arg;
	struct shelf *s = t->shelf;
	bool news = false;

	pthread_mutex_lock(&s->lock);
	if (!t->released) {
		news = why ? !s->n_unkept++ : !--s->n_unkept;
		t->unkept = why;
	}
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
	o.stop = &t->stop;
	ret = courier_open(&t->courier, &o, err);
	if (ret < 0)
		return ret;
	if (!take_key(t, &courier_manifest(t->courier)->key))
		return error_set(err, -ECANCELED, "it was dropped");
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
	/* That the cloud is not asked now was said once, for all contexts. */
	if (atomic_load(&t->stop) || why->code == -ENETDOWN)
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
	/* What is dropped meanwhile must not be told of again, and what is asked for again must be. */
	pthread_mutex_lock(&t->shelf->lock);
	if (m->n_stripes && !atomic_load(&t->stop))
		peers_have(t->shelf->opts.courier.peers, &m->key, held, m->n_stripes);
	pthread_mutex_unlock(&t->shelf->lock);
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
		if (ret == -ECANCELED && t->hidden)
			return NULL;
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
		/* Who stops it has looked for it before or sees it after. */
		if (atomic_load(&t->stop))
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

	if (!s)
		return error_sys(err, -ENOMEM, "shelf");
	s->opts = *opts;
	if (!s->opts.max || s->opts.max > SHELF_CONTEXTS)
		s->opts.max = SHELF_CONTEXTS;
	pthread_mutex_init(&s->use, NULL);
	pthread_mutex_init(&s->lock, NULL);
	clock_cond_init(&s->changed);
	s->listener = (struct sites_listener){ .changed = site_has_changed, .arg = s };
	sites_listen(s->opts.courier.sites, &s->listener);
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
	t->site = sites_find(s->opts.courier.sites, source);
	t->returns = site_returns(t->site);
	t->source = strdup(source);
	if (!t->source) {
		free(t);
		return NULL;
	}
	return t;
}

/* ---- under the lock ---- */

static uint32_t count(const struct shelf *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++)
		n += s->slots[i] && !s->slots[i]->hidden;
	return n;
}

static struct slot *find_key(const struct shelf *s, const struct kv_hash *key)
{
	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++) {
		struct slot *t = s->slots[i];

		if (t && !t->hidden && t->seen.has_key && kv_hash_equal(key, &t->seen.key))
			return t;
	}
	return NULL;
}

/* Two sources of one context would be two buffers of the same. */
static bool is_there(const struct shelf *s, const char *source, const struct kv_hash *key)
{
	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++)
		if (s->slots[i] && !strcmp(s->slots[i]->source, source))
			return true;
	return key && find_key(s, key);
}

static const char *title_of(const struct slot *t)
{
	return t->seen.courier ? courier_manifest(t->seen.courier)->title : "";
}

/* Whose it is, by name; false: its manifest is not here. */
static bool salt_of(const struct slot *t, struct kv_hash *name)
{
	if (t->seen.courier)
		*name = rights_salt_name(&courier_manifest(t->seen.courier)->identity.salt);
	return t->seen.courier;
}

static bool is_whose(const struct slot *t, const struct shelf_whose *whose)
{
	struct kv_hash salt;

	return whose->all || (salt_of(t, &salt) && kv_hash_equal(&salt, &whose->salt));
}

/* Takes it out, for release(). */
static struct slot *take_out(struct shelf *s, struct slot *t)
{
	struct kv_hash salt;
	const bool known = salt_of(t, &salt);

	s->slots[t->seen.place] = NULL;
	gone_remember(&s->gone, t->source, &t->seen.key, title_of(t), known ? &salt : NULL);
	atomic_store(&t->stop, true);
	pthread_cond_broadcast(&s->changed);
	if (t->seen.courier)
		courier_stop(t->seen.courier);
	return t;
}

/* ---- without it ---- */

/* Whoever holds it still frees it. */
static void release(struct slot *t)
{
	struct shelf *s;
	bool last;

	if (!t)
		return;
	s = t->shelf;
	pthread_join(t->thread, NULL);
	pthread_mutex_lock(&s->lock);
	t->released = true;
	last = !t->holds;
	s->n_unkept -= t->unkept;
	t->unkept = false;
	pthread_mutex_unlock(&s->lock);
	if (last)
		free_slot(t);
}

/* Those whose thread has found them dropped. */
static void release_hidden(struct shelf *s)
{
	struct slot *t;

	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++) {
		pthread_mutex_lock(&s->lock);
		t = s->slots[i] && s->slots[i]->hidden ? take_out(s, s->slots[i]) : NULL;
		pthread_mutex_unlock(&s->lock);
		release(t);
	}
}

/* It begins, at the first free place. Under the lock. */
static int begin_slot(struct shelf *s, struct slot *t, struct lslm_error *err)
{
	uint32_t place = 0;
	int ret;

	while (place < SHELF_CONTEXTS && s->slots[place])
		place++;
	if (place == SHELF_CONTEXTS || count(s) >= s->opts.max)
		return error_set(err, -ENOSPC, "%s: there is room for %u contexts", t->source,
				 s->opts.max);
	t->seen.place = place;
	t->seen.number = s->next;
	if (!t->seen.has_key)
		snprintf(t->name, sizeof(t->name), "context %u", t->seen.number);
	ret = -pthread_create(&t->thread, NULL, bring, t);
	if (ret)
		return error_sys(err, ret, "%s: cannot start a thread", t->source);
	s->slots[place] = t;
	s->next++;
	return 0;
}

static int add(struct shelf *s, const char *source, bool asked_for, struct lslm_error *err)
{
	const bool url = strstr(source, "://");
	struct kv_hash key;
	struct slot *t;
	int ret;

	release_hidden(s);
	ret = url ? source_https_key(source, &key, err) : 0;
	if (ret < 0)
		return error_prefix(err, ret, "%s", source);
	t = make_slot(s, source);
	if (!t)
		return error_sys(err, -ENOMEM, "%s", source);
	t->asked_for = asked_for;
	if (url && !take_key(t, &key))
		ret = error_set(err, -ECANCELED, "%s: it was dropped", source);
	pthread_mutex_lock(&s->lock);
	if (ret)
		gone_remember(&s->gone, source, &key, "", NULL);
	else if (is_there(s, source, url ? &key : NULL))
		ret = error_set(err, -EEXIST, "%s: named twice", source);
	else
		ret = begin_slot(s, t, err);
	pthread_mutex_unlock(&s->lock);
	if (ret)
		free_slot(t);
	return ret;
}

int shelf_add(struct shelf *s, const char *source, struct lslm_error *err)
{
	return add(s, source, false, err);
}

int shelf_ask(struct shelf *s, const char *source, struct lslm_error *err)
{
	return add(s, source, true, err);
}

void shelf_expect(struct shelf *s, int more)
{
	atomic_fetch_add(&s->expected, more);
}

bool shelf_expects(struct shelf *s)
{
	return atomic_load(&s->expected) > 0;
}

void shelf_end_of_start(struct shelf *s)
{
	pthread_mutex_lock(&s->lock);
	s->named = s->next;
	pthread_mutex_unlock(&s->lock);
}

/* ---- dropping ---- */

int shelf_drop(struct shelf *s, const struct kv_hash *key)
{
	struct slot *t;

	/* Who has looked may use what it was told. */
	pthread_mutex_lock(&s->use);
	pthread_mutex_lock(&s->lock);
	t = find_key(s, key);
	if (t) {
		take_out(s, t);
		peers_drop(s->opts.courier.peers, key);
	}
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&s->use);
	if (!t)
		return -ENOENT;
	say(t, "dropped");
	release(t);
	return 0;
}

bool shelf_has_dropped(struct shelf *s, struct kv_hash *key)
{
	struct board_choice c;
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < SHELF_CONTEXTS && !found; i++) {
		const struct slot *t = s->slots[i];

		if (!t || t->hidden || !t->seen.has_key)
			continue;
		board_choice(s->opts.board, &t->seen.key, &c);
		/* One that was asked for since is not what was dropped. */
		found = (c.flags & BOARD_DROPPED) && c.drops != t->drops;
		*key = t->seen.key;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

int shelf_make_room(struct shelf *s, const struct shelf_whose *whose, struct kv_hash *key)
{
	const struct slot *oldest = NULL;
	struct board_choice c;
	bool full;

	release_hidden(s);
	pthread_mutex_lock(&s->lock);
	full = count(s) >= s->opts.max;
	for (uint32_t i = 0; i < SHELF_CONTEXTS && full; i++) {
		const struct slot *t = s->slots[i];

		if (!t || t->hidden || !t->seen.has_key || t->seen.number < s->named ||
		    !is_whose(t, whose) || (oldest && t->seen.number > oldest->seen.number))
			continue;
		board_choice(s->opts.board, &t->seen.key, &c);
		if (!(c.flags & BOARD_PINNED))
			oldest = t;
	}
	if (oldest)
		*key = oldest->seen.key;
	pthread_mutex_unlock(&s->lock);
	if (!full)
		return 0;
	return oldest && !shelf_drop(s, key) ? 1 : -ENOSPC;
}

/* ---- finding ---- */

static bool is_named(const struct kv_hash *key, const char *source, const char *title,
		     const char *name)
{
	return !strcmp(source, name) || shelf_is_named(key, title, name);
}

bool shelf_is_named(const struct kv_hash *key, const char *title, const char *name)
{
	return *name && (kv_hash_begins(key, name) || !strcmp(title, name));
}

int shelf_find(struct shelf *s, const char *name, const struct shelf_whose *whose,
	       struct shelf_found *out)
{
	uint32_t n = 0;

	release_hidden(s);
	*out = (struct shelf_found){ 0 };
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++) {
		const struct slot *t = s->slots[i];
		const struct gone_context *g = &s->gone.all[i];

		if (t && t->seen.has_key && !t->hidden && is_whose(t, whose) &&
		    is_named(&t->seen.key, t->source, title_of(t), name)) {
			out->key = t->seen.key;
			out->there = true;
			n++;
		}
		if (g->source && !find_key(s, &g->key) && gone_is_whose(g, whose, name) &&
		    is_named(&g->key, g->source, g->title, name)) {
			out->key = g->key;
			snprintf(out->source, sizeof(out->source), "%s", g->source);
			n++;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return !n ? -ENOENT : n > 1 ? -ENOTUNIQ : 0;
}

/* ---- looking ---- */

uint32_t shelf_count(struct shelf *s)
{
	uint32_t n;

	pthread_mutex_lock(&s->lock);
	n = count(s);
	pthread_mutex_unlock(&s->lock);
	return n;
}

void shelf_begin_use(struct shelf *s)
{
	pthread_mutex_lock(&s->use);
}

void shelf_end_use(struct shelf *s)
{
	pthread_mutex_unlock(&s->use);
}

/* Under the lock. */
static struct slot *look(struct shelf *s, uint32_t number, struct shelf_context *out)
{
	struct courier_stats st;
	struct slot *t = NULL;

	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++) {
		struct slot *x = s->slots[i];

		if (x && !x->hidden && x->seen.number >= number &&
		    (!t || x->seen.number < t->seen.number))
			t = x;
	}
	if (t)
		*out = t->seen;
	if (t && out->state == COURIER_RECEIVING && out->why.code) {
		courier_stats(out->courier, &st);
		if (st.blocks_ready > t->blocks)
			out->why.code = 0;
	}
	return t;
}

int shelf_look(struct shelf *s, uint32_t number, struct shelf_context *out)
{
	const struct slot *t;

	pthread_mutex_lock(&s->lock);
	t = look(s, number, out);
	pthread_mutex_unlock(&s->lock);
	return t ? 0 : -ENOENT;
}

int shelf_hold(struct shelf *s, const struct kv_hash *key, struct shelf_context *out)
{
	struct slot *t;

	pthread_mutex_lock(&s->lock);
	t = find_key(s, key);
	if (t) {
		look(s, t->seen.number, out);
		out->held = t;
		t->holds++;
	}
	pthread_mutex_unlock(&s->lock);
	return t ? 0 : -ENOENT;
}

void shelf_hold_on(struct slot *t)
{
	pthread_mutex_lock(&t->shelf->lock);
	t->holds++;
	pthread_mutex_unlock(&t->shelf->lock);
}

void shelf_let_go(struct slot *t)
{
	struct shelf *s = t->shelf;
	bool last;

	pthread_mutex_lock(&s->lock);
	last = !--t->holds && t->released;
	pthread_mutex_unlock(&s->lock);
	if (last)
		free_slot(t);
}

bool shelf_is_past(struct shelf *s, uint32_t number)
{
	bool past;

	pthread_mutex_lock(&s->lock);
	past = number < s->next;
	pthread_mutex_unlock(&s->lock);
	return past;
}

/* Those that are stopped first, then waited for: together they take as long as the slowest. */
void shelf_close(struct shelf *s)
{
	if (!s)
		return;
	sites_unlisten(s->opts.courier.sites, &s->listener);
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++) {
		struct slot *t = s->slots[i];

		if (!t)
			continue;
		atomic_store(&t->stop, true);
		if (t->seen.courier)
			courier_stop(t->seen.courier);
	}
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++)
		release(s->slots[i]);
	gone_free(&s->gone);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->use);
	free(s);
}
