// SPDX-License-Identifier: MIT
#include "model/gguf.h"

static const struct shape {
	const char *name;
	unsigned short block, bytes;
} shapes[] = {
	[GGUF_F32] = { "F32", 1, 4 },	    [GGUF_F16] = { "F16", 1, 2 },
	[GGUF_Q4_0] = { "Q4_0", 32, 18 },   [GGUF_Q4_1] = { "Q4_1", 32, 20 },
	[GGUF_Q5_0] = { "Q5_0", 32, 22 },   [GGUF_Q5_1] = { "Q5_1", 32, 24 },
	[GGUF_Q8_0] = { "Q8_0", 32, 34 },   [GGUF_Q4_K] = { "Q4_K", 256, 144 },
	[GGUF_Q5_K] = { "Q5_K", 256, 176 }, [GGUF_Q6_K] = { "Q6_K", 256, 210 },
	[GGUF_BF16] = { "BF16", 1, 2 },
};

static const struct shape *find(enum gguf_type type)
{
	static const struct shape none;

	if ((unsigned int)type >= sizeof(shapes) / sizeof(shapes[0]))
		return &none;
	return &shapes[type];
}

const char *gguf_type_name(enum gguf_type type)
{
	return find(type)->name;
}

unsigned int gguf_type_block(enum gguf_type type)
{
	return find(type)->block;
}

size_t gguf_type_block_bytes(enum gguf_type type)
{
	return find(type)->bytes;
}

size_t gguf_row_bytes(enum gguf_type type, uint64_t n)
{
	const struct shape *s = find(type);

	return s->block ? (size_t)(n / s->block * s->bytes) : 0;
}
