// SPDX-License-Identifier: MIT
/* Products with float weights, with and without AVX-512 and bf16, against sums in double. */
#include "unit/unit.h"

#include <math.h>

#include "compute/dense.h"
#include "compute/quant.h"
#include "unit/random.h"

static const enum gguf_type types[] = { GGUF_F32, GGUF_F16, GGUF_BF16 };
/* The last element is the end of the memory, so that sanitizers see a step beyond. */
static void *make_weights(enum gguf_type type, float *values, size_t n)
{
	const size_t size = gguf_type_block_bytes(type);
	uint8_t *w = malloc(n * size);

	for (size_t i = 0; i < n; i++) {
		const float v = uniform(10000);
		const uint16_t h = type == GGUF_F16 ? f32_to_f16(v) : f32_to_bf16(v);

		memcpy(w + i * size, type == GGUF_F32 ? (const void *)&v : &h, size);
		quant_dequantize(type, w + i * size, values + i, 1);
	}
	return w;
}

static void check(enum gguf_type type, uint32_t n_in, uint32_t n, uint32_t m, bool add, int how)
{
	float *values = malloc(sizeof(float) * n * n_in), *x = malloc(sizeof(float) * m * n_in);
	void *w = make_weights(type, values, (size_t)n * n_in);
	uint16_t *rounded = malloc(2 * (size_t)m * n_in);
	float *y = malloc(sizeof(float) * m * (n + 1)), *scratch = malloc(sizeof(float) * n_in);
	struct dense d = { .type = type,
			   .w = w,
			   .x = x,
			   .n_in = n_in,
			   .n = n,
			   .m = m,
			   .add = add,
			   .y = y,
			   .stride = n + 1 };

	for (size_t i = 0; i < (size_t)m * n_in; i++)
		x[i] = uniform(10000);
	for (size_t i = 0; i < (size_t)m * (n + 1); i++)
		y[i] = 5;
	if (how == 2) {
		dense_round(rounded, x, (size_t)m * n_in);
		for (size_t i = 0; i < (size_t)m * n_in; i++) {
			assert_int_equal(rounded[i], f32_to_bf16(x[i]));
			x[i] = bf16_to_f32(rounded[i]);
		}
		d.rounded = rounded;
	}
	dense_limit(how == 1);
	dense_multiply(&d, scratch);
	dense_limit(false);
	for (uint32_t i = 0; i < m; i++) {
		assert_true(y[i * (n + 1) + n] == 5);
		for (uint32_t o = 0; o < n; o++) {
			double want = add ? 5 : 0;

			for (uint32_t k = 0; k < n_in; k++)
				want += (double)values[o * n_in + k] * x[i * n_in + k];
			if (!(fabs(y[i * (n + 1) + o] - want) < 1e-6 * n_in + 1e-6))
				fail_msg("%s, way %d, %u x %u, %u rows: [%u][%u] is %.9g, expected "
					 "%.9g",
					 gguf_type_name(type), how, n, n_in, m, i, o,
					 (double)y[i * (n + 1) + o], want);
		}
	}
	free(values);
	free(x);
	free(w);
	free(rounded);
	free(y);
	free(scratch);
}

static void dense__equals_the_definition(void **state)
{
	static const uint32_t widths[] = { 1, 15, 16, 17, 31, 32, 33, 100, 257 };

	for (size_t t = 0; t < ARRAY_LEN(types); t++)
		for (size_t w = 0; w < ARRAY_LEN(widths); w++)
			for (uint32_t m = 1; m <= 9; m++)
				for (int how = 0; how < 3; how++) {
					if (how == 2 &&
					    (types[t] != GGUF_BF16 || !dense_has_bf16()))
						continue;
					check(types[t], widths[w], 1 + (m * 5 + w) % 11, m, w % 2,
					      how);
				}
}

static void dense_round__keeps_what_is_not_a_number(void **state)
{
	const float x[] = { NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3.4e38f, 1e-45f };
	uint16_t got[ARRAY_LEN(x)];

	dense_round(got, x, ARRAY_LEN(x));
	for (size_t i = 0; i < ARRAY_LEN(x); i++)
		assert_int_equal(got[i], f32_to_bf16(x[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dense__equals_the_definition),
		cmocka_unit_test(dense_round__keeps_what_is_not_a_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
