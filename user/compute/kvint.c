// SPDX-License-Identifier: MIT
#include "compute/kvint.h"

#include "base/clones.h"
#include "compute/half.h"
#include "compute/kvint_vnni.h"

static bool without_integers;

void kvint_limit(bool no_integers)
{
	without_integers = no_integers;
}

bool kvint_fast(uint32_t d)
{
	return d >= 32 && d % 16 == 0 && !without_integers && kvint_has_vnni();
}

struct kvint_head kvint_head(const uint8_t *half, uint32_t n_head_kv, uint32_t head, uint32_t d,
			     enum kvq_bits bits)
{
	const uint8_t *scales = half + kvq_scales_offset(n_head_kv, d, bits);
	const size_t first = (size_t)head * KVQ_TOKENS;

	return (struct kvint_head){
		.quants = half + first * kvq_row_bytes(d, bits),
		.scales = (const uint16_t *)(const void *)scales + first * kvq_groups(d),
		.d = d,
		.bits = bits,
	};
}

/* One row of a head to every stride-th float of out. */
INLINE void row(float *out, size_t stride, const uint8_t *q, const uint16_t *scales, uint32_t d,
		enum kvq_bits bits)
{
	for (uint32_t g = 0; g * KVQ_GROUP < d; g++) {
		const uint32_t left = d - g * KVQ_GROUP, n = left < KVQ_GROUP ? left : KVQ_GROUP;
		const uint32_t half = (n + 1) / 2;
		const float scale = half_to_float(scales[g]);

		if (bits == KVQ_Q8) {
			for (uint32_t i = 0; i < n; i++)
				out[i * stride] = scale * (float)(int8_t)q[i];
			q += n;
		} else {
			for (uint32_t i = 0; i < half; i++)
				out[i * stride] = scale * (float)((q[i] & 15) - 8);
			for (uint32_t i = half; i < n; i++)
				out[i * stride] = scale * (float)((q[i - half] >> 4) - 8);
			q += half;
		}
		out += n * stride;
	}
}

CLONES void kvint_rows(float *out, size_t ld, const struct kvint_head *h, uint32_t n)
{
	const size_t bytes = kvq_row_bytes(h->d, h->bits), groups = kvq_groups(h->d);

	for (uint32_t j = 0; j < n; j++)
		row(out + j * ld, 1, h->quants + j * bytes, h->scales + j * groups, h->d, h->bits);
}

CLONES void kvint_turned(float *out, size_t ld, const struct kvint_head *h, uint32_t n)
{
	const size_t bytes = kvq_row_bytes(h->d, h->bits), groups = kvq_groups(h->d);

	for (uint32_t j = 0; j < n; j++)
		row(out + j, ld, h->quants + j * bytes, h->scales + j * groups, h->d, h->bits);
}
