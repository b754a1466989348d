/* SPDX-License-Identifier: MIT */
/* What the two parts of `lslm align` share: a map between models, and the layers to recompute between relatives. */
#ifndef LSLM_CLI_ALIGN_H
#define LSLM_CLI_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "codec/align.h"
#include "codec/map.h"
#include "engine/eval.h"

struct align_values {
	const char *from, *to, *file, *test, *out, *map;
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
	struct map *map;
	double *similarity; /* [from layers][to layers]; NULL where the map was given */
	uint32_t *source; /* [to layers] */
	double *fit; /* [to layers][2] */
};

/* Instead of a map: evaluates all runs of layers on j->data. */
int align_same(struct align_job *j, struct lslm_error *err);

#endif
