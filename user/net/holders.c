// SPDX-License-Identifier: MIT
#include "net/holders.h"

#include <jansson.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hex.h"

enum { ID_BYTES = (HOLDERS_ID_TEXT - 1) / 2, KEY_DIGITS = 2 * KV_HASH_BYTES };

struct holder {
	struct kv_hash key;
	uint8_t id[ID_BYTES];
	char url[HOLDERS_URL_BYTES];
	double until;
};

struct holders {
	pthread_mutex_t lock;
	char self[HOLDERS_URL_BYTES]; /* "": none */
	struct holder *all; /* [HOLDERS_MAX] */
	uint32_t n;
};

int holders_open(struct holders **out, const char *self, struct lslm_error *err)
{
	struct holders *h = calloc(1, sizeof(*h));

	if (!h)
		return error_sys(err, -ENOMEM, "directory");
	h->all = calloc(HOLDERS_MAX, sizeof(*h->all));
	if (!h->all) {
		free(h);
		return error_sys(err, -ENOMEM, "directory");
	}
	pthread_mutex_init(&h->lock, NULL);
	snprintf(h->self, sizeof(h->self), "%s", self ? self : "");
	*out = h;
	return 0;
}

void holders_close(struct holders *h)
{
	if (!h)
		return;
	pthread_mutex_destroy(&h->lock);
	free(h->all);
	free(h);
}

bool holders_is_site(const char *url)
{
	static const char scheme[] = "https://";
	const char *host = url + strlen(scheme);

	if (strncmp(url, scheme, strlen(scheme)) || strlen(url) >= HOLDERS_URL_BYTES || !*host)
		return false;
	for (; *host; host++)
		if (*host <= ' ' || *host > '~' || strchr("/?#@\\\"'<>%{}|^`", *host))
			return false;
	return true;
}

void holders_name(const char *url, const struct kv_hash *key, char name[HOLDERS_NAME_MAX])
{
	const struct kv_hash digest = kv_digest(url, strlen(url));

	hex_format(name, key->b, KV_HASH_BYTES);
	name[KEY_DIGITS] = '.';
	hex_format(name + KEY_DIGITS + 1, digest.b, ID_BYTES);
}

int holders_value(const char *url, uint32_t stripes, uint32_t of, char value[HOLDERS_VALUE_MAX])
{
	/* Such a URL has nothing in it that JSON would escape. */
	return snprintf(value, HOLDERS_VALUE_MAX, "{\"url\":\"%s\",\"stripes\":%u,\"of\":%u}", url,
			stripes, of);
}

static bool parse_name(const char *name, struct holder *out)
{
	return strnlen(name, HOLDERS_NAME_MAX) == HOLDERS_NAME_MAX - 1 && name[KEY_DIGITS] == '.' &&
	       !hex_parse(out->key.b, KV_HASH_BYTES, name, KEY_DIGITS) &&
	       !hex_parse(out->id, ID_BYTES, name + KEY_DIGITS + 1, HOLDERS_ID_TEXT - 1);
}

static bool parse_value(const void *value, size_t size, struct holder *out)
{
	json_t *o = size <= HOLDERS_VALUE_MAX ? json_loadb(value, size, 0, NULL) : NULL;
	const char *url = json_string_value(json_object_get(o, "url"));
	const bool good = url && holders_is_site(url);

	if (good)
		strcpy(out->url, url);
	json_decref(o);
	return good;
}

/* Under the lock. */
static struct holder *find(struct holders *h, const struct holder *like)
{
	for (uint32_t i = 0; i < h->n; i++)
		if (!memcmp(h->all[i].id, like->id, ID_BYTES) &&
		    kv_hash_equal(&h->all[i].key, &like->key))
			return &h->all[i];
	return NULL;
}

/* A new one, or the one that ends first. */
static struct holder *make_room(struct holders *h)
{
	struct holder *first = &h->all[0];

	if (h->n < HOLDERS_MAX)
		return &h->all[h->n++];
	for (uint32_t i = 1; i < h->n; i++)
		if (h->all[i].until < first->until)
			first = &h->all[i];
	return first;
}

bool holders_take(struct holders *h, const char *name, const void *value, size_t size, double until)
{
	struct holder new = { .until = until }, *at;

	if (!parse_name(name, &new) || !parse_value(value, size, &new))
		return false;
	pthread_mutex_lock(&h->lock);
	at = find(h, &new);
	if (!at)
		at = make_room(h);
	*at = new;
	pthread_mutex_unlock(&h->lock);
	return true;
}

void holders_forget(struct holders *h, const char *name)
{
	struct holder is = { 0 }, *at;

	if (!parse_name(name, &is))
		return;
	pthread_mutex_lock(&h->lock);
	at = find(h, &is);
	if (at)
		*at = h->all[--h->n];
	pthread_mutex_unlock(&h->lock);
}

static bool is_named(char (*urls)[HOLDERS_URL_BYTES], uint32_t n, const char *url)
{
	for (uint32_t i = 0; i < n; i++)
		if (!strcmp(urls[i], url))
			return true;
	return false;
}

/* The n-th that was found takes one of max places with probability max / n: each is as likely as the others. */
static uint32_t place_of(uint32_t found, uint32_t max)
{
	return found <= max ? found - 1 : randombytes_uniform(found);
}

uint32_t holders_find(struct holders *h, const struct kv_hash *key, char (*urls)[HOLDERS_URL_BYTES],
		      uint32_t max, double now)
{
	uint32_t found = 0, n = 0, place;

	pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->n; i++) {
		const struct holder *one = &h->all[i];

		if (one->until < now || !kv_hash_equal(&one->key, key) ||
		    !strcmp(one->url, h->self) || is_named(urls, n, one->url))
			continue;
		place = place_of(++found, max);
		if (place < max)
			strcpy(urls[place], one->url);
		n = found < max ? found : max;
	}
	pthread_mutex_unlock(&h->lock);
	return n;
}

uint32_t holders_count(struct holders *h)
{
	uint32_t n;

	pthread_mutex_lock(&h->lock);
	n = h->n;
	pthread_mutex_unlock(&h->lock);
	return n;
}
