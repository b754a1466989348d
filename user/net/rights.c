// SPDX-License-Identifier: MIT
#include "net/rights.h"

#include <stddef.h>

static const struct right *find(const struct rights *r, const struct kv_hash *salt)
{
	for (uint32_t i = 0; r && i < r->n; i++)
		if (kv_hash_equal(&r->all[i].salt, salt))
			return &r->all[i];
	return NULL;
}

const char *rights_cloud(const struct rights *r, const struct kv_hash *salt, const char *usual)
{
	const struct right *is = find(r, salt);

	return is && is->cloud ? is->cloud : usual;
}

const char *rights_peer(const struct rights *r, const struct kv_hash *salt, const char *usual)
{
	const struct right *is = find(r, salt);

	return is && is->peer ? is->peer : usual;
}

struct kv_hash rights_salt_name(const struct kv_hash *salt)
{
	return kv_hash_is_zero(salt) ? *salt : kv_digest(salt, sizeof(*salt));
}
