// SPDX-License-Identifier: MIT
/*
 * Weight formats against a second reading of their definition: one element at a
 * time, in double precision, from the bytes. Where the two agree on random blocks
 * to the last bit, every shift, mask and group boundary is where it belongs.
 */
#include "unit/unit.h"

#include <math.h>

#include "compute/quant.h"
#include "unit/random.h"

/* --- half precision, by the definition in IEEE 754 --- */

static double half_value(unsigned int h)
{
	const double sign = h >> 15 ? -1 : 1;
	const int exponent = h >> 10 & 31, mantissa = h & 1023;

	if (exponent == 31)
		return mantissa ? NAN : sign * INFINITY;
	return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

static void f16_to_f32__every_half(void **state)
{
	for (unsigned int i = 0; i < 65536; i++) {
		const double want = half_value(i);
		const float got = f16_to_f32((uint16_t)i);

		if (isnan(want)) {
			assert_true(isnan(got));
			continue;
		}
		assert_true(got == want && !signbit(got) == !signbit(want));
		assert_int_equal(f32_to_f16(got), i);
	}
}

/* Whole rows take another path for most of their length: all halves, at every length below 40. */
static void f16_rows__agree_with_single_numbers(void **state)
{
	uint16_t h[41], back[41];
	float f[41];

	for (unsigned int start = 0; start < 65536; start += 32)
		for (unsigned int n = start ? 32 : 0; n <= (start ? 32u : 40u); n++) {
			for (unsigned int i = 0; i < n; i++)
				h[i] = (uint16_t)(start + i);
			back[n] = 12345;
			f[n] = 12345;
			f16_row_to_f32(h, f, n);
			f32_row_to_f16(f, back, n);
			assert_true(back[n] == 12345 && f[n] == 12345);
			for (unsigned int i = 0; i < n; i++) {
				const float want = f16_to_f32(h[i]);

				if (isnan(want))
					assert_true(isnan(f[i]) && isnan(f16_to_f32(back[i])));
				else
					assert_true(f[i] == want && back[i] == h[i]);
			}
		}
}

/* Between two neighbouring halves: at a quarter, the middle (to even) and three quarters. */
static void f32_to_f16__rounds_to_nearest_even(void **state)
{
	for (unsigned int i = 0; i < 0x7bff; i++) {
		const float low = (float)half_value(i), high = (float)half_value(i + 1);
		const float middle = (low + high) / 2; /* exact: a float has 13 more bits */
		const float row[] = { middle,
				      nextafterf(middle, 0),
				      nextafterf(middle, INFINITY),
				      -middle,
				      low + (high - low) / 4,
				      low,
				      high,
				      -high,
				      middle };
		uint16_t out[ARRAY_LEN(row)]; /* eight in one go and one left over */

		assert_int_equal(f32_to_f16(middle), i + (i & 1));
		assert_int_equal(f32_to_f16(nextafterf(middle, 0)), i);
		assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), i + 1);
		assert_int_equal(f32_to_f16(-middle), 0x8000 | (i + (i & 1)));
		f32_row_to_f16(row, out, ARRAY_LEN(row));
		for (size_t j = 0; j < ARRAY_LEN(row); j++)
			assert_int_equal(out[j], f32_to_f16(row[j]));
	}
}

static void f32_to_f16__ends_of_the_range(void **state)
{
	static const struct {
		float f;
		uint16_t h;
	} cases[] = {
		{ 0.0f, 0 },
		{ -0.0f, 0x8000 },
		{ 65504.0f, 0x7bff },
		{ 65519.996f, 0x7bff },
		{ 65520.0f, 0x7c00 }, /* the middle to what would be 65536 */
		{ 65536.0f, 0x7c00 },
		{ 3e38f, 0x7c00 },
		{ -3e38f, 0xfc00 },
		{ INFINITY, 0x7c00 },
		{ -INFINITY, 0xfc00 },
		{ 0x1p-14f, 0x0400 },
		{ 0x1p-24f, 1 },
		{ 0x1p-25f, 0 }, /* a tie with 0, which is even */
		{ 0x1.000002p-25f, 1 },
		{ 1e-45f, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(f32_to_f16(cases[i].f), cases[i].h);
	assert_true(isnan(f16_to_f32(f32_to_f16(NAN))));
}

static void f32_to_bf16__rounds_to_nearest_even(void **state)
{
	static const struct {
		float f;
		uint16_t h;
	} cases[] = {
		{ 0.0f, 0 },
		{ -1.0f, 0xbf80 },
		{ 0x1.01p0f, 0x3f80 }, /* ties go to even, here down */
		{ 0x1.03p0f, 0x3f82 }, /* and here up */
		{ 0x1.010002p0f, 0x3f81 },
		{ 0x1.00fffep0f, 0x3f80 },
		{ 3.4e38f, 0x7f80 },
		{ INFINITY, 0x7f80 },
		{ 1e-45f, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(f32_to_bf16(cases[i].f), cases[i].h);
	assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
	assert_true(bf16_to_f32(0x3f80) == 1 && bf16_to_f32(0xc000) == -2);
	for (unsigned int i = 0; i < 0x7f80; i++)
		assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)i)), i);
}

/* --- blocks --- */

static unsigned int bits(unsigned int value, int from, int n)
{
	return value >> from & ((1u << n) - 1);
}

static double half_at(const uint8_t *p)
{
	return half_value(p[0] | (unsigned int)p[1] << 8);
}

static double q8_0(const uint8_t *b, int i)
{
	return half_at(b) * (int8_t)b[2 + i];
}

static unsigned int nibble(const uint8_t *q, int i)
{
	return bits(q[i % 16], i / 16 * 4, 4);
}

static double q4_0(const uint8_t *b, int i)
{
	return half_at(b) * ((int)nibble(b + 2, i) - 8);
}

static double q4_1(const uint8_t *b, int i)
{
	return half_at(b) * nibble(b + 4, i) + half_at(b + 2);
}

static double q5_0(const uint8_t *b, int i)
{
	return half_at(b) * ((int)(nibble(b + 6, i) + 16 * bits(b[2 + i / 8], i % 8, 1)) - 16);
}

static double q5_1(const uint8_t *b, int i)
{
	return half_at(b) * (nibble(b + 8, i) + 16 * bits(b[4 + i / 8], i % 8, 1)) + half_at(b + 2);
}

/* Group g's scale (which = 0) or minimum (1) in the 12 bytes at s. */
static unsigned int packed(const uint8_t *s, int g, int which)
{
	if (g < 4)
		return bits(s[g + 4 * which], 0, 6);
	return bits(s[g + 4], 4 * which, 4) + 16 * bits(s[g - 4 + 4 * which], 6, 2);
}

static double q4_k(const uint8_t *b, int i)
{
	const int g = i / 32;
	const unsigned int q = bits(b[16 + g / 2 * 32 + i % 32], g % 2 * 4, 4);

	return half_at(b) * packed(b + 4, g, 0) * q - half_at(b + 2) * packed(b + 4, g, 1);
}

static double q5_k(const uint8_t *b, int i)
{
	const int g = i / 32;
	const unsigned int q =
		bits(b[48 + g / 2 * 32 + i % 32], g % 2 * 4, 4) + 16 * bits(b[16 + i % 32], g, 1);

	return half_at(b) * packed(b + 4, g, 0) * q - half_at(b + 2) * packed(b + 4, g, 1);
}

static double q6_k(const uint8_t *b, int i)
{
	const int half = i / 128, g = i % 128 / 32, j = i % 32;
	const unsigned int low = bits(b[half * 64 + g % 2 * 32 + j], g / 2 * 4, 4);
	const unsigned int high = bits(b[128 + half * 32 + j], g * 2, 2);

	return half_at(b + 208) * (int8_t)b[192 + i / 16] * ((int)(low + 16 * high) - 32);
}

static double f32(const uint8_t *b, int i)
{
	float f;

	memcpy(&f, b + 4 * i, sizeof(f));
	return f;
}

static double f16(const uint8_t *b, int i)
{
	return half_at(b + 2 * i);
}

static double bf16(const uint8_t *b, int i)
{
	const uint32_t u = (uint32_t)b[2 * i] << 16 | (uint32_t)b[2 * i + 1] << 24;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

/* halves: where in a block half-precision numbers stand, to keep them finite; -1 ends. */
static const struct format {
	enum gguf_type type;
	double (*value)(const uint8_t *block, int i);
	int halves[3];
} formats[] = {
	{ GGUF_F32, f32, { -1 } },	   { GGUF_F16, f16, { 0, -1 } },
	{ GGUF_BF16, bf16, { -1 } },	   { GGUF_Q8_0, q8_0, { 0, -1 } },
	{ GGUF_Q4_0, q4_0, { 0, -1 } },	   { GGUF_Q4_1, q4_1, { 0, 2, -1 } },
	{ GGUF_Q5_0, q5_0, { 0, -1 } },	   { GGUF_Q5_1, q5_1, { 0, 2, -1 } },
	{ GGUF_Q4_K, q4_k, { 0, 2, -1 } }, { GGUF_Q5_K, q5_k, { 0, 2, -1 } },
	{ GGUF_Q6_K, q6_k, { 208, -1 } },
};

enum { MAX_N = 1024, MAX_BYTES = MAX_N * 4 };

/* n elements of random bytes, every number in them finite and of moderate size. */
static void fill(const struct format *f, uint8_t *w, size_t n)
{
	const size_t step = gguf_type_block_bytes(f->type);

	for (size_t i = 0; i < gguf_row_bytes(f->type, n); i++)
		w[i] = (uint8_t)rnd();
	for (size_t at = 0; at < gguf_row_bytes(f->type, n); at += step)
		for (const int *h = f->halves; *h >= 0; h++)
			w[at + (size_t)*h + 1] &= 0xbf; /* below 2 */
	if (f->type == GGUF_F32 || f->type == GGUF_BF16)
		for (size_t at = step - 1; at < n * step; at += step)
			w[at] = 0x3f | (w[at] & 0x80); /* 0.5 to 2 */
}

static void quant_dequantize__means_what_the_format_says(void **state)
{
	static _Alignas(64) uint8_t w[MAX_BYTES];
	float y[MAX_N + 1];

	for (size_t k = 0; k < ARRAY_LEN(formats); k++) {
		const struct format *f = &formats[k];
		const unsigned int block = gguf_type_block(f->type);

		for (size_t n = block; n <= MAX_N; n += block > 1 ? block : 37) {
			fill(f, w, n);
			y[n] = 12345;
			quant_dequantize(f->type, w, y, n);
			assert_true(y[n] == 12345);
			for (size_t i = 0; i < n; i++) {
				const uint8_t *b = w + i / block * gguf_type_block_bytes(f->type);
				const float want = (float)f->value(b, (int)(i % block));

				if (y[i] != want)
					fail_msg("%s, element %zu of %zu: %a, not %a",
						 gguf_type_name(f->type), i, n, y[i], want);
			}
		}
	}
}

static void quant_dot__sums_the_products(void **state)
{
	static _Alignas(64) uint8_t w[MAX_BYTES];
	float x[MAX_N], y[MAX_N];

	for (size_t k = 0; k < ARRAY_LEN(formats); k++) {
		const struct format *f = &formats[k];
		const unsigned int block = gguf_type_block(f->type);

		for (size_t n = block; n <= MAX_N; n += block) {
			double sum = 0, size = 0;

			fill(f, w, n);
			for (size_t i = 0; i < n; i++)
				x[i] = (float)(int)(rnd() % 2001 - 1000) / 512;
			quant_dequantize(f->type, w, y, n);
			for (size_t i = 0; i < n; i++) {
				sum += (double)y[i] * x[i];
				size += fabs((double)y[i] * x[i]);
			}
			if (fabs(quant_dot(f->type, w, x, n) - sum) > 1e-6 * size)
				fail_msg("%s of %zu: %g, not %g", gguf_type_name(f->type), n,
					 quant_dot(f->type, w, x, n), sum);
		}
	}
}

/* The largest scale times the largest values still has to be exact, not only finite. */
static void quant_dequantize__extremes(void **state)
{
	struct {
		uint16_t d;
		uint8_t rest[208];
	} b;
	_Alignas(4) uint8_t q6[210];
	float y[256];

	memset(&b, 0xff, sizeof(b));
	b.d = 0x7bff; /* 65504 */
	for (size_t i = 0; i < 32; i++)
		((int8_t *)b.rest)[i] = -128;
	quant_dequantize(GGUF_Q8_0, &b, y, 32);
	assert_true(y[0] == -128 * 65504.0f);
	memset(q6, 0, sizeof(q6));
	memset(q6 + 192, 0x80, 16); /* scales of -128, values of -32 */
	q6[208] = 0xff;
	q6[209] = 0x7b;
	quant_dequantize(GGUF_Q6_K, q6, y, 256);
	assert_true(y[0] == 4096 * 65504.0f && y[255] == y[0]);
	q6[209] = 0; /* a subnormal scale: 255 times 2^-24 */
	quant_dequantize(GGUF_Q6_K, q6, y, 256);
	assert_true(y[17] == 4096 * 255 * 0x1p-24f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(f16_to_f32__every_half),
		cmocka_unit_test(f16_rows__agree_with_single_numbers),
		cmocka_unit_test(f32_to_f16__rounds_to_nearest_even),
		cmocka_unit_test(f32_to_f16__ends_of_the_range),
		cmocka_unit_test(f32_to_bf16__rounds_to_nearest_even),
		cmocka_unit_test(quant_dequantize__means_what_the_format_says),
		cmocka_unit_test(quant_dot__sums_the_products),
		cmocka_unit_test(quant_dequantize__extremes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
