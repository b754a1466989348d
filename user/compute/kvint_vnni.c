// SPDX-License-Identifier: MIT
/*
 * Keys and values both become words of four unsigned bytes in 16 lanes: of keys, a lane is a token and a word four of its
 * dimensions; of values, a lane is a dimension and a word four tokens. They meet 16-bit integers as two planes of signed
 * bytes, high and low. Quants have an offset that makes them unsigned; it is taken off again
 * in one sum per plane pair. Sums are exact, so the order of operations does not matter before scales come in.
 */
#include "compute/kvint_vnni.h"

#include "compute/kvint.h"

#ifdef __x86_64__
#include <immintrin.h>

#define VNNI                                                                              \
	__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi," \
			      "avx512cd,fma")))
#define VNNI_INLINE static inline __attribute__((always_inline)) VNNI

enum {
	LINE = 64,
	LANES = 16,
	WORD = 4, /* bytes that a product takes per lane */
	RUN = 64, /* integers that are split at once */
	LARGEST = 127 * 256 + 127, /* whose high plane fits a signed byte */
};

/* A query as integers. Planes follow it, high and low, each of a multiple of RUN bytes. */
struct integers {
	float scale;
	int32_t offset[]; /* per group: what quants' offset adds to its sum, negative */
};

bool kvint_has_vnni(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}

static size_t rounded(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static size_t head_bytes(uint32_t d)
{
	return rounded(sizeof(struct integers) + kvq_groups(d) * sizeof(int32_t), LINE);
}

size_t kvint_query_floats(uint32_t d)
{
	return (head_bytes(d) + 2 * rounded(d, RUN)) / sizeof(float);
}

/* Words of a block; planes of four rows; scales, the largest and offsets, by group. */
size_t kvint_ready(uint32_t d)
{
	const size_t groups = kvq_groups(d);

	return (KVQ_TOKENS * rounded(d, KVQ_GROUP) + groups * 4 * 2 * KVQ_TOKENS) / sizeof(float) +
	       groups * (KVQ_TOKENS + 1 + 4);
}

static int32_t unsigned_by(enum kvq_bits bits)
{
	return bits == KVQ_Q8 ? 128 : 8;
}

/* RUN integers of 16 bits, in four registers, to their planes. */
VNNI_INLINE void split(uint8_t *high, uint8_t *low, const __m512i *x)
{
	const __m512i order =
		_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	const __m512i half = _mm512_set1_epi16(128);
	const __m512i a = _mm512_packs_epi32(x[0], x[1]), b = _mm512_packs_epi32(x[2], x[3]);
	const __m512i ah = _mm512_srai_epi16(_mm512_add_epi16(a, half), 8);
	const __m512i bh = _mm512_srai_epi16(_mm512_add_epi16(b, half), 8);
	const __m512i al = _mm512_sub_epi16(a, _mm512_slli_epi16(ah, 8));
	const __m512i bl = _mm512_sub_epi16(b, _mm512_slli_epi16(bh, 8));

	_mm512_storeu_si512(high, _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ah, bh)));
	_mm512_storeu_si512(low, _mm512_permutexvar_epi32(order, _mm512_packs_epi16(al, bl)));
}

VNNI void kvint_query(float *out, const float *q, uint32_t d, enum kvq_bits bits)
{
	struct integers *to = (struct integers *)(void *)out;
	uint8_t *high = (uint8_t *)out + head_bytes(d), *low = high + rounded(d, RUN);
	__m512 top = _mm512_setzero_ps();
	float max, inverse;

	for (uint32_t i = 0; i < d; i += LANES)
		top = _mm512_max_ps(top, _mm512_abs_ps(_mm512_loadu_ps(q + i)));
	max = _mm512_reduce_max_ps(top);
	to->scale = max / LARGEST;
	inverse = max > 0 ? LARGEST / max : 0;
	for (uint32_t i = 0; i < d; i += RUN) {
		__m512i x[4];

#pragma GCC unroll 4
		for (uint32_t k = 0; k < 4; k++) {
			const uint32_t at = i + k * LANES;

			x[k] = at < d ? _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(q + at),
									 _mm512_set1_ps(inverse))) :
					_mm512_setzero_si512();
		}
		for (uint32_t k = 0; k < 2 && i + k * KVQ_GROUP < d; k++)
			to->offset[i / KVQ_GROUP + k] =
				-unsigned_by(bits) *
				_mm512_reduce_add_epi32(_mm512_add_epi32(x[2 * k], x[2 * k + 1]));
		split(high + i, low + i, x);
	}
}

/* sum += words * the same four bytes in every lane. Left to itself, the compiler copies every sum. */
VNNI_INLINE __m512i multiply(__m512i sum, __m512i words, const uint8_t *bytes)
{
	__asm__("vpdpbusd %2%{1to16%}, %1, %0"
		: "+v"(sum)
		: "v"(words), "m"(*(const uint8_t(*)[WORD])bytes));
	return sum;
}

/*
 * Sums over n words for a constant number of rows: 256 * high + low + offset. Planes of a row are `stride` bytes
 * behind those of the one before, low planes `apart` behind high ones.
 */
VNNI_INLINE void dots(int rows, __m512i *sum, const uint8_t *words, const uint8_t *planes,
		      size_t stride, size_t apart, uint32_t n, const int32_t *offset)
{
	__m512i high[4], low[4];

#pragma GCC unroll 4
	for (int r = 0; r < rows; r++) {
		high[r] = _mm512_setzero_si512();
		low[r] = _mm512_set1_epi32(offset[r]);
	}
	for (uint32_t i = 0; i < n; i++) {
		const __m512i w = _mm512_loadu_si512(words + (size_t)i * LINE);

#pragma GCC unroll 4
		for (int r = 0; r < rows; r++) {
			const uint8_t *at = planes + (size_t)r * stride + (size_t)i * WORD;

			high[r] = multiply(high[r], w, at);
			low[r] = multiply(low[r], w, at + apart);
		}
	}
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		sum[r] = _mm512_add_epi32(_mm512_slli_epi32(high[r], 8), low[r]);
}

/* 16 bytes each of four rows. */
VNNI_INLINE __m512i four(const uint8_t *at, size_t apart)
{
	__m512i x = _mm512_castsi128_si512(_mm_loadu_si128((const void *)at));

	x = _mm512_inserti32x4(x, _mm_loadu_si128((const void *)(at + apart)), 1);
	x = _mm512_inserti32x4(x, _mm_loadu_si128((const void *)(at + 2 * apart)), 2);
	return _mm512_inserti32x4(x, _mm_loadu_si128((const void *)(at + 3 * apart)), 3);
}

VNNI static void ask_for(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += LINE)
		__builtin_prefetch(p + i, 0, 2);
}

/* --- keys --- */

/* Four words of 16 rows from 16 bytes of each: lanes are rows. */
VNNI_INLINE void turn_16(__m512i *out, const uint8_t *at, size_t row)
{
	__m512i a[4], b[4];

#pragma GCC unroll 4
	for (size_t t = 0; t < 4; t++)
		a[t] = four(at + t * row, 4 * row);
	b[0] = _mm512_unpacklo_epi32(a[0], a[1]);
	b[1] = _mm512_unpackhi_epi32(a[0], a[1]);
	b[2] = _mm512_unpacklo_epi32(a[2], a[3]);
	b[3] = _mm512_unpackhi_epi32(a[2], a[3]);
	out[0] = _mm512_unpacklo_epi64(b[0], b[2]);
	out[1] = _mm512_unpackhi_epi64(b[0], b[2]);
	out[2] = _mm512_unpacklo_epi64(b[1], b[3]);
	out[3] = _mm512_unpackhi_epi64(b[1], b[3]);
}

VNNI_INLINE void key_words_q8(uint8_t *words, const uint8_t *q, uint32_t d)
{
	for (uint32_t i = 0; i < d; i += LANES, words += 4 * LINE) {
		__m512i x[4];

		turn_16(x, q + i, d);
#pragma GCC unroll 4
		for (int k = 0; k < 4; k++)
			_mm512_storeu_si512(words + k * LINE,
					    _mm512_xor_si512(x[k], _mm512_set1_epi8(-128)));
	}
}

/*
 * Low halves of a group's bytes are its first values. A last group of 16 has eight bytes only; what is
 * read behind them is the next row, or the scales.
 */
VNNI_INLINE void key_words_q4(uint8_t *words, const uint8_t *q, uint32_t d, size_t row)
{
	const __m512i nibble = _mm512_set1_epi8(15);

	for (uint32_t i = 0; i < d; i += KVQ_GROUP, q += KVQ_GROUP / 2) {
		const int n = d - i < KVQ_GROUP ? 2 : 4;
		__m512i x[4];

		turn_16(x, q, row);
		for (int k = 0; k < n; k++, words += LINE) {
			_mm512_storeu_si512(words, _mm512_and_si512(x[k], nibble));
			_mm512_storeu_si512(words + n * LINE,
					    _mm512_and_si512(_mm512_srli_epi16(x[k], 4), nibble));
		}
		words += n * LINE;
	}
}

/* Scales of group g of 16 rows. */
VNNI_INLINE __m512 scales_16(const uint16_t *s, uint32_t groups, uint32_t g)
{
	const __m512i count = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15,
					       14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
	const __m512i at =
		_mm512_add_epi16(_mm512_mullo_epi16(count, _mm512_set1_epi16((short)groups)),
				 _mm512_set1_epi16((short)g));
	uint16_t x[LANES];

	if (groups <= 4) {
		const uint64_t there = ~(uint64_t)0 >> (64 - LANES * groups);
		const __m512i a = _mm512_maskz_loadu_epi16((__mmask32)there, s);
		const __m512i b = _mm512_maskz_loadu_epi16((__mmask32)(there >> 32), s + 32);

		return _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutex2var_epi16(a, at, b)));
	}
	for (uint32_t j = 0; j < LANES; j++)
		x[j] = s[j * groups + g];
	return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)x));
}

/* Scores of 16 keys for a constant number of rows. scales: of 16 keys, group after group. */
VNNI_INLINE void scores_16(int rows, float *p, const uint8_t *q, size_t q_bytes, uint32_t d,
			   const uint8_t *words, const float *scales)
{
	const uint32_t groups = kvq_groups(d);
	const size_t planes = head_bytes(d), apart = rounded(d, RUN);
	__m512 sum[4];

#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		sum[r] = _mm512_setzero_ps();
	for (uint32_t g = 0; g < groups; g++) {
		const uint32_t left = d - g * KVQ_GROUP, n = left < KVQ_GROUP ? left : KVQ_GROUP;
		const __m512 scale = _mm512_loadu_ps(scales + g * LANES);
		int32_t offset[4];
		__m512i x[4];

#pragma GCC unroll 4
		for (int r = 0; r < rows; r++)
			offset[r] = ((const struct integers *)(const void *)(q + r * q_bytes))
					    ->offset[g];
		dots(rows, x, words + (size_t)g * KVQ_GROUP / WORD * LINE,
		     q + planes + (size_t)g * KVQ_GROUP, q_bytes, apart, n / WORD, offset);
#pragma GCC unroll 4
		for (int r = 0; r < rows; r++)
			sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(x[r]), scale, sum[r]);
	}
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++) {
		const struct integers *of = (const void *)(q + r * q_bytes);

		_mm512_storeu_ps(p + r * KVQ_TOKENS,
				 _mm512_mul_ps(sum[r], _mm512_set1_ps(of->scale)));
	}
}

VNNI void kvint_scores(float *p, const float *queries, uint32_t rows, const struct kvint_head *k,
		       uint32_t n, float *ready, const struct kvint_head *next)
{
	const uint32_t d = k->d, groups = kvq_groups(d);
	const size_t row = kvq_row_bytes(d, k->bits);
	const size_t q_bytes = kvint_query_floats(d) * sizeof(float);
	uint8_t *words = (uint8_t *)ready;
	float *scales = ready + (size_t)d / WORD * LINE / sizeof(float);

	if (next)
		ask_for((const uint8_t *)next->scales, KVQ_TOKENS * groups * sizeof(uint16_t));
	for (uint32_t j = 0; j < n; j += LANES) {
		const uint8_t *q = (const uint8_t *)queries;
		uint32_t r = 0;

		if (next)
			ask_for(next->quants + j * row, LANES * row);
		if (k->bits == KVQ_Q8)
			key_words_q8(words, k->quants + j * row, d);
		else
			key_words_q4(words, k->quants + j * row, d, row);
		for (uint32_t g = 0; g < groups; g++)
			_mm512_storeu_ps(scales + g * LANES,
					 scales_16(k->scales + j * groups, groups, g));
		for (; r + 4 <= rows; r += 4, q += 4 * q_bytes)
			scores_16(4, p + r * KVQ_TOKENS + j, q, q_bytes, d, words, scales);
		if (rows - r == 3)
			scores_16(3, p + r * KVQ_TOKENS + j, q, q_bytes, d, words, scales);
		else if (rows - r == 2)
			scores_16(2, p + r * KVQ_TOKENS + j, q, q_bytes, d, words, scales);
		else if (rows - r == 1)
			scores_16(1, p + r * KVQ_TOKENS + j, q, q_bytes, d, words, scales);
	}
}

/* --- values --- */

#define WORD_OF(i) i, 16 + i, 32 + i, 48 + i

static const uint8_t to_words[LINE] = {
	WORD_OF(0),  WORD_OF(1),  WORD_OF(2),  WORD_OF(3),  WORD_OF(4),	 WORD_OF(5),
	WORD_OF(6),  WORD_OF(7),  WORD_OF(8),  WORD_OF(9),  WORD_OF(10), WORD_OF(11),
	WORD_OF(12), WORD_OF(13), WORD_OF(14), WORD_OF(15),
};

/* Of 16 dimensions each, for all tokens of a block. */
enum { COLUMN = KVQ_TOKENS / WORD * LINE };

VNNI_INLINE void value_words_q8(uint8_t *words, const uint8_t *q, uint32_t d)
{
	const __m512i order = _mm512_loadu_si512(to_words);

	for (uint32_t i = 0; i < d; i += LANES, words += COLUMN)
		_mm512_storeu_si512(words,
				    _mm512_xor_si512(_mm512_permutexvar_epi8(order, four(q + i, d)),
						     _mm512_set1_epi8(-128)));
}

/* As for keys, a last group of 16 has eight bytes. */
VNNI_INLINE void value_words_q4(uint8_t *words, const uint8_t *q, uint32_t d, size_t row)
{
	const __m512i order = _mm512_loadu_si512(to_words), nibble = _mm512_set1_epi8(15);

	for (uint32_t i = 0; i < d; i += KVQ_GROUP, q += KVQ_GROUP / 2, words += 2 * COLUMN) {
		const __m512i x = _mm512_permutexvar_epi8(order, four(q, row));
		const __m512i low = _mm512_and_si512(x, nibble);
		const __m512i high = _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble);

		if (d - i < KVQ_GROUP) {
			_mm512_storeu_si512(
				words, _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1));
			return;
		}
		_mm512_storeu_si512(words, low);
		_mm512_storeu_si512(words + COLUMN, high);
	}
}

/* Scales relative to the largest of each group; 0 behind n. scales: [groups][KVQ_TOKENS]. */
VNNI_INLINE void value_scales(float *scales, float *largest, const struct kvint_head *v, uint32_t n)
{
	const uint32_t groups = kvq_groups(v->d);
	const uint64_t mask = n < KVQ_TOKENS ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;

	for (uint32_t g = 0; g < groups; g++, scales += KVQ_TOKENS) {
		__m512 x[4], max;

#pragma GCC unroll 4
		for (uint32_t k = 0; k < 4; k++)
			x[k] = _mm512_maskz_mov_ps((__mmask16)(mask >> LANES * k),
						   scales_16(v->scales + (size_t)k * LANES * groups,
							     groups, g));
		max = _mm512_max_ps(_mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1])),
				    _mm512_max_ps(_mm512_abs_ps(x[2]), _mm512_abs_ps(x[3])));
		largest[g] = _mm512_reduce_max_ps(max);
		max = _mm512_set1_ps(largest[g] > 0 ? 1 / largest[g] : 0);
#pragma GCC unroll 4
		for (int k = 0; k < 4; k++)
			_mm512_storeu_ps(scales + k * LANES, _mm512_mul_ps(x[k], max));
	}
}

/* What a block's values have in common for all rows, in scratch. */
struct value_block {
	uint8_t *words, *planes; /* planes: [4][groups][2][KVQ_TOKENS] */
	float *scales, *largest; /* [groups][KVQ_TOKENS], [groups] */
	int32_t *offset; /* [groups][4] */
	int32_t unsigned_by;
	uint32_t d, groups, quads;
};

/* Weights of one row times scales, as integers. Returns what makes them weights times relative scales again. */
VNNI_INLINE float weights(const struct value_block *b, int r, const float *p)
{
	uint8_t *planes = b->planes + (size_t)r * b->groups * 2 * KVQ_TOKENS;
	__m512 x[4], factor;
	float max;

#pragma GCC unroll 4
	for (int k = 0; k < 4; k++)
		x[k] = _mm512_loadu_ps(p + k * LANES);
	max = _mm512_reduce_max_ps(
		_mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3])));
	factor = _mm512_set1_ps(max > 0 ? LARGEST / max : 0);
#pragma GCC unroll 4
	for (int k = 0; k < 4; k++)
		x[k] = _mm512_mul_ps(x[k], factor);
	for (uint32_t g = 0; g < b->groups; g++, planes += 2 * KVQ_TOKENS) {
		const float *scales = b->scales + g * KVQ_TOKENS;
		__m512i y[4];

#pragma GCC unroll 4
		for (int k = 0; k < 4; k++)
			y[k] = _mm512_cvtps_epi32(
				_mm512_mul_ps(x[k], _mm512_loadu_ps(scales + k * LANES)));
		split(planes, planes + KVQ_TOKENS, y);
		b->offset[4 * g + (uint32_t)r] =
			-b->unsigned_by *
			_mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_add_epi32(y[0], y[1]),
								 _mm512_add_epi32(y[2], y[3])));
	}
	return max / LARGEST;
}

VNNI_INLINE void values_rows(int rows, const struct value_block *b, float *acc, size_t width,
			     const float *p)
{
	float back[4];

#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		back[r] = weights(b, r, p + r * KVQ_TOKENS);
	for (uint32_t i = 0; i < b->d; i += LANES) {
		const uint32_t g = i / KVQ_GROUP;
		__m512i x[4];

		dots(rows, x, b->words + (size_t)i / LANES * COLUMN, b->planes + g * 2 * KVQ_TOKENS,
		     (size_t)b->groups * 2 * KVQ_TOKENS, KVQ_TOKENS, b->quads, b->offset + 4 * g);
#pragma GCC unroll 4
		for (int r = 0; r < rows; r++) {
			float *at = acc + (size_t)r * width + i;

			_mm512_storeu_ps(at,
					 _mm512_fmadd_ps(_mm512_cvtepi32_ps(x[r]),
							 _mm512_set1_ps(back[r] * b->largest[g]),
							 _mm512_loadu_ps(at)));
		}
	}
}

/* Words and scales of a block. */
VNNI static void value_block(struct value_block *b, const struct kvint_head *v, uint32_t n,
			     float *ready, const struct kvint_head *next)
{
	const size_t row = kvq_row_bytes(v->d, v->bits);

	b->d = v->d;
	b->groups = kvq_groups(v->d);
	b->quads = (n + WORD - 1) / WORD;
	b->unsigned_by = unsigned_by(v->bits);
	b->words = (uint8_t *)ready;
	b->planes = b->words + rounded(v->d, KVQ_GROUP) / LANES * COLUMN;
	b->scales = (float *)(void *)(b->planes + (size_t)4 * b->groups * 2 * KVQ_TOKENS);
	b->largest = b->scales + (size_t)b->groups * KVQ_TOKENS;
	b->offset = (int32_t *)(void *)(b->largest + b->groups);
	value_scales(b->scales, b->largest, v, n);
	if (next)
		ask_for((const uint8_t *)next->scales, KVQ_TOKENS * b->groups * sizeof(uint16_t));
	for (uint32_t k = 0; k < b->quads; k++) {
		const uint8_t *q = v->quants + (size_t)k * WORD * row;

		if (next)
			ask_for(next->quants + (size_t)k * WORD * row, WORD * row);
		if (v->bits == KVQ_Q8)
			value_words_q8(b->words + (size_t)k * LINE, q, v->d);
		else
			value_words_q4(b->words + (size_t)k * LINE, q, v->d, row);
	}
}

VNNI void kvint_values(float *acc, size_t width, const float *p, uint32_t rows,
		       const struct kvint_head *v, uint32_t n, float *ready,
		       const struct kvint_head *next)
{
	struct value_block b;

	value_block(&b, v, n, ready, next);
	for (; rows >= 4; rows -= 4, acc += 4 * width, p += 4 * KVQ_TOKENS)
		values_rows(4, &b, acc, width, p);
	if (rows == 3)
		values_rows(3, &b, acc, width, p);
	else if (rows == 2)
		values_rows(2, &b, acc, width, p);
	else if (rows == 1)
		values_rows(1, &b, acc, width, p);
}
#else
bool kvint_has_vnni(void)
{
	return false;
}

size_t kvint_ready(uint32_t d)
{
	return 0;
}

size_t kvint_query_floats(uint32_t d)
{
	return 0;
}

void kvint_query(float *out, const float *q, uint32_t d, enum kvq_bits bits)
{
}

void kvint_scores(float *p, const float *queries, uint32_t rows, const struct kvint_head *k,
		  uint32_t n, float *ready, const struct kvint_head *next)
{
}

void kvint_values(float *acc, size_t width, const float *p, uint32_t rows,
		  const struct kvint_head *v, uint32_t n, float *ready,
		  const struct kvint_head *next)
{
}
#endif
