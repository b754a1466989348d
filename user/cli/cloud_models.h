/* SPDX-License-Identifier: MIT */
/*
 * What a cloud makes contexts with: models, and maps from one of them to another.
 *
 * All is opened, fingerprinted and checked against each other before the first request; a publish then names a model,
 * or a map, by its file's name without the ending.
 */
#ifndef LSLM_CLI_CLOUD_MODELS_H
#define LSLM_CLI_CLOUD_MODELS_H

#include "cli/opts.h"
#include "codec/map.h"
#include "engine/engine.h"
#include "engine/publish.h"
#include "serve/contexts.h"

struct cloud_models {
	struct model *models[OPTS_MAX_LIST];
	struct engine *engines[OPTS_MAX_LIST];
	struct contexts_model names[OPTS_MAX_LIST];
	uint32_t n;
	struct map *maps[OPTS_MAX_LIST];
	struct contexts_map map_names[OPTS_MAX_LIST];
	uint32_t n_maps;
};

/*
 * levels and calibrations: what is missing for one of them is told now. -EEXIST where two have one name, -ENOENT for a map
 * whose models are not both among the models. Close it, whatever comes of it.
 */
int cloud_models_open(struct cloud_models *c, const struct opt_list *models,
		      const struct opt_list *maps, uint32_t threads,
		      const struct publish_opts *publish, struct lslm_error *err);
void cloud_models_close(struct cloud_models *c);

/*
 * The engine of the model of that name (NULL: the first one), or, where a map is named, of the model that it is for; map and from of
 * opts are set then. The names are those of this cloud.
 */
struct engine *cloud_models_find(const struct cloud_models *c, const char *model, const char *map,
				 struct publish_opts *opts);

#endif
