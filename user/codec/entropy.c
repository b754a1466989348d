// SPDX-License-Identifier: MIT
/*
 * A block: two steps (f16), K's and V's; a class for each channel of K, then of V, two to a byte; one stream of
 * codec/rans.h, whose parts are the heads of K, then of V.
 */
#include "codec/entropy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/rans.h"
#include "codec/steps.h"
#include "compute/quant.h"

enum {
	STEP_BYTES = 2,
	HEAD_VALUES = KV_BLOCK_TOKENS * KV_MAX_HEAD_DIM,
	STREAM_BITS = 8 * (RANS_LANES * 4 + 2 * STEP_BYTES +
			   32), /* whatever the values: states, steps, digest */
};

/* Of the values themselves, below which there is no point; only blocks of few channels come near it. */
#define LEAST_BITS 2.0f

static size_t head_bytes(const struct kv_geometry *geo)
{
	return 2 * STEP_BYTES + kv_channels(geo);
}

size_t entropy_bound(const struct kv_geometry *geo)
{
	return head_bytes(geo) + rans_bound(2 * KV_BLOCK_TOKENS * kv_channels(geo));
}

/* What is left for a half's values, in rans_cost()'s units over all channels. */
static uint64_t cost_for(const struct kv_geometry *geo)
{
	const float n = 2 * KV_BLOCK_TOKENS * (float)kv_channels(geo);
	const float bits = ENTROPY_BITS - (STREAM_BITS + 8 * (float)kv_channels(geo)) / n;

	return (uint64_t)(256 * (bits < LEAST_BITS ? LEAST_BITS : bits) * (float)kv_channels(geo));
}

struct head {
	float x[HEAD_VALUES];
	int16_t q[HEAD_VALUES];
	uint8_t classes[RANS_MAX_COLUMNS];
};

static size_t head_values(const struct kv_geometry *geo)
{
	return (size_t)KV_BLOCK_TOKENS * geo->head_dim;
}

/* Sums of squares of a half's channels; returns its largest magnitude. */
static float measure(const struct kv_geometry *geo, const uint16_t *half, float *squares,
		     struct head *head)
{
	float largest = 0;

	memset(squares, 0, kv_channels(geo) * sizeof(*squares));
	for (uint32_t h = 0; h < geo->n_head_kv; h++) {
		float peak;

		f16_row_to_tame(half + h * head_values(geo), head->x, head_values(geo));
		peak = steps_measure(squares + (size_t)h * geo->head_dim, head->x, KV_BLOCK_TOKENS,
				     geo->head_dim);
		largest = peak > largest ? peak : largest;
	}
	return largest;
}

static uint32_t step_of(const struct kv_geometry *geo, const uint16_t *half, struct head *head)
{
	float squares[STEPS_MAX_CHANNELS];
	const float largest = measure(geo, half, squares, head);

	return steps_choose(squares, kv_channels(geo), largest, cost_for(geo));
}

/* --- a stripe's steps in the ratio of a calibration's units --- */

struct shares {
	size_t channels;
	uint32_t n; /* halves */
	float *squares; /* [n][channels] */
	uint32_t *least, *units; /* [n] numbers of steps: what holds every value, and the unit */
	struct head head;
};

static uint32_t share_at(const struct shares *s, uint32_t i, int shift)
{
	int number = (int)s->units[i] + shift;

	number = number < (int)s->least[i] ? (int)s->least[i] : number;
	return (uint32_t)(number > STEPS_LARGEST ? STEPS_LARGEST : number);
}

static uint64_t share_cost(const struct shares *s, uint32_t i, uint32_t number)
{
	return steps_cost(s->squares + i * s->channels, s->channels, number);
}

static uint64_t shares_cost(const struct shares *s, int shift)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < s->n; i++)
		sum += share_cost(s, i, share_at(s, i, shift));
	return sum;
}

/* Costs fall as steps grow together, so bisect; then what is left makes single ones smaller, as far as it goes. */
static void share_out(const struct shares *s, uint64_t most, uint32_t *steps)
{
	int low = -STEPS_LARGEST, high = STEPS_LARGEST;
	uint64_t cost;

	while (low < high) {
		const int middle = low + (high - low) / 2;

		if (shares_cost(s, middle) <= most)
			high = middle;
		else
			low = middle + 1;
	}
	cost = shares_cost(s, low);
	for (uint32_t i = 0; i < s->n; i++) {
		const uint32_t finer = share_at(s, i, low - 1);
		uint64_t other;

		steps[i] = share_at(s, i, low);
		other = cost - share_cost(s, i, steps[i]) + share_cost(s, i, finer);
		if (other <= most) {
			steps[i] = finer;
			cost = other;
		}
	}
}

int entropy_steps(const struct kv_geometry *geo, const struct calibration *cal, const uint8_t *in,
		  uint32_t *steps)
{
	struct shares *s = malloc(sizeof(*s));
	int rc = -ENOMEM;

	if (!s)
		return rc;
	s->channels = kv_channels(geo);
	s->n = 2 * geo->n_layer;
	s->squares = malloc(s->n * s->channels * sizeof(*s->squares));
	s->least = malloc(s->n * sizeof(*s->least));
	s->units = malloc(s->n * sizeof(*s->units));
	if (s->squares && s->least && s->units) {
		for (uint32_t i = 0; i < s->n; i++) {
			const uint8_t *half = in + i * kv_half_bytes(geo, KV_LEVEL_F16);

			s->least[i] =
				steps_holding(measure(geo, (const uint16_t *)half,
						      s->squares + i * s->channels, &s->head));
			s->units[i] = steps_at_least(cal->halves[i].unit);
		}
		share_out(s, s->n * cost_for(geo), steps);
		rc = 0;
	}
	free(s->squares);
	free(s->least);
	free(s->units);
	free(s);
	return rc;
}

/* --- a block --- */

/* Backwards, as the coder wants it. first: of the half's channels among the block's. */
static void encode_half(const struct kv_geometry *geo, const uint16_t *half, uint32_t step,
			struct head *head, struct rans_encoder *e, uint8_t *classes, size_t first)
{
	const size_t n = head_values(geo);
	const uint32_t d = geo->head_dim;

	for (uint32_t h = geo->n_head_kv; h-- > 0;) {
		f16_row_to_tame(half + h * n, head->x, n);
		steps_quantise(head->q, head->x, 1 / steps_value(step), n);
		rans_classify(head->classes, head->q, d);
		steps_put_classes(classes, first + (size_t)h * d, head->classes, d);
		rans_encode(e, head->q, head->classes, d);
	}
}

size_t entropy_encode(const struct kv_geometry *geo, const uint8_t *in, const uint32_t *steps,
		      uint8_t *out)
{
	const uint16_t *keys = (const uint16_t *)in;
	const uint16_t *values = (const uint16_t *)(in + kv_half_bytes(geo, KV_LEVEL_F16));
	struct head head;
	const uint32_t k_step = steps ? steps[0] : step_of(geo, keys, &head);
	const uint32_t v_step = steps ? steps[1] : step_of(geo, values, &head);
	uint8_t *const classes = out + 2 * STEP_BYTES, *const stream = out + head_bytes(geo);
	struct rans_encoder e;

	put_le16(out, steps_half(k_step));
	put_le16(out + STEP_BYTES, steps_half(v_step));
	rans_encoder_begin(&e, stream, entropy_bound(geo) - head_bytes(geo));
	encode_half(geo, values, v_step, &head, &e, classes, kv_channels(geo));
	encode_half(geo, keys, k_step, &head, &e, classes, 0);
	return head_bytes(geo) + rans_encoder_end(&e);
}

static int decode_half(const struct kv_geometry *geo, uint16_t *half, uint16_t step,
		       struct rans_decoder *d, const uint8_t *classes, size_t first)
{
	const size_t n = head_values(geo);
	const float scale = f16_to_f32(step) / 4;
	uint8_t own[RANS_MAX_COLUMNS];
	int16_t v[HEAD_VALUES];

	for (uint32_t h = 0; h < geo->n_head_kv; h++) {
		int rc;

		steps_get_classes(own, classes, first + (size_t)h * geo->head_dim, geo->head_dim);
		rc = rans_decode(d, v, own, geo->head_dim);
		if (rc)
			return rc;
		steps_restore(half + h * n, v, scale, n);
	}
	memset(half + geo->n_head_kv * n, 0,
	       kv_half_bytes(geo, KV_LEVEL_F16) - sizeof(*half) * geo->n_head_kv * n);
	return 0;
}

int entropy_decode(const struct kv_geometry *geo, const uint8_t *in, size_t size, uint8_t *out)
{
	const uint8_t *classes = in + 2 * STEP_BYTES;
	struct rans_decoder d;
	int rc;

	if (size < head_bytes(geo) || !steps_valid(get_le16(in)) ||
	    !steps_valid(get_le16(in + STEP_BYTES)))
		return -EBADMSG;
	rc = rans_decoder_begin(&d, in + head_bytes(geo), size - head_bytes(geo));
	if (!rc)
		rc = decode_half(geo, (uint16_t *)out, get_le16(in), &d, classes, 0);
	if (!rc)
		rc = decode_half(geo, (uint16_t *)(out + kv_half_bytes(geo, KV_LEVEL_F16)),
				 get_le16(in + STEP_BYTES), &d, classes, kv_channels(geo));
	return rc ? rc : rans_decoder_end(&d);
}
