// SPDX-License-Identifier: MIT
#include "serve/range.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *argument(struct MHD_Connection *conn, const char *name, const char *otherwise)
{
	const char *value = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, name);

	return value ? value : otherwise;
}

/* The level of that name that the context has. */
static const struct manifest_level *find_level(const struct manifest *m, const char *name)
{
	int level = kv_level_parse(name);

	return level < 0 ? NULL : manifest_level(m, (enum kv_level)level);
}

/* A number in the query; otherwise when it is missing. */
static bool number(struct MHD_Connection *conn, const char *name, uint64_t otherwise,
		   uint64_t *value)
{
	const char *text = argument(conn, name, NULL);
	char *end;

	*value = otherwise;
	if (!text)
		return true;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno;
}

int range_parse(struct MHD_Connection *conn, const struct manifest *m, struct range *out,
		unsigned int *status, struct lslm_error *err)
{
	const char *order = argument(conn, "order", "layer");
	const struct manifest_level *level = find_level(m, argument(conn, "level", "f16"));
	const uint64_t all = level ? (uint64_t)m->n_stripes * level->n_units : 0;
	enum order_kind kind = strcmp(order, "tail") ? ORDER_LAYER : ORDER_TAIL;
	uint64_t from, count;

	*status = 0;
	if (!level) {
		*status = MHD_HTTP_NOT_FOUND;
		return error_set(err, -ENOENT, "the context is not on offer at this level");
	}
	if (kind == ORDER_LAYER && strcmp(order, "layer"))
		return error_set(err, -EINVAL, "order is layer or tail");
	if (!number(conn, "from", 0, &from))
		return error_set(err, -EINVAL, "from is the number of a block");
	if (!number(conn, "count", from < all ? all - from : 0, &count))
		return error_set(err, -EINVAL, "count is a number of blocks");
	if (from > all || count > all - from) {
		*status = MHD_HTTP_RANGE_NOT_SATISFIABLE;
		return error_set(err, -ERANGE, "the context has only %llu blocks",
				 (unsigned long long)all);
	}
	*out = (struct range){
		.level = level,
		.order = { kind, m->n_stripes, level->n_units },
		.from = (uint32_t)from,
		.end = (uint32_t)(from + count),
	};
	return 0;
}

uint64_t range_bytes(const struct range *r, const struct manifest *m)
{
	uint64_t bytes = 0;

	for (uint32_t i = r->from; i < r->end; i++) {
		uint32_t stripe, unit;

		order_block(&r->order, i, &stripe, &unit);
		bytes += manifest_unit_bytes(m, r->level, stripe, unit);
	}
	return bytes;
}
