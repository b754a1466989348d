// SPDX-License-Identifier: MIT
#include "kv/geometry.h"

#include "codec/kvq.h"
#include "lslm/page.h"

static int check_field(const char *name, uint32_t value, uint32_t max, struct lslm_error *err)
{
	if (value >= 1 && value <= max)
		return 0;
	return error_set(err, -EINVAL, "geometry: %s is %u, must be 1 to %u", name, value, max);
}

int kv_geometry_check(const struct kv_geometry *geo, struct lslm_error *err)
{
	size_t half, all;
	int ret;

	ret = check_field("number of layers", geo->n_layer, KV_MAX_LAYERS, err);
	if (ret == 0)
		ret = check_field("number of KV heads", geo->n_head_kv, KV_MAX_HEADS, err);
	if (ret == 0)
		ret = check_field("head size", geo->head_dim, KV_MAX_HEAD_DIM, err);
	if (ret < 0)
		return ret;

	/*
	 * Within these limits a stripe is at most 2^38 bytes and a context 2^56, so this
	 * can only fail where size_t has 32 bits. The padding of a half is below KV_ALIGN.
	 */
	if (__builtin_mul_overflow((size_t)geo->n_head_kv * geo->head_dim,
				   sizeof(uint16_t) * KV_BLOCK_TOKENS, &half) ||
	    __builtin_add_overflow(half, KV_ALIGN, &half) ||
	    __builtin_mul_overflow(half, (size_t)2 * geo->n_layer, &all) ||
	    __builtin_mul_overflow(all, KV_MAX_TOKENS / KV_BLOCK_TOKENS, &all))
		return error_set(err, -EINVAL,
				 "geometry: %u layers of %u heads of %u are too large for this "
				 "machine's addresses",
				 geo->n_layer, geo->n_head_kv, geo->head_dim);
	return 0;
}

const char *kv_level_name(uint32_t level)
{
	return level == KV_LEVEL_F16 ? "f16" : NULL;
}

size_t kv_half_bytes(const struct kv_geometry *geo, enum kv_level level)
{
	size_t values = (size_t)geo->n_head_kv * KV_BLOCK_TOKENS * geo->head_dim;

	switch (level) {
	case KV_LEVEL_Q8:
		return kvq_half_bytes(geo->n_head_kv, geo->head_dim, KVQ_Q8);
	case KV_LEVEL_Q4:
		return kvq_half_bytes(geo->n_head_kv, geo->head_dim, KVQ_Q4);
	default: /* the others are decoded to f16 */
		return lslm_round_up(values * sizeof(uint16_t), KV_ALIGN);
	}
}

size_t kv_block_bytes(const struct kv_geometry *geo, enum kv_level level)
{
	return 2 * kv_half_bytes(geo, level);
}

size_t kv_stripe_bytes(const struct kv_geometry *geo, enum kv_level level)
{
	return kv_block_bytes(geo, level) * geo->n_layer;
}
