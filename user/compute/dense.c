// SPDX-License-Identifier: MIT
#include "compute/dense.h"

#include "base/clones.h"
#include "compute/half.h"
#include "compute/quant.h"

enum {
	W_ROWS = 4, /* rows of weights */
	X_ROWS = 4, /* rows of activations that meet them at a time */
};

static bool without_avx512;

void dense_limit(bool no_avx512)
{
	without_avx512 = no_avx512;
}

static void put(const struct dense *d, uint32_t i, uint32_t o, float sum)
{
	float *y = d->y + i * d->stride + o;

	*y = (d->add ? *y : 0) + sum;
}

/* --- anywhere: each row of weights becomes floats once --- */

CLONES_FAST static void dots(float sum[X_ROWS], const float *w, const float *const x[X_ROWS],
			     uint32_t n)
{
	float a = 0, b = 0, c = 0, e = 0;

	for (uint32_t k = 0; k < n; k++) {
		a += w[k] * x[0][k];
		b += w[k] * x[1][k];
		c += w[k] * x[2][k];
		e += w[k] * x[3][k];
	}
	sum[0] = a;
	sum[1] = b;
	sum[2] = c;
	sum[3] = e;
}

static void multiply_plain(const struct dense *d, float *scratch)
{
	const size_t row = gguf_row_bytes(d->type, d->n_in);

	for (uint32_t o = 0; o < d->n; o++) {
		const void *w = (const char *)d->w + o * row;

		if (d->m == 1) {
			put(d, 0, o, quant_dot(d->type, w, d->x, d->n_in));
			continue;
		}
		quant_dequantize(d->type, w, scratch, d->n_in);
		for (uint32_t i = 0; i < d->m; i += X_ROWS) {
			const float *x[X_ROWS];
			float sum[X_ROWS];

			for (uint32_t r = 0; r < X_ROWS; r++) /* the last one again, if need be */
				x[r] = d->x + (size_t)(i + r < d->m ? i + r : d->m - 1) * d->n_in;
			dots(sum, scratch, x, d->n_in);
			for (uint32_t r = 0; r < X_ROWS && i + r < d->m; r++)
				put(d, i + r, o, sum[r]);
		}
	}
}

CLONES void dense_round(uint16_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const uint32_t bits = bits_of(src[i]);
		const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
		const uint32_t nan = bits >> 16 | 0x40; /* rounding could carry it to infinity */

		dst[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
	}
}

#ifdef __x86_64__
#include <immintrin.h>

#define AVX512	      __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c,fma")))
#define AVX512_INLINE static inline __attribute__((always_inline)) AVX512
#define BF16	      __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define BF16_INLINE   static inline __attribute__((always_inline)) BF16

/* Bytes that weights for one or two rows are asked for ahead, see gemm_vnni.c. */
enum { FAR = 65536 };

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
	       !without_avx512;
}

bool dense_has_bf16(void)
{
	return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* 16 weights at p as floats; those that the mask leaves out are 0 and not touched. */
AVX512_INLINE __m512 weights(enum gguf_type type, const uint8_t *p, __mmask16 mask)
{
	if (type == GGUF_F32)
		return _mm512_maskz_loadu_ps(mask, p);
	if (type == GGUF_F16)
		return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
	return _mm512_castsi512_ps(
		_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}

AVX512_INLINE void step(enum gguf_type type, int rows, int m, const uint8_t *const *w,
			const float *const *x, uint32_t k, __mmask16 mask, __m512 *sum)
{
	const size_t size = type == GGUF_F32 ? 4 : 2;
	__m512 wk[W_ROWS];

#pragma GCC unroll 4
	for (int r = 0; r < rows; r++) {
		wk[r] = weights(type, w[r] + k * size, mask);
		if (m <= 2 && k % (64 / size) == 0)
			_mm_prefetch(w[r] + k * size + FAR, _MM_HINT_T1);
	}
#pragma GCC unroll 4
	for (int i = 0; i < m; i++) {
		const __m512 xk = _mm512_maskz_loadu_ps(mask, x[i] + k);

#pragma GCC unroll 4
		for (int r = 0; r < rows; r++)
			sum[r * X_ROWS + i] = _mm512_fmadd_ps(wk[r], xk, sum[r * X_ROWS + i]);
	}
}

/* Outputs o .. o + rows, rows i .. i + m; both counts are constants. */
AVX512_INLINE void tile(enum gguf_type type, int rows, int m, const struct dense *d, uint32_t o,
			uint32_t i)
{
	const size_t row = gguf_row_bytes(type, d->n_in);
	const uint32_t whole = d->n_in & ~15u;
	__m512 sum[W_ROWS * X_ROWS];
	const uint8_t *w[W_ROWS];
	const float *x[X_ROWS];

#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		w[r] = (const uint8_t *)d->w + (o + (size_t)r) * row;
#pragma GCC unroll 4
	for (int r = 0; r < m; r++)
		x[r] = d->x + (i + (size_t)r) * d->n_in;
#pragma GCC unroll 16
	for (int s = 0; s < W_ROWS * X_ROWS; s++)
		sum[s] = _mm512_setzero_ps();
	for (uint32_t k = 0; k < whole; k += 16)
		step(type, rows, m, w, x, k, 0xffff, sum);
	if (whole < d->n_in)
		step(type, rows, m, w, x, whole, (__mmask16)((1u << (d->n_in - whole)) - 1), sum);
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (int s = 0; s < m; s++)
			put(d, i + (uint32_t)s, o + (uint32_t)r,
			    _mm512_reduce_add_ps(sum[r * X_ROWS + s]));
}

BF16_INLINE void bf16_step(int rows, int m, const uint16_t *const *w, const uint16_t *const *x,
			   uint32_t k, __mmask32 mask, __m512 *sum)
{
	__m512bh wk[W_ROWS];

#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		wk[r] = (__m512bh)_mm512_maskz_loadu_epi16(mask, w[r] + k);
#pragma GCC unroll 4
	for (int i = 0; i < m; i++) {
		const __m512bh xk = (__m512bh)_mm512_maskz_loadu_epi16(mask, x[i] + k);

#pragma GCC unroll 4
		for (int r = 0; r < rows; r++)
			sum[r * X_ROWS + i] = _mm512_dpbf16_ps(sum[r * X_ROWS + i], wk[r], xk);
	}
}

BF16_INLINE void bf16_tile(int rows, int m, const struct dense *d, uint32_t o, uint32_t i)
{
	const uint32_t whole = d->n_in & ~31u;
	__m512 sum[W_ROWS * X_ROWS];
	const uint16_t *w[W_ROWS], *x[X_ROWS];

#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		w[r] = (const uint16_t *)d->w + (o + (size_t)r) * d->n_in;
#pragma GCC unroll 4
	for (int r = 0; r < m; r++)
		x[r] = d->rounded + (i + (size_t)r) * d->n_in;
#pragma GCC unroll 16
	for (int s = 0; s < W_ROWS * X_ROWS; s++)
		sum[s] = _mm512_setzero_ps();
	for (uint32_t k = 0; k < whole; k += 32)
		bf16_step(rows, m, w, x, k, 0xffffffff, sum);
	if (whole < d->n_in)
		bf16_step(rows, m, w, x, whole, (1u << (d->n_in - whole)) - 1, sum);
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (int s = 0; s < m; s++)
			put(d, i + (uint32_t)s, o + (uint32_t)r,
			    _mm512_reduce_add_ps(sum[r * X_ROWS + s]));
}

/* All rows of x against outputs o .. o + rows: the weights stay in the first-level cache. */
#define COLUMNS(rows, TILE)                             \
	do {                                            \
		uint32_t i = 0;                         \
                                                        \
		for (; i + X_ROWS <= d->m; i += X_ROWS) \
			TILE(rows, 4);                  \
		if (d->m - i == 3)                      \
			TILE(rows, 3);                  \
		else if (d->m - i == 2)                 \
			TILE(rows, 2);                  \
		else if (d->m - i == 1)                 \
			TILE(rows, 1);                  \
	} while (0)

#define FLOAT_TILES(attribute, name, TILE)                \
	attribute static void name(const struct dense *d) \
	{                                                 \
		uint32_t o = 0;                           \
                                                          \
		for (; o + W_ROWS <= d->n; o += W_ROWS)   \
			COLUMNS(4, TILE);                 \
		for (; o < d->n; o++)                     \
			COLUMNS(1, TILE);                 \
	}

#define F32_TILE(rows, m)  tile(GGUF_F32, rows, m, d, o, i)
#define F16_TILE(rows, m)  tile(GGUF_F16, rows, m, d, o, i)
#define BF16_TILE(rows, m) tile(GGUF_BF16, rows, m, d, o, i)
#define BOTH_TILE(rows, m) bf16_tile(rows, m, d, o, i)

FLOAT_TILES(AVX512, multiply_f32, F32_TILE)
FLOAT_TILES(AVX512, multiply_f16, F16_TILE)
FLOAT_TILES(AVX512, multiply_bf16, BF16_TILE)
FLOAT_TILES(BF16, multiply_rounded, BOTH_TILE)

static void multiply_avx512(const struct dense *d)
{
	if (d->rounded)
		multiply_rounded(d);
	else if (d->type == GGUF_F32)
		multiply_f32(d);
	else if (d->type == GGUF_F16)
		multiply_f16(d);
	else
		multiply_bf16(d);
}
#else
static bool has_avx512(void)
{
	return false;
}

static void multiply_avx512(const struct dense *d)
{
}

bool dense_has_bf16(void)
{
	return false;
}
#endif

void dense_multiply(const struct dense *d, float *scratch)
{
	if (has_avx512() && gguf_type_block(d->type) == 1)
		multiply_avx512(d);
	else
		multiply_plain(d, scratch);
}
