// SPDX-License-Identifier: MIT
#include "serve/gone.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct gone_context *place_for(struct gone *g, const struct kv_hash *key)
{
	struct gone_context *c;

	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++)
		if (g->all[i].source && kv_hash_equal(&g->all[i].key, key))
			return &g->all[i];
	c = &g->all[g->n++ % SHELF_CONTEXTS];
	c->title[0] = 0;
	c->has_salt = false;
	return c;
}

void gone_remember(struct gone *g, const char *source, const struct kv_hash *key, const char *title,
		   const struct kv_hash *salt)
{
	struct gone_context *c = place_for(g, key);

	free(c->source);
	c->source = strdup(source);
	c->key = *key;
	/* Who only knows that it was dropped does not know how it was called. */
	if (*title)
		snprintf(c->title, sizeof(c->title), "%s", title);
	if (!salt)
		return;
	c->salt = *salt;
	c->has_salt = true;
}

bool gone_is_whose(const struct gone_context *c, const struct shelf_whose *whose, const char *name)
{
	struct kv_hash key;

	if (whose->all)
		return true;
	if (c->has_salt)
		return kv_hash_equal(&c->salt, &whose->salt);
	return !kv_hash_parse(&key, name) && kv_hash_equal(&key, &c->key);
}

void gone_free(struct gone *g)
{
	for (uint32_t i = 0; i < SHELF_CONTEXTS; i++)
		free(g->all[i].source);
}
