// SPDX-License-Identifier: MIT
#include "serve/cloud_list.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/http_client.h"
#include "net/sites.h"
#include "net/source.h"
#include "serve/list_cache.h"

enum {
	LIST_MAX_BYTES = 1 << 20,
	LIST_FIRST_WAIT_MS = 1000,
	LIST_LAST_WAIT_MS = 60000,
};

struct cloud_list {
	struct http_client *http;
	struct http_client *asking; /* of who looks for one */
	struct sites *sites;
	struct site *site; /* the cloud's, of them */
	struct sites_listener listener;
	struct shelf *shelf;
	void (*log)(void *arg, const char *line);
	void *arg;
	char *cloud; /* without a slash behind */
	char *url; /* of the list */
	atomic_bool stop;
	pthread_t thread;
	bool running;
	bool full; /* and said so */
	int said; /* why it cannot be asked, as was said; 0: nothing was */
	const char *token;
	bool keeps; /* what the cloud offers, for the next start */
	bool settled; /* it has answered, or what it offered at last was taken */
	bool asked_only;
	pthread_mutex_t lock; /* of what follows */
	json_t *last; /* what it listed */
};

static void say(const struct cloud_list *l, const char *line)
{
	if (l->log)
		l->log(l->arg, line);
}

/* Is it new? -EEXIST is what most of them are. */
static bool add(struct cloud_list *l, const struct kv_hash *key)
{
	char url[SHELF_SOURCE_BYTES];
	struct lslm_error why;
	int ret;

	cloud_list_url(l, key, url, sizeof(url));
	ret = shelf_add(l->shelf, url, &why);
	/* That there is no room is true of all the others too, and the next time. */
	if (ret < 0 && ret != -EEXIST && ret != -ECANCELED && !(ret == -ENOSPC && l->full))
		say(l, why.text);
	l->full |= ret == -ENOSPC;
	return !ret;
}

/* How many of them are new. */
static int add_all(struct cloud_list *l, const json_t *contexts)
{
	struct kv_hash *keys = calloc(json_array_size(contexts) + 1, sizeof(*keys));
	size_t i, n = 0;
	json_t *one;
	int fresh = 0;

	if (!keys)
		return 0;
	json_array_foreach(contexts, i, one) {
		const char *key = json_string_value(json_object_get(one, "key"));

		/* The list is a stranger's: only a key becomes part of a URL. */
		n += key && !kv_hash_parse(&keys[n], key);
	}
	/* A damaged one is listed too, and tried like any other: the cloud may mend it. */
	for (i = 0; i < n; i++)
		fresh += add(l, &keys[i]);
	if (l->keeps)
		list_cache_put(l->cloud, l->token, keys, n);
	free(keys);
	return fresh;
}

/* The cloud cannot be asked: once, what it offered at last. */
static void fall_back(struct cloud_list *l)
{
	struct kv_hash keys[SHELF_CONTEXTS];
	size_t n;

	if (l->settled || !l->keeps || l->asked_only)
		return;
	l->settled = true;
	n = list_cache_get(l->cloud, l->token, keys, SHELF_CONTEXTS);
	for (size_t i = 0; i < n; i++)
		add(l, &keys[i]);
}

/* An array; the caller's reference. */
static int fetch(struct cloud_list *l, struct http_client *http, json_t **out,
		 struct lslm_error *err)
{
	uint8_t *data;
	json_t *root;
	size_t size;
	int ret = http_get(http, l->url, LIST_MAX_BYTES, &data, &size, err);

	if (ret < 0)
		return error_prefix(err, ret, "%s", l->cloud);
	root = json_loadb((const char *)data, size, 0, NULL);
	free(data);
	*out = json_incref(json_object_get(root, "contexts"));
	json_decref(root);
	if (json_is_array(*out))
		return 0;
	json_decref(*out);
	return error_set(err, -EPROTO, "%s: what it answers is no list of contexts", l->cloud);
}

static void remember(struct cloud_list *l, json_t *contexts)
{
	pthread_mutex_lock(&l->lock);
	json_decref(l->last);
	l->last = json_incref(contexts);
	pthread_mutex_unlock(&l->lock);
}

/* How many are new, or -errno. */
static int ask(struct cloud_list *l, struct lslm_error *err)
{
	json_t *contexts;
	int ret = fetch(l, l->http, &contexts, err);

	if (ret)
		return ret;
	ret = l->asked_only ? 0 : add_all(l, contexts);
	l->settled = true;
	remember(l, contexts);
	json_decref(contexts);
	return ret;
}

/* ---- looking for one ---- */

void cloud_list_url(const struct cloud_list *l, const struct kv_hash *key, char *url, size_t size)
{
	char hex[KV_HASH_TEXT];

	kv_hash_format(key, hex);
	snprintf(url, size, "%s/%s", l->url, hex);
}

bool cloud_list_owns(const struct cloud_list *l, const char *url)
{
	const size_t len = strlen(l->url);

	return !strncmp(url, l->url, len) && url[len] == '/';
}

/* What the cloud says of a context's salt is its name, or nothing where it has none. */
static bool is_whose(const json_t *one, const struct shelf_whose *whose)
{
	const char *text = json_string_value(json_object_get(one, "salt"));
	struct kv_hash salt = { 0 };

	if (whose->all)
		return true;
	return (!text || !kv_hash_parse(&salt, text)) && kv_hash_equal(&salt, &whose->salt);
}

static int look_through(const json_t *contexts, const char *name, const struct shelf_whose *whose,
			struct kv_hash *key)
{
	const json_t *one;
	size_t i;
	int n = 0;

	json_array_foreach(contexts, i, one) {
		const char *text = json_string_value(json_object_get(one, "key"));
		const char *title = json_string_value(json_object_get(one, "title"));
		struct kv_hash hash;

		if (!text || kv_hash_parse(&hash, text) || !is_whose(one, whose) ||
		    !shelf_is_named(&hash, title ? title : "", name))
			continue;
		*key = hash;
		n++;
	}
	return n;
}

static int look_again(struct cloud_list *l, const char *name, const struct shelf_whose *whose,
		      struct kv_hash *key, struct lslm_error *err)
{
	json_t *contexts;
	int ret = fetch(l, l->asking, &contexts, err);

	if (ret)
		return ret;
	remember(l, contexts);
	ret = look_through(contexts, name, whose, key);
	json_decref(contexts);
	return ret;
}

int cloud_list_find(struct cloud_list *l, const char *name, const struct shelf_whose *whose,
		    struct kv_hash *key, char *url, size_t size, struct lslm_error *err)
{
	int ret;

	if (cloud_list_owns(l, name))
		name += strlen(l->url) + 1;
	else if (strstr(name, "://"))
		return error_set(err, -EACCES, "only contexts of the cloud at %s can be attached",
				 l->cloud);
	pthread_mutex_lock(&l->lock);
	ret = look_through(l->last, name, whose, key);
	pthread_mutex_unlock(&l->lock);
	if (!ret)
		ret = look_again(l, name, whose, key, err);
	if (ret < 0)
		return ret;
	if (!ret)
		return error_set(err, -ENOENT, "the cloud has no such context");
	if (ret > 1)
		return error_set(err, -ENOTUNIQ, "several contexts are named so; give the key");
	cloud_list_url(l, key, url, size);
	return 0;
}

/* ---- the thread ---- */

static void site_has_changed(void *arg)
{
	const struct cloud_list *l = arg;

	http_wake(l->http);
}

/* So long, or until the cloud that was away has come back since it was asked: only then it is asked again. */
static void rest(struct cloud_list *l, uint32_t returns, int ms)
{
	const double until = clock_seconds() + ms * 1e-3;
	double left = ms * 1e-3;

	while (!atomic_load(&l->stop) && site_returns(l->site) == returns &&
	       (left > 0 || site_away_since(l->site) > 0)) {
		http_sleep(l->http, left > 0 ? (int)(left * 1000) + 1 : LIST_LAST_WAIT_MS);
		left = until - clock_seconds();
	}
}

/* That it says no, or what, each minute once more would tell nobody anything. That it is not asked now was said once, for all. */
static void tell(struct cloud_list *l, int ret, const struct lslm_error *why)
{
	struct lslm_error line;

	if (ret == -ENETDOWN)
		return;
	if (ret < 0 && ret != l->said)
		say(l, why->text);
	if (ret >= 0 && l->said) {
		error_set(&line, 0, "%s: lists contexts again", l->cloud);
		say(l, line.text);
	}
	l->said = ret < 0 ? ret : 0;
}

static void *keep_asking(void *arg)
{
	struct cloud_list *l = arg;
	struct lslm_error why;
	int wait = LIST_FIRST_WAIT_MS, ret;
	uint32_t returns;
	bool first = true;

	for (;;) {
		returns = site_returns(l->site);
		ret = ask(l, &why);
		if (atomic_load(&l->stop))
			return NULL;
		tell(l, ret, &why);
		if (ret < 0)
			fall_back(l);
		if (first)
			shelf_expect(l->shelf, -1);
		first = false;
		if (ret > 0)
			wait = LIST_FIRST_WAIT_MS;
		rest(l, returns, wait);
		wait = wait < LIST_LAST_WAIT_MS / 2 ? 2 * wait : LIST_LAST_WAIT_MS;
	}
}

static int name_it(struct cloud_list *l, const char *cloud, struct lslm_error *err)
{
	size_t len = strlen(cloud);

	if (strncmp(cloud, "https://", 8))
		return error_set(err, -EINVAL,
				 "%s: not a cloud's URL; wanted is https://HOST[:PORT]", cloud);
	while (len && cloud[len - 1] == '/')
		len--;
	if (asprintf(&l->cloud, "%.*s", (int)len, cloud) < 0) {
		l->cloud = NULL;
		return error_sys(err, -ENOMEM, "%s", cloud);
	}
	if (asprintf(&l->url, "%s/v1/contexts", l->cloud) < 0) {
		l->url = NULL;
		return error_sys(err, -ENOMEM, "%s", cloud);
	}
	if (strlen(l->url) + 1 + KV_HASH_TEXT > SHELF_SOURCE_BYTES)
		return error_set(err, -ENAMETOOLONG, "%.64s...: the cloud's URL is too long",
				 cloud);
	return 0;
}

int cloud_list_start(struct cloud_list **out, const char *cloud, const struct shelf_opts *opts,
		     struct shelf *shelf, struct lslm_error *err)
{
	struct cloud_list *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return error_sys(err, -ENOMEM, "%s", cloud);
	struct http_opts http = source_https_opts(&opts->courier);

	http.stop = &l->stop;
	pthread_mutex_init(&l->lock, NULL);
	l->asked_only = opts->asked_only;
	l->shelf = shelf;
	l->sites = opts->courier.sites;
	l->token = opts->courier.token;
	l->keeps = opts->courier.store;
	l->log = opts->log;
	l->arg = opts->arg;
	ret = name_it(l, cloud, err);
	if (!ret)
		http.site = l->site = sites_find(l->sites, l->url);
	if (!ret)
		ret = http_open(&l->http, &http, err);
	if (!ret)
		ret = http_open(&l->asking, &http, err);
	if (!ret) {
		l->listener = (struct sites_listener){ .changed = site_has_changed, .arg = l };
		sites_listen(l->sites, &l->listener);
		shelf_expect(l->shelf, 1);
		ret = -pthread_create(&l->thread, NULL, keep_asking, l);
		l->running = !ret;
		if (ret)
			error_sys(err, ret, "cannot start a thread");
	}
	if (ret < 0) {
		cloud_list_stop(l);
		return ret;
	}
	*out = l;
	return 0;
}

void cloud_list_cancel(struct cloud_list *l)
{
	if (!l)
		return;
	atomic_store(&l->stop, true);
	http_wake(l->http);
	http_wake(l->asking);
}

void cloud_list_stop(struct cloud_list *l)
{
	if (!l)
		return;
	if (l->running) {
		cloud_list_cancel(l);
		pthread_join(l->thread, NULL);
	}
	sites_unlisten(l->sites, &l->listener);
	http_close(l->http);
	http_close(l->asking);
	json_decref(l->last);
	pthread_mutex_destroy(&l->lock);
	free(l->url);
	free(l->cloud);
	free(l);
}
