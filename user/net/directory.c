// SPDX-License-Identifier: MIT
#include "net/directory.h"

#include <nats/nats.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "net/http_client.h"

enum {
	/* Of one look for news; announcements wait as long. */
	NEWS_MS = 250,
	/* Entries that are taken before something else is looked at, however fast they come. */
	NEWS_AT_ONCE = 1000,
	CONNECT_MS = 2000,
	ANSWER_MS = 2000,
	PING_MS = 10000,
	FIRST_WAIT_MS = 1000,
	LAST_WAIT_MS = 30000,
};

/* What this gateway has. */
struct own {
	struct kv_hash key;
	uint32_t stripes, of;
	bool gone; /* to be taken back */
	bool told; /* as it is now */
	double told_at;
};

struct directory {
	struct directory_opts opts;
	char *name; /* of its URL, for lines */
	struct holders *holders;
	pthread_t thread;
	bool running;
	bool down; /* and said so */
	atomic_bool up;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed; /* stop was set */
	bool stop;
	struct own own[DIRECTORY_OWN];
	uint32_t n_own;

	/* The thread's. */
	natsConnection *connection;
	jsCtx *js;
	kvStore *bucket;
	kvWatcher *watcher;
};

__attribute__((format(printf, 2, 3))) static void say(struct directory *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_tell(d->opts.log, d->opts.arg, NULL, fmt, ap);
	va_end(ap);
}

static bool is_stopped(struct directory *d)
{
	bool stop;

	pthread_mutex_lock(&d->lock);
	stop = d->stop;
	pthread_mutex_unlock(&d->lock);
	return stop;
}

static uint32_t ttl(const struct directory *d)
{
	return d->opts.ttl_s ? d->opts.ttl_s : DIRECTORY_TTL_S;
}

/* ---- the connection ---- */

/* Reconnecting is done here: what was watched has to be watched anew, what was put may be gone. */
static natsStatus connect_to(struct directory *d)
{
	const struct directory_opts *o = &d->opts;
	natsOptions *opts = NULL;
	natsStatus s = natsOptions_Create(&opts);
	const char *url = o->url;

	if (s == NATS_OK)
		s = natsOptions_SetServers(opts, &url, 1);
	if (s == NATS_OK)
		s = natsOptions_SetName(opts, "lslm");
	if (s == NATS_OK)
		s = natsOptions_SetAllowReconnect(opts, false);
	if (s == NATS_OK)
		s = natsOptions_SetTimeout(opts, CONNECT_MS);
	if (s == NATS_OK)
		s = natsOptions_SetPingInterval(opts, PING_MS);
	if (s == NATS_OK && o->creds)
		s = natsOptions_SetUserCredentialsFromFiles(opts, o->creds, NULL);
	if (s == NATS_OK && !strncmp(url, "tls:", 4))
		s = natsOptions_SetSecure(opts, true);
	if (s == NATS_OK && o->cacert)
		s = natsOptions_LoadCATrustedCertificates(opts, o->cacert);
	if (s == NATS_OK)
		s = natsConnection_Connect(&d->connection, opts);
	natsOptions_Destroy(opts);
	return s;
}

static natsStatus open_bucket(struct directory *d)
{
	const char *name = d->opts.bucket ? d->opts.bucket : "lslm-contexts";
	jsOptions js;
	kvConfig config;
	natsStatus s;

	jsOptions_Init(&js);
	js.Wait = ANSWER_MS;
	s = natsConnection_JetStream(&d->js, d->connection, &js);
	if (s == NATS_OK)
		s = js_KeyValue(&d->bucket, d->js, name);
	if (s != NATS_NOT_FOUND)
		return s;
	kvConfig_Init(&config);
	config.Bucket = name;
	config.Description = "which gateway holds which context";
	config.History = 1;
	config.TTL = (int64_t)ttl(d) * 1000000000;
	config.MaxValueSize = HOLDERS_VALUE_MAX;
	config.StorageType = js_MemoryStorage;
	return js_CreateKeyValue(&d->bucket, d->js, &config);
}

static void disconnect(struct directory *d)
{
	atomic_store(&d->up, false);
	kvWatcher_Destroy(d->watcher);
	kvStore_Destroy(d->bucket);
	jsCtx_Destroy(d->js);
	natsConnection_Destroy(d->connection);
	d->watcher = NULL;
	d->bucket = NULL;
	d->js = NULL;
	d->connection = NULL;
}

static natsStatus reach(struct directory *d)
{
	natsStatus s = connect_to(d);

	if (s == NATS_OK)
		s = open_bucket(d);
	if (s == NATS_OK)
		s = kvStore_WatchAll(&d->watcher, d->bucket, NULL);
	/* Whoever forgot what this gateway has must hear it again. */
	pthread_mutex_lock(&d->lock);
	for (uint32_t i = 0; i < d->n_own; i++)
		d->own[i].told = false;
	pthread_mutex_unlock(&d->lock);
	return s;
}

/* ---- news ---- */

static void take(struct directory *d, kvEntry *e)
{
	const char *name = kvEntry_Key(e);

	if (kvEntry_Operation(e) != kvOp_Put)
		holders_forget(d->holders, name);
	else
		holders_take(d->holders, name, kvEntry_Value(e), (size_t)kvEntry_ValueLen(e),
			     clock_seconds() + ttl(d));
}

/* Waits for the first for a moment. */
static natsStatus listen_for_news(struct directory *d)
{
	natsStatus s = NATS_OK;
	kvEntry *e;

	for (int i = 0; s == NATS_OK && i < NEWS_AT_ONCE; i++) {
		e = NULL;
		s = kvWatcher_Next(&e, d->watcher, i ? 1 : NEWS_MS);
		/* None without an error: those that were there at the beginning have come. */
		if (s == NATS_OK && e)
			take(d, e);
		kvEntry_Destroy(e);
	}
	if (s == NATS_TIMEOUT)
		s = natsConnection_IsClosed(d->connection) ? NATS_CONNECTION_CLOSED : NATS_OK;
	return s;
}

/* The next of this gateway's own that has to be told; false when there is none. */
static bool next_own(struct directory *d, struct own *out)
{
	const double now = clock_seconds();
	bool found = false;

	pthread_mutex_lock(&d->lock);
	for (uint32_t i = 0; i < d->n_own && !found; i++) {
		found = !d->own[i].told || now - d->own[i].told_at > ttl(d) / 3.0;
		if (found)
			*out = d->own[i];
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}

/* It was told, if it is still what it was. */
static void note_told(struct directory *d, const struct own *is)
{
	pthread_mutex_lock(&d->lock);
	for (uint32_t i = 0; i < d->n_own; i++) {
		struct own *o = &d->own[i];

		if (!kv_hash_equal(&o->key, &is->key) || o->gone != is->gone)
			continue;
		o->told = o->stripes == is->stripes;
		o->told_at = clock_seconds();
		if (o->gone)
			*o = d->own[--d->n_own];
		break;
	}
	pthread_mutex_unlock(&d->lock);
}

static natsStatus tell(struct directory *d)
{
	char name[HOLDERS_NAME_MAX], value[HOLDERS_VALUE_MAX];
	natsStatus s = NATS_OK;
	struct own own;
	int len;

	while (d->opts.self && s == NATS_OK && next_own(d, &own)) {
		holders_name(d->opts.self, &own.key, name);
		len = holders_value(d->opts.self, own.stripes, own.of, value);
		s = own.gone ? kvStore_Delete(d->bucket, name) :
			       kvStore_Put(NULL, d->bucket, name, value, len);
		if (s == NATS_OK)
			note_told(d, &own);
	}
	return s;
}

/* ---- the thread ---- */

/* Until it can be reached no more, or is to end. */
static natsStatus serve(struct directory *d)
{
	natsStatus s = reach(d);

	if (s != NATS_OK)
		return s;
	if (d->down)
		say(d, "directory %s: it is back", d->name);
	d->down = false;
	atomic_store(&d->up, true);
	while (s == NATS_OK && !is_stopped(d)) {
		s = tell(d);
		if (s == NATS_OK)
			s = listen_for_news(d);
	}
	return s;
}

/* Of the last failure of this thread, without the place in the library that comes first. */
static const char *reason(natsStatus s)
{
	natsStatus last = NATS_OK;
	const char *text = nats_GetLastError(&last), *said = text ? strstr(text, "): ") : NULL;

	return said && last == s ? said + 3 : natsStatus_GetText(s);
}

static void tell_trouble(struct directory *d, natsStatus s)
{
	if (d->down)
		return;
	d->down = true;
	say(d, "directory %s: %s; peers are the ones that are named or known until it is back",
	    d->name, reason(s));
}

static void wait_for(struct directory *d, int ms)
{
	const struct timespec until = clock_after_ms(ms);

	pthread_mutex_lock(&d->lock);
	while (!d->stop && !pthread_cond_timedwait(&d->changed, &d->lock, &until))
		;
	pthread_mutex_unlock(&d->lock);
}

static void take_back(struct directory *d)
{
	pthread_mutex_lock(&d->lock);
	for (uint32_t i = 0; i < d->n_own; i++) {
		d->own[i].gone = true;
		d->own[i].told = false;
	}
	pthread_mutex_unlock(&d->lock);
	if (atomic_load(&d->up))
		tell(d);
}

static void *keep(void *arg)
{
	struct directory *d = arg;
	int wait = FIRST_WAIT_MS;

	for (;;) {
		const natsStatus s = serve(d);
		const bool was_up = atomic_load(&d->up);

		if (is_stopped(d))
			break;
		disconnect(d);
		tell_trouble(d, s);
		wait = was_up ? FIRST_WAIT_MS : wait;
		wait_for(d, wait);
		wait = wait < LAST_WAIT_MS / 2 ? 2 * wait : LAST_WAIT_MS;
	}
	take_back(d);
	disconnect(d);
	return NULL;
}

/* ---- for everybody ---- */

static int check(const struct directory_opts *o, struct lslm_error *err)
{
	if (strncmp(o->url, "nats://", 7) && strncmp(o->url, "tls://", 6))
		return error_set(err, -EINVAL,
				 "%s: not a directory's URL; wanted is nats://HOST[:PORT] or "
				 "tls://HOST[:PORT]",
				 o->url);
	if (o->self && !holders_is_site(o->self))
		return error_set(err, -EINVAL,
				 "%s: not where peers reach a gateway; wanted is https://HOST:PORT",
				 o->self);
	return 0;
}

int directory_open(struct directory **out, const struct directory_opts *opts,
		   struct lslm_error *err)
{
	struct directory *d;
	int ret = check(opts, err);

	if (ret < 0)
		return ret;
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_sys(err, -ENOMEM, "directory");
	d->opts = *opts;
	d->name = http_printable(opts->url);
	pthread_mutex_init(&d->lock, NULL);
	clock_cond_init(&d->changed);
	ret = d->name ? holders_open(&d->holders, opts->self, err) :
			error_sys(err, -ENOMEM, "directory");
	if (!ret) {
		ret = -pthread_create(&d->thread, NULL, keep, d);
		d->running = !ret;
		if (ret)
			error_sys(err, ret, "cannot start the directory's thread");
	}
	if (ret < 0) {
		directory_close(d);
		return ret;
	}
	*out = d;
	return 0;
}

void directory_close(struct directory *d)
{
	if (!d)
		return;
	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_signal(&d->changed);
	pthread_mutex_unlock(&d->lock);
	if (d->running)
		pthread_join(d->thread, NULL);
	holders_close(d->holders);
	free(d->name);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static struct own *find_own(struct directory *d, const struct kv_hash *key)
{
	for (uint32_t i = 0; i < d->n_own; i++)
		if (kv_hash_equal(&d->own[i].key, key))
			return &d->own[i];
	return NULL;
}

/* In place of one that is gone, if need be: what was told of it ends by itself. NULL: there is no room. */
static struct own *make_own(struct directory *d, const struct kv_hash *key)
{
	struct own *o = NULL;

	if (d->n_own < DIRECTORY_OWN)
		o = &d->own[d->n_own++];
	for (uint32_t i = 0; !o && i < d->n_own; i++)
		if (d->own[i].gone)
			o = &d->own[i];
	if (o)
		*o = (struct own){ .key = *key };
	return o;
}

void directory_have(struct directory *d, const struct kv_hash *key, uint32_t stripes, uint32_t of)
{
	struct own *o;

	pthread_mutex_lock(&d->lock);
	o = find_own(d, key);
	if (!o)
		o = make_own(d, key);
	if (o && (o->gone || o->stripes != stripes || o->of != of)) {
		o->told = o->gone = false;
		o->stripes = stripes;
		o->of = of;
	}
	pthread_mutex_unlock(&d->lock);
}

void directory_drop(struct directory *d, const struct kv_hash *key)
{
	struct own *o;

	pthread_mutex_lock(&d->lock);
	o = find_own(d, key);
	if (o)
		o->gone = true;
	if (o)
		o->told = false;
	pthread_mutex_unlock(&d->lock);
}

uint32_t directory_find(struct directory *d, const struct kv_hash *key,
			char (*urls)[HOLDERS_URL_BYTES], uint32_t max)
{
	return holders_find(d->holders, key, urls, max, clock_seconds());
}

bool directory_is_up(const struct directory *d)
{
	return atomic_load(&d->up);
}
