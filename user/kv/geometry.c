// SPDX-License-Identifier: MIT
#include "kv/geometry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "compute/kvq.h"
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
	if (ret == 0 && (geo->hidden > KV_MAX_HIDDEN || geo->hidden % KV_HIDDEN_ALIGN))
		ret = error_set(err, -EINVAL,
				"geometry: hidden state is %u, must be a multiple of %d up to %d",
				geo->hidden, KV_HIDDEN_ALIGN, KV_MAX_HIDDEN);
	if (ret < 0)
		return ret;

	/*
	 * Within these limits a stripe is at most 2^39 bytes and a context 2^57, so this
	 * can only fail where size_t has 32 bits. No level takes more than 4 bytes for a value (q8
	 * with heads of 1 takes 3). The padding of a half is below KV_ALIGN.
	 */
	if (__builtin_mul_overflow(kv_channels(geo), (size_t)4 * KV_BLOCK_TOKENS, &half) ||
	    __builtin_add_overflow(half, KV_ALIGN, &half) ||
	    __builtin_mul_overflow(half, (size_t)2 * geo->n_layer, &all) ||
	    __builtin_add_overflow(all, (size_t)2 * KV_BLOCK_TOKENS * geo->hidden, &all) ||
	    __builtin_mul_overflow(all, KV_MAX_TOKENS / KV_BLOCK_TOKENS, &all))
		return error_set(err, -EINVAL,
				 "geometry: %u layers of %u heads of %u are too large for this "
				 "machine's addresses",
				 geo->n_layer, geo->n_head_kv, geo->head_dim);
	return 0;
}

static const char *const names[KV_LEVELS] = {
	[KV_LEVEL_F16] = "f16", [KV_LEVEL_Q8] = "q8", [KV_LEVEL_Q4] = "q4",
	[KV_LEVEL_E] = "e",	[KV_LEVEL_P] = "p",
};

const char *kv_level_name(uint32_t level)
{
	return level < KV_LEVELS ? names[level] : NULL;
}

int kv_level_parse(const char *name)
{
	for (int i = 0; i < KV_LEVELS; i++)
		if (!strcmp(names[i], name))
			return i;
	return -EINVAL;
}

int kv_levels_parse(const char *list, uint32_t *bits, struct lslm_error *err)
{
	char name[8];
	int level;

	*bits = 0;
	do {
		const size_t n = strcspn(list, ",");

		snprintf(name, sizeof(name), "%.*s", (int)(n < sizeof(name) ? n : 0), list);
		level = kv_level_parse(name);
		if (level < 0)
			return error_set(err, -EINVAL,
					 "'%.*s' is no level; there are f16, q8, q4, e and p, "
					 "with commas between them",
					 (int)(n < 64 ? n : 64), list);
		*bits |= 1u << level;
		list += n;
	} while (*list++);
	return 0;
}

enum kv_level kv_level_in_memory(enum kv_level level)
{
	return kv_level_is_plain(level) ? level : KV_LEVEL_F16;
}

bool kv_level_is_plain(enum kv_level level)
{
	return level != KV_LEVEL_E && level != KV_LEVEL_P;
}

uint32_t kv_level_units(const struct kv_geometry *geo, enum kv_level level)
{
	return level == KV_LEVEL_P ? 1 : geo->n_layer;
}

size_t kv_channels(const struct kv_geometry *geo)
{
	return (size_t)geo->n_head_kv * geo->head_dim;
}

size_t kv_half_bytes(const struct kv_geometry *geo, enum kv_level level)
{
	switch (level) {
	case KV_LEVEL_Q8:
		return kvq_half_bytes(geo->n_head_kv, geo->head_dim, KVQ_Q8);
	case KV_LEVEL_Q4:
		return kvq_half_bytes(geo->n_head_kv, geo->head_dim, KVQ_Q4);
	default:
		return lslm_round_up(kv_channels(geo) * KV_BLOCK_TOKENS * sizeof(uint16_t),
				     KV_ALIGN);
	}
}

size_t kv_block_bytes(const struct kv_geometry *geo, enum kv_level level)
{
	return 2 * kv_half_bytes(geo, level);
}

bool kv_is_hidden(const struct kv_geometry *geo, uint32_t block)
{
	return geo->hidden && !block;
}

static size_t hidden_bytes(const struct kv_geometry *geo, enum kv_level level)
{
	if (level == KV_LEVEL_Q8 || level == KV_LEVEL_Q4)
		return kvq_half_bytes(geo->hidden / KV_HIDDEN_ALIGN, KV_HIDDEN_ALIGN, KVQ_Q8);
	return (size_t)geo->hidden * KV_BLOCK_TOKENS * sizeof(uint16_t);
}

size_t kv_unit_bytes(const struct kv_geometry *geo, enum kv_level level, uint32_t block)
{
	return kv_is_hidden(geo, block) ? hidden_bytes(geo, level) : kv_block_bytes(geo, level);
}

size_t kv_unit_offset(const struct kv_geometry *geo, enum kv_level level, uint32_t block)
{
	if (!geo->hidden || !block)
		return block * kv_block_bytes(geo, level);
	return hidden_bytes(geo, level) + (block - 1) * kv_block_bytes(geo, level);
}

size_t kv_stripe_bytes(const struct kv_geometry *geo, enum kv_level level)
{
	return kv_unit_offset(geo, level, geo->n_layer);
}
