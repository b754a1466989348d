/* SPDX-License-Identifier: MIT */
/* What the two parts of `lslm align` share: a map between models, and the layers to recompute between relatives. */
#ifndef LSLM_CLI_ALIGN_H
#define LSLM_CLI_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "codec/align.h"
#include "codec/map.h"
#include "engine/eval.h"

struct align_values {
	const char *from, *to, *file, *test, *out, *map, *heat_map, *level, *calibration;
	uint32_t shallow, limit, n_ctx, threads;
	float ridge;
	bool same, json;
};

struct align_job {
	const struct align_values *v;
	struct model *model_from, *model_to;
	struct engine *from, *to;
	struct eval_data data, test;
	struct align *sums;
	const struct eval_coder *level; /* at which contexts come that are evaluated; NULL: f16 */
	struct calibration *cal; /* of the smaller model, for the level; NULL: none */
	struct map *map;
	double *similarity; /* [from layers][to layers]; NULL where the map was given */
	uint32_t *source; /* [to layers] */
	double *fit; /* [to layers][2] */
};

/* The evaluation of j->map on j->test goes into it. */
int align_prove(struct align_job *j, struct lslm_error *err);
int align_name_models(struct align_job *j, struct lslm_error *err);
/* The evaluation, and what it means. */
void align_print_proof(const struct align_job *j);
json_t *align_json_proof(const struct align_job *j);

/* Instead of a map by regression: evaluates all runs of layers on j->data, and the one that it takes on j->test. */
int align_same(struct align_job *j, struct lslm_error *err);

#endif
