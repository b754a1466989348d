// SPDX-License-Identifier: MIT
#include "cli/cloud_models.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/mapping.h"

/* What clients call a file: its name without the ending. */
static void name_of(char name[], size_t size, const char *path, const char *ending)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	const size_t len = strlen(base), end = strlen(ending);

	snprintf(name, size, "%.*s",
		 (int)(len > end && !strcmp(base + len - end, ending) ? len - end : len), base);
}

static int open_model(struct cloud_models *c, const char *path, uint32_t threads,
		      const struct publish_opts *publish, struct lslm_error *err)
{
	struct contexts_model *name = &c->names[c->n];
	struct kv_identity id;
	int rc = model_open(&c->models[c->n], path, err);

	if (!rc)
		rc = engine_create(&c->engines[c->n], c->models[c->n], threads, err);
	/* Now, not when the first context is asked for: it reads the whole model. */
	if (!rc)
		rc = engine_identity(c->engines[c->n], &id, err);
	/* Likewise: what is missing for a level. */
	if (!rc)
		rc = publish_check(c->engines[c->n], publish->levels, publish->calibrations, err);
	if (rc)
		return rc;
	name_of(name->name, sizeof(name->name), path, ".gguf");
	name->fingerprint = id.model;
	for (uint32_t i = 0; i < c->n; i++)
		if (!strcmp(c->names[i].name, name->name))
			return error_set(err, -EEXIST,
					 "%s: another model has this file's name already", path);
	c->n++;
	return 0;
}

/* The number of the model with this fingerprint; n: there is none. */
static uint32_t number_of(const struct cloud_models *c, const struct kv_hash *fingerprint)
{
	uint32_t i = 0;

	while (i < c->n && !kv_hash_equal(&c->names[i].fingerprint, fingerprint))
		i++;
	return i;
}

static int missing(const char *path, const char *which, const struct kv_hash *model,
		   struct lslm_error *err)
{
	char hex[KV_HASH_TEXT];

	kv_hash_format(model, hex);
	return error_set(
		err, -ENOENT,
		"%s: the model that the map is %s (fingerprint %.16s...) is not here; give it with "
		"another -m",
		path, which, hex);
}

static int open_map(struct cloud_models *c, const char *path, struct lslm_error *err)
{
	struct contexts_map *name = &c->map_names[c->n_maps];
	struct map **map = &c->maps[c->n_maps];
	int rc = map_read(map, path, err);

	if (rc)
		return rc;
	name_of(name->name, sizeof(name->name), path, ".map");
	name->fingerprint = (*map)->fingerprint;
	name->proven = map_is_proven(*map, name->why, sizeof(name->why));
	name->from = number_of(c, &(*map)->model_from);
	name->to = number_of(c, &(*map)->model_to);
	/* It is closed with the others. */
	c->n_maps++;
	if (name->from == c->n)
		return missing(path, "from", &(*map)->model_from, err);
	if (name->to == c->n)
		return missing(path, "for", &(*map)->model_to, err);
	rc = mapping_match(*map, c->engines[name->from], c->engines[name->to], err);
	if (rc)
		return error_prefix(err, rc, "%s", path);
	for (uint32_t i = 0; i + 1 < c->n_maps; i++)
		if (!strcmp(c->map_names[i].name, name->name))
			return error_set(err, -EEXIST,
					 "%s: another map has this file's name already", path);
	return 0;
}

int cloud_models_open(struct cloud_models *c, const struct opt_list *models,
		      const struct opt_list *maps, uint32_t threads,
		      const struct publish_opts *publish, struct lslm_error *err)
{
	int rc = 0;

	memset(c, 0, sizeof(*c));
	for (uint32_t i = 0; !rc && i < models->n; i++)
		rc = open_model(c, models->v[i], threads, publish, err);
	for (uint32_t i = 0; !rc && i < maps->n; i++)
		rc = open_map(c, maps->v[i], err);
	return rc;
}

void cloud_models_close(struct cloud_models *c)
{
	for (uint32_t i = 0; i < OPTS_MAX_LIST; i++) {
		map_free(c->maps[i]);
		engine_destroy(c->engines[i]);
		model_close(c->models[i]);
	}
}

struct engine *cloud_models_find(const struct cloud_models *c, const char *model, const char *map,
				 struct publish_opts *opts)
{
	uint32_t i = 0;

	if (map) {
		while (i < c->n_maps - 1 && strcmp(map, c->map_names[i].name))
			i++;
		opts->map = c->maps[i];
		opts->from = c->engines[c->map_names[i].from];
		return c->engines[c->map_names[i].to];
	}
	while (model && i < c->n - 1 && strcmp(model, c->names[i].name))
		i++;
	return c->engines[i];
}
