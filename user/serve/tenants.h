/* SPDX-License-Identifier: MIT */
/*
 * Who may ask, and how much: bearer tokens of tenants and their quotas.
 *
 * A file has a line per token: the token, the tenant's name, and what else holds for the tenant, all separated by white space.
 *
 *   s3cret-of-the-shop-floor   floor    concurrent=8 tokens_per_minute=60000
 *   another-one                office   admin
 *
 * concurrent: choices that may be in flight at once; tokens_per_minute: of prompts and answers together, as a bucket that holds a
 * minute's worth and may go below zero with the last answer. Neither: no limit. admin: may attach, pin and drop
 * contexts at the edge. salt=own, salt=HEX or salt=FILE (a path with a slash in it, of a file of 64 hexadecimal digits, mode 600) keeps the tenant's
 * contexts apart by their keys: they are shared with who has the same one (without one, by all who have none). In the cloud store_mib=N bounds
 * what they take of the store; readonly: may fetch, not publish, pin or remove. At the edge cloud_token=FILE and peer_token=FILE are the
 * tokens by which contexts of that salt are had (net/rights.h). A tenant may have several tokens; what its first line says holds. Lines that are empty
 * or begin with # say nothing.
 *
 * Tokens are kept as digests only. Without a file there is one tenant, "local", who is admin and has no limits.
 */
#ifndef LSLM_SERVE_TENANTS_H
#define LSLM_SERVE_TENANTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/key.h"

struct tenants;
struct tenant;

/* path NULL: no file. -EINVAL names the line that is wrong, never the token. */
int tenants_open(struct tenants **out, const char *path, struct lslm_error *err);
void tenants_close(struct tenants *t);
/* Read the file again. What is in flight goes on; on failure all stays as it was. */
int tenants_reload(struct tenants *t, struct lslm_error *err);
bool tenants_are_open(const struct tenants *t); /* without a file */

/* By the value of an Authorization header, which may be NULL. NULL: nobody. Lives until tenants_close(). */
struct tenant *tenants_find(struct tenants *t, const char *authorization);

const char *tenant_name(const struct tenant *t);
/* The same for as long as the set lives, and never another's. */
uint32_t tenant_number(const struct tenant *t);
bool tenant_is_admin(const struct tenant *t);

/* What cloud and edge go by; a copy, because the file may be read again. */
struct tenant_store {
	struct kv_hash salt; /* zero: none */
	uint64_t max_bytes; /* 0: no limit */
	bool readonly;
};

void tenant_store(const struct tenant *t, struct tenant_store *out);

/* Does any tenant have a salt of its own? */
bool tenants_have_salts(struct tenants *t);
/*
 * For each tenant that has one, until f fails: f(arg, salt, files of the tokens for cloud and peers, which may be NULL, err).
 */
int tenants_each_salt(struct tenants *t,
		      int (*f)(void *arg, const struct kv_hash *salt, const char *cloud_token,
			       const char *peer_token, struct lslm_error *err),
		      void *arg, struct lslm_error *err);

enum tenant_quota { TENANT_FINE, TENANT_CONCURRENT, TENANT_TOKENS };

/* Take n choices. Anything but TENANT_FINE: not taken; *wait_s: when to try again. now: clock_seconds(). */
enum tenant_quota tenant_take(struct tenant *t, uint32_t n, double now, unsigned int *wait_s);
/* Give n choices back, and say how many tokens they were together. */
void tenant_give(struct tenant *t, uint32_t n, uint64_t tokens, double now);

/* For each tenant, by number: f(arg, name, choices in flight, tokens so far, refusals so far). */
void tenants_each(struct tenants *t,
		  void (*f)(void *arg, const char *name, uint32_t running, uint64_t tokens,
			    uint64_t refused),
		  void *arg);

#endif
