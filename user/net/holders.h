/* SPDX-License-Identifier: MIT */
/*
 * Holders: what a directory's entries say about who has which context, for as long as they are good.
 *
 * Entries come from a server that anybody who may write there has filled: whatever is no context, gateway and
 * https://HOST[:PORT] is passed over, and no more than HOLDERS_MAX are remembered. From any thread.
 */
#ifndef LSLM_NET_HOLDERS_H
#define LSLM_NET_HOLDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/key.h"

struct holders;

enum {
	HOLDERS_MAX = 4096,
	HOLDERS_URL_BYTES = 256,
	HOLDERS_ID_TEXT = 17, /* of a gateway: 16 hexadecimal digits */
	HOLDERS_VALUE_MAX = 512,
	HOLDERS_NAME_MAX = 2 * KV_HASH_BYTES + 1 + HOLDERS_ID_TEXT, /* of an entry, with its NUL */
};

/* self: the URL of this gateway, which is never found; NULL: it has none. */
int holders_open(struct holders **out, const char *self, struct lslm_error *err);
void holders_close(struct holders *h);

/* An entry's name and value for a gateway: what it has of a context. The URL is one that holders_is_site() takes. */
void holders_name(const char *url, const struct kv_hash *key, char name[HOLDERS_NAME_MAX]);
/* How long the value is. */
int holders_value(const char *url, uint32_t stripes, uint32_t of, char value[HOLDERS_VALUE_MAX]);

/* Such an entry was put, and is good until then (clock_seconds()). False: it says nothing that can be used. */
bool holders_take(struct holders *h, const char *name, const void *value, size_t size,
		  double until);
/* It was taken back. */
void holders_forget(struct holders *h, const char *name);
/* URLs of gateways that have something of this context, at most max, drawn by lot where there are more; how many. */
uint32_t holders_find(struct holders *h, const struct kv_hash *key, char (*urls)[HOLDERS_URL_BYTES],
		      uint32_t max, double now);
uint32_t holders_count(struct holders *h);

/* https://HOST[:PORT] and nothing behind, of less than HOLDERS_URL_BYTES. */
bool holders_is_site(const char *url);

#endif
