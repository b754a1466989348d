// SPDX-License-Identifier: MIT
#include "serve/salts.h"

#include <stdlib.h>
#include <string.h>

#include "base/token.h"
#include "serve/tenants.h"

struct reader {
	struct rights *rights;
	bool tokens;
};

static int add(void *arg, const struct kv_hash *salt, const char *cloud_token,
	       const char *peer_token, struct lslm_error *err)
{
	const struct reader *reader = arg;
	struct rights *r = reader->rights;
	struct right *is = r->all;
	int rc;

	while (is < r->all + r->n && !kv_hash_equal(&is->salt, salt))
		is++;
	if (is == r->all + RIGHTS_MAX)
		return error_set(err, -E2BIG, "tenants have more than %d salts", RIGHTS_MAX);
	if (is == r->all + r->n)
		r->all[r->n++].salt = *salt;
	if (!reader->tokens)
		return 0;
	rc = is->cloud ? 0 : token_read(cloud_token, true, &is->cloud, err);
	if (!rc && !is->peer)
		rc = token_read(peer_token, true, &is->peer, err);
	return rc;
}

int salts_read(struct rights *r, const char *path, bool tokens, struct lslm_error *err)
{
	struct reader reader = { r, tokens };
	struct tenants *t;
	int rc;

	memset(r, 0, sizeof(*r));
	if (!path)
		return 0;
	rc = tenants_open(&t, path, err);
	if (rc)
		return rc;
	rc = tenants_each_salt(t, add, &reader, err);
	tenants_close(t);
	if (rc)
		salts_free(r);
	return rc;
}

void salts_free(struct rights *r)
{
	for (uint32_t i = 0; i < r->n; i++) {
		token_free(r->all[i].cloud);
		token_free(r->all[i].peer);
	}
	explicit_bzero(r, sizeof(*r));
}
