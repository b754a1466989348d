// SPDX-License-Identifier: MIT
#include "net/peers.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct peers {
	struct peers_opts opts;
	char urls[PEERS_MAX][PEERS_URL_BYTES];
};

/* Only what can be the beginning of a context's URL; no slash behind. */
static int take_url(char out[PEERS_URL_BYTES], const char *url, struct lslm_error *err)
{
	static const char scheme[] = "https://";
	size_t len = strlen(url);

	while (len && url[len - 1] == '/')
		len--;
	if (strncmp(url, scheme, strlen(scheme)) || len <= strlen(scheme) ||
	    strcspn(url + strlen(scheme), "/?#@") < len - strlen(scheme))
		return error_set(err, -EINVAL,
				 "%s: not a peer's URL; wanted is https://HOST[:PORT]", url);
	if (len >= PEERS_URL_BYTES)
		return error_set(err, -EINVAL, "%.40s...: the URL is too long", url);
	memcpy(out, url, len);
	out[len] = 0;
	return 0;
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
	int ret;

	if (!p)
		return error_sys(err, -ENOMEM, "peers");
	p->opts = *opts;
	ret = take_urls(p, opts, err);
	if (ret < 0) {
		peers_close(p);
		return ret;
	}
	*out = p;
	return 0;
}

void peers_close(struct peers *p)
{
	free(p);
}

const struct peers_opts *peers_opts(const struct peers *p)
{
	return &p->opts;
}

uint32_t peers_find(struct peers *p, const struct kv_hash *key,
		    char urls[PEERS_MAX][PEERS_URL_BYTES])
{
	memcpy(urls, p->urls, p->opts.n_urls * sizeof(*p->urls));
	return p->opts.n_urls;
}

void peers_say(const struct peers *p, const char *fmt, ...)
{
	struct lslm_error line;
	va_list ap;

	if (!p->opts.log)
		return;
	va_start(ap, fmt);
	vsnprintf(line.text, sizeof(line.text), fmt, ap);
	va_end(ap);
	p->opts.log(p->opts.arg, line.text);
}
