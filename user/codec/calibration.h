/* SPDX-License-Identifier: MIT */
/*
 * What levels e and p know of a model: where its keys and values lie, measured once on some text, and how much harm errors there do.
 *
 * The channels of a token in a layer, (head, dimension), keys before RoPE, are cut into groups of at most
 * CALIBRATION_MAX_WIDTH that follow each other. A group has a mean, and the directions in which it varies: the
 * principal components, largest first, as far as they matter. Components are stored as integers, so that
 * what is computed from them is the same everywhere.
 *
 * A calibration belongs to one model, whose fingerprint it holds, and is itself named by a fingerprint, BLAKE2b-256 of
 * its bytes: the same name, the same decoded values. docs/protocol.md has the file's bytes.
 */
#ifndef LSLM_CODEC_CALIBRATION_H
#define LSLM_CODEC_CALIBRATION_H

#include "codec/turn.h"
#include "kv/geometry.h"
#include "kv/key.h"

enum {
	CALIBRATION_MAX_WIDTH = 320,
	CALIBRATION_UNITY = 1 << 12, /* what a component's entries are multiplied with */
};

struct calibration_group {
	uint32_t first, width; /* channels of the half */
	uint32_t kept; /* components */
	const float *mean; /* [width] */
	const float *components; /* [kept][width], integers within +-CALIBRATION_UNITY */
};

struct calibration_half {
	float unit; /* steps are multiples of it: how much values vary, less where errors do more harm */
	struct calibration_group *groups;
};

struct calibration {
	struct kv_geometry geo;
	struct kv_hash model; /* fingerprint of the model it was made for */
	struct kv_hash fingerprint; /* its own */
	struct turn_params turn;
	uint32_t n_groups; /* of a half */
	uint32_t n_tokens; /* that it was made from */
	bool weighed; /* units say how much harm errors do */
	struct calibration_half *halves; /* [n_layer][2]: K, V */
	uint8_t *data; /* the file's bytes */
	size_t size;
	void *memory;
};

/* How a half's channels are cut; groups are numbered from 0. */
uint32_t calibration_groups(const struct kv_geometry *geo);
void calibration_span(const struct kv_geometry *geo, uint32_t group, uint32_t *first,
		      uint32_t *width);

/* From the bytes of a file, which are copied. -EBADMSG for what is none. */
int calibration_parse(struct calibration **out, const void *data, size_t size,
		      struct lslm_error *err);
int calibration_open(struct calibration **out, const char *path, struct lslm_error *err);
void calibration_free(struct calibration *cal);

/* -EINVAL with a line unless it is for this model (NULL: any) and geometry. */
int calibration_match(const struct calibration *cal, const struct kv_geometry *geo,
		      const struct kv_hash *model, struct lslm_error *err);

/* Those at hand, each of another model. */
struct calibrations {
	struct calibration **v; /* [n] */
	uint32_t n;
};

/* *s is empty before; to be freed also after an error. -EEXIST for two of one model. */
int calibrations_open(struct calibrations *s, const char *const *paths, uint32_t n,
		      struct lslm_error *err);
void calibrations_free(struct calibrations *s);
/* The one with this fingerprint, the one for this model; NULL: it is not there. s may be NULL. */
const struct calibration *calibrations_named(const struct calibrations *s,
					     const struct kv_hash *fingerprint);
const struct calibration *calibrations_for(const struct calibrations *s,
					   const struct kv_hash *model);

/* Making one: text's stripes are added one by one, then it is computed. */
struct calibrator;

int calibrator_new(struct calibrator **out, const struct kv_geometry *geo,
		   const struct turn_params *turn, const struct kv_hash *model,
		   struct lslm_error *err);
/* A stripe at f16 whose first token has this position. -ENOMEM. */
int calibrator_add(struct calibrator *c, const uint8_t *stripe, uint32_t first);
/*
 * Errors of this mean square in a half (2 * layer, + 1 for V) made so much divergence, in nats. Optional, for all halves alike
 * often; averages count.
 */
void calibrator_weigh(struct calibrator *c, uint32_t half, double error, double divergence);
/* How often that was done for the last half. */
uint32_t calibrator_n_weighed(const struct calibrator *c);
/* -EINVAL with fewer tokens than the widest group has channels. */
int calibrator_finish(const struct calibrator *c, struct calibration **out, struct lslm_error *err);
void calibrator_free(struct calibrator *c);

#endif
