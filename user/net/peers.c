// SPDX-License-Identifier: MIT
#include "net/peers.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct peers {
	struct peers_opts opts;
	char urls[PEERS_MAX][PEERS_URL_BYTES];
	struct directory *directory; /* NULL: none */
};

/* Without a slash behind. */
static int take_url(char out[PEERS_URL_BYTES], const char *url, struct lslm_error *err)
{
	size_t len = strlen(url);

	while (len && url[len - 1] == '/')
		len--;
	snprintf(out, PEERS_URL_BYTES, "%.*s", (int)(len < PEERS_URL_BYTES ? len : 0), url);
	return holders_is_site(out) ?
		       0 :
		       error_set(err, -EINVAL,
				 "%s: not a peer's URL; wanted is https://HOST[:PORT]", url);
}

static int take_urls(struct peers *p, const struct peers_opts *o, struct lslm_error *err)
{
	int ret = 0;

	if (o->n_urls > PEERS_MAX)
		return error_set(err, -E2BIG, "more than %d peers", PEERS_MAX);
	for (uint32_t i = 0; i < o->n_urls && !ret; i++)
		ret = take_url(p->urls[i], o->urls[i], err);
	return ret;
}

int peers_open(struct peers **out, const struct peers_opts *opts, struct lslm_error *err)
{
	struct peers *p = calloc(1, sizeof(*p));
	struct directory_opts directory;
	int ret;

	if (!p)
		return error_sys(err, -ENOMEM, "peers");
	p->opts = *opts;
	ret = take_urls(p, opts, err);
	if (!ret && opts->directory) {
		directory = *opts->directory;
		directory.log = opts->log;
		directory.arg = opts->arg;
		ret = directory_open(&p->directory, &directory, err);
	}
	if (ret < 0) {
		peers_close(p);
		return ret;
	}
	*out = p;
	return 0;
}

void peers_close(struct peers *p)
{
	if (!p)
		return;
	directory_close(p->directory);
	free(p);
}

const struct peers_opts *peers_opts(const struct peers *p)
{
	return &p->opts;
}

/* One that is named and found is one. */
uint32_t peers_find(struct peers *p, const struct kv_hash *key,
		    char urls[PEERS_MAX][PEERS_URL_BYTES])
{
	char found[PEERS_FOUND][PEERS_URL_BYTES];
	uint32_t n = p->opts.n_urls, all = n, more;

	memcpy(urls, p->urls, n * sizeof(*p->urls));
	more = p->directory ? directory_find(p->directory, key, found, PEERS_FOUND) : 0;
	for (uint32_t i = 0; i < more && all < PEERS_MAX; i++) {
		uint32_t at = 0;

		while (at < n && strcmp(urls[at], found[i]))
			at++;
		if (at == n)
			memcpy(urls[all++], found[i], sizeof(found[i]));
	}
	return all;
}

void peers_have(struct peers *p, const struct kv_hash *key, uint32_t stripes, uint32_t of)
{
	if (p && p->directory)
		directory_have(p->directory, key, stripes, of);
}

void peers_drop(struct peers *p, const struct kv_hash *key)
{
	if (p && p->directory)
		directory_drop(p->directory, key);
}

void peers_say(const struct peers *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_tell(p->opts.log, p->opts.arg, NULL, fmt, ap);
	va_end(ap);
}
