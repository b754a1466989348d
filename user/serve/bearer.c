// SPDX-License-Identifier: MIT
#include "serve/bearer.h"

#include <string.h>
#include <strings.h>

struct kv_hash bearer_digest(const char *token)
{
	return kv_digest(token, strlen(token));
}

bool bearer_matches(struct MHD_Connection *conn, const struct kv_hash *digest)
{
	static const char scheme[] = "Bearer ";
	const char *value;
	struct kv_hash is;

	value = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Authorization");
	if (!value || strncasecmp(value, scheme, strlen(scheme)))
		return false;
	is = bearer_digest(value + strlen(scheme));
	return kv_hash_equal(&is, digest);
}
