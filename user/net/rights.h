/* SPDX-License-Identifier: MIT */
/*
 * Rights: the salts of a gateway's tenants, and by which tokens their contexts are had.
 *
 * To a cloud of tenants a token is one tenant's, who has one salt; to it the contexts of others are not there. So a gateway
 * of several tenants shows, for a context of a salt, that salt's token: to the cloud and, where it has another one for them, to its
 * peers. Whose context a key is says only its manifest. Until that is here the tokens are tried one after the other, the usual one first.
 */
#ifndef LSLM_NET_RIGHTS_H
#define LSLM_NET_RIGHTS_H

#include <stdint.h>

#include "kv/key.h"

enum { RIGHTS_MAX = 64 };

struct right {
	struct kv_hash salt;
	char *cloud, *peer; /* tokens, owned; NULL: the usual one is shown */
};

struct rights {
	struct right all[RIGHTS_MAX]; /* of different salts */
	uint32_t n;
	const char *site; /* the cloud whose they are, https://HOST[:PORT]; NULL: whoever is asked */
};

/* The token for a context of this salt; usual where it has none of its own, or r is NULL. */
const char *rights_cloud(const struct rights *r, const struct kv_hash *salt, const char *usual);
const char *rights_peer(const struct rights *r, const struct kv_hash *salt, const char *usual);

/*
 * Name a salt to others without saying it: a digest of it. Zero stays zero: there is none.
 */
struct kv_hash rights_salt_name(const struct kv_hash *salt);

#endif
