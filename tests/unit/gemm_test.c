// SPDX-License-Identifier: MIT
/*
 * Packed integer products of every instruction set that this processor has, against the definition: weights as
 * quant_dequantize() gives them times the rounded activations, in double.
 */
#include "unit/unit.h"

#include <math.h>

#include "compute/acts.h"
#include "compute/gemm.h"
#include "compute/pack.h"
#include "compute/quant.h"
#include "unit/random.h"

static const enum gguf_type types[] = { GGUF_Q8_0, GGUF_Q4_0, GGUF_Q4_1, GGUF_Q5_0,
					GGUF_Q5_1, GGUF_Q4_K, GGUF_Q5_K, GGUF_Q6_K };

/* Any bytes are codes and small scales; the halves of a block get finite values of either sign. */
static uint8_t *random_matrix(enum gguf_type type, uint32_t n_in, uint32_t n_out)
{
	const size_t block = gguf_type_block_bytes(type);
	const size_t n = gguf_row_bytes(type, n_in) * n_out;
	uint8_t *w = malloc(n);

	for (size_t i = 0; i < n; i++)
		w[i] = (uint8_t)(rnd() >> 7);
	for (size_t i = 0; i < n; i += block) {
		const uint16_t d = f32_to_f16(uniform(10000)), m = f32_to_f16(uniform(10000));

		memcpy(w + i + (type == GGUF_Q6_K ? block - 2 : 0), &d, 2);
		if (type != GGUF_Q8_0 && type != GGUF_Q4_0 && type != GGUF_Q5_0 &&
		    type != GGUF_Q6_K)
			memcpy(w + i + 2, &m, 2);
	}
	return w;
}

static uint8_t *packed(enum gguf_type type, const uint8_t *w, uint32_t n_in, uint32_t n_out)
{
	const size_t panel = pack_panel_bytes(type, n_in), row = gguf_row_bytes(type, n_in);
	uint8_t *p = malloc(pack_bytes(type, n_in, n_out));

	memset(p, 0xff, pack_bytes(type, n_in, n_out)); /* nothing relies on fresh memory */
	for (uint32_t o = 0; o < n_out; o += PACK_ROWS)
		pack_panel(p + o / PACK_ROWS * panel, type, w + o * row, n_in,
			   n_out - o < PACK_ROWS ? n_out - o : PACK_ROWS);
	return p;
}

/* Row i of m as it stands in its tile; also: is every number within half a step of what it was? */
static void rounded_row(const uint8_t *acts, const float *x, uint32_t m, uint32_t n, uint32_t i,
			double *out)
{
	const uint32_t rows = acts_tile_rows(m, i / ACTS_ROWS), r = i % ACTS_ROWS;
	const uint8_t *tile = acts + acts_tile_offset(i / ACTS_ROWS, n);

	for (uint32_t b = 0; b < n; b += ACTS_BLOCK, tile += (size_t)rows * ACTS_BLOCK_BYTES) {
		const int8_t *q = (const int8_t *)tile + r * ACTS_BLOCK;
		const float *step = (const float *)(tile + rows * ACTS_BLOCK);
		const int32_t *n8 = (const int32_t *)(step + 2 * rows);
		int sum[2] = { 0 };

		for (uint32_t j = 0; j < ACTS_BLOCK; j++) {
			const double real = x[(size_t)i * n + b + j];

			out[b + j] = (double)step[r] * q[j];
			assert_true(fabs(out[b + j] - real) <= 0.50001 * step[r]);
			sum[j / 16] += q[j];
		}
		assert_true(step[rows + r] == step[r] * (float)(sum[0] + sum[1]));
		assert_int_equal(n8[r], -8 * (sum[0] + sum[1]));
		assert_int_equal(n8[rows + r], -128 * (sum[0] + sum[1]));
		assert_int_equal(n8[2 * rows + r], -32 * sum[0]);
		assert_int_equal(n8[3 * rows + r], -32 * sum[1]);
	}
}

struct problem {
	enum gguf_type type;
	uint32_t n_in, n_out, m;
	uint8_t *w, *panels, *acts;
	float *x;
	double *want, *size; /* products, and the sums of their magnitudes */
};

static void problem_make(struct problem *p)
{
	double *xr = malloc(p->n_in * sizeof(*xr));
	float *wr = malloc(p->n_in * sizeof(*wr));

	p->w = random_matrix(p->type, p->n_in, p->n_out);
	p->panels = packed(p->type, p->w, p->n_in, p->n_out);
	p->x = malloc((size_t)p->m * p->n_in * sizeof(*p->x));
	p->acts = malloc(acts_bytes(p->m, p->n_in));
	p->want = malloc((size_t)p->m * p->n_out * sizeof(*p->want));
	p->size = malloc((size_t)p->m * p->n_out * sizeof(*p->size));
	for (size_t i = 0; i < (size_t)p->m * p->n_in; i++)
		p->x[i] = uniform(10000) * (float)(1 + i / 32 % 5);
	for (uint32_t t = 0; t < acts_tiles(p->m); t++)
		acts_fill(p->acts, p->x, p->m, p->n_in, t);
	for (uint32_t i = 0; i < p->m; i++) {
		rounded_row(p->acts, p->x, p->m, p->n_in, i, xr);
		for (uint32_t o = 0; o < p->n_out; o++) {
			double sum = 0, size = 0;

			quant_dequantize(p->type, p->w + o * gguf_row_bytes(p->type, p->n_in), wr,
					 p->n_in);
			for (uint32_t k = 0; k < p->n_in; k++) {
				sum += wr[k] * xr[k];
				size += fabs(wr[k] * xr[k]);
			}
			p->want[i * p->n_out + o] = sum;
			p->size[i * p->n_out + o] = size;
		}
	}
	free(xr);
	free(wr);
}

static void problem_free(struct problem *p)
{
	free(p->w);
	free(p->panels);
	free(p->acts);
	free(p->x);
	free(p->want);
	free(p->size);
}

/* y: [m][n_out], with a column of 7 behind each row that must stay. */
static void multiply(const struct problem *p, const struct gemm_set *set, bool add, float *y)
{
	const size_t panel = pack_panel_bytes(p->type, p->n_in), stride = p->n_out + 1;

	for (uint32_t t = 0; t < acts_tiles(p->m); t++)
		for (uint32_t o = 0; o < p->n_out; o += PACK_ROWS) {
			const uint32_t left = p->m - t * ACTS_ROWS;
			const struct gemm_tile tile = {
				.type = p->type,
				.n_in = p->n_in,
				.panel = p->panels + o / PACK_ROWS * panel,
				.acts = p->acts + acts_tile_offset(t, p->n_in),
				.rows = acts_tile_rows(p->m, t),
				.m = left < ACTS_ROWS ? left : ACTS_ROWS,
				.n = p->n_out - o < PACK_ROWS ? p->n_out - o : PACK_ROWS,
				.add = add,
				.y = y + t * ACTS_ROWS * stride + o,
				.stride = stride,
			};

			set->tile(&tile);
		}
}

static void check(const struct problem *p, const struct gemm_set *set)
{
	const size_t stride = p->n_out + 1;
	float *y = malloc(p->m * stride * sizeof(*y));

	for (int add = 0; add < 2; add++) {
		for (size_t i = 0; i < p->m * stride; i++)
			y[i] = 7;
		multiply(p, set, add, y);
		for (uint32_t i = 0; i < p->m; i++) {
			assert_true(y[i * stride + p->n_out] == 7);
			for (uint32_t o = 0; o < p->n_out; o++) {
				const double want = p->want[i * p->n_out + o] + 7 * add;
				const double size = p->size[i * p->n_out + o] + 1;

				if (!(fabs(y[i * stride + o] - want) < 2e-6 * size))
					fail_msg("%s, %s, %u x %u, %u rows: [%u][%u] is %.9g, "
						 "expected %.9g",
						 set->name, gguf_type_name(p->type), p->n_out,
						 p->n_in, p->m, i, o, (double)y[i * stride + o],
						 want);
			}
		}
	}
	free(y);
}

/* Every type and set, over sizes around each boundary: panels, tiles, spans of scales. */
static void gemm__equals_the_definition(void **state)
{
	static const uint32_t widths[] = { 1, 2, 3, 9 }; /* times the type's block */
	static const uint32_t outs[] = { 1, 7, 8, 9, 15, 16, 17, 31, 50 };
	static const uint32_t ms[] = { 1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 19 };

	for (size_t t = 0; t < ARRAY_LEN(types); t++)
		for (size_t w = 0; w < ARRAY_LEN(widths); w++)
			for (size_t i = 0; i < ARRAY_LEN(outs) + ARRAY_LEN(ms); i++) {
				struct problem p = {
					.type = types[t],
					.n_in = widths[w] * gguf_type_block(types[t]),
					.n_out = i < ARRAY_LEN(outs) ? outs[i] : 21,
					.m = i < ARRAY_LEN(outs) ? 3 : ms[i - ARRAY_LEN(outs)],
				};

				problem_make(&p);
				for (int s = 0; s < GEMM_SETS; s++)
					if (gemm_sets[s]->usable())
						check(&p, gemm_sets[s]);
				problem_free(&p);
			}
}

/* The largest codes and activations there are: sums of 16 bits must not overflow on the way. */
static void gemm__survives_the_largest_values(void **state)
{
	for (size_t t = 0; t < ARRAY_LEN(types); t++)
		for (int sign = -1; sign < 2; sign += 2) {
			struct problem p = { .type = types[t], .n_in = 256, .n_out = 16, .m = 8 };
			const size_t row = gguf_row_bytes(p.type, p.n_in);

			problem_make(&p);
			/* All bits set is the largest code, or -1; then the byte -128 too. */
			for (int fill = 0; fill < 2; fill++) {
				const uint16_t one = f32_to_f16(1);
				const size_t block = gguf_type_block_bytes(p.type);
				float wr[256];

				memset(p.w, fill ? 0x80 : 0xff, 16 * row);
				for (size_t i = 0; i < 16 * row; i += block) {
					memcpy(p.w + i + (p.type == GGUF_Q6_K ? block - 2 : 0),
					       &one, 2);
					if (p.type != GGUF_Q8_0 && p.type != GGUF_Q4_0 &&
					    p.type != GGUF_Q5_0 && p.type != GGUF_Q6_K)
						memcpy(p.w + i + 2, &one, 2);
				}
				free(p.panels);
				p.panels = packed(p.type, p.w, p.n_in, p.n_out);
				for (size_t i = 0; i < 8 * 256; i++)
					p.x[i] = (float)(127 * sign);
				acts_fill(p.acts, p.x, p.m, p.n_in, 0);
				quant_dequantize(p.type, p.w, wr, 256);
				for (size_t i = 0; i < 8 * 16; i++) {
					p.want[i] = p.size[i] = 0;
					for (int k = 0; k < 256; k++) {
						p.want[i] += wr[k] * 127.0 * sign;
						p.size[i] += fabs(wr[k] * 127.0);
					}
				}
				for (int s = 0; s < GEMM_SETS; s++)
					if (gemm_sets[s]->usable())
						check(&p, gemm_sets[s]);
			}
			problem_free(&p);
		}
}

static void acts_fill__odd_numbers(void **state)
{
	/* A zero block, denormals, infinities and NaNs: no trap, and the first two are zeros. */
	float x[128] = { 0 };
	uint8_t acts[8 * 4 * ACTS_BLOCK_BYTES];
	const float *step;

	for (int i = 32; i < 64; i++)
		x[i] = 1e-40f;
	x[70] = INFINITY;
	x[100] = NAN;
	acts_fill(acts, x, 1, 128, 0);
	for (int b = 0; b < 2; b++) {
		step = (const float *)(acts + b * ACTS_BLOCK_BYTES + ACTS_BLOCK);
		assert_true(step[0] == 0 && step[1] == 0);
	}
	for (int b = 2; b < 4; b++) {
		step = (const float *)(acts + b * ACTS_BLOCK_BYTES + ACTS_BLOCK);
		assert_true(!isfinite(step[0]));
	}
}

/* The fastest way and the plain one, to the bit; every fourth block has something odd in it. */
static void acts_fill__is_the_plain_one(void **state)
{
	enum { BLOCKS = 37, ROWS = 4, N = BLOCKS * ACTS_BLOCK };
	static const float odd[] = { 0, -0.0f, 1e-40f, -INFINITY, NAN, 3e38f, 2e-30f, 1e-30f };
	float *x = malloc(ROWS * N * sizeof(*x));
	uint8_t *got = malloc(ROWS * BLOCKS * ACTS_BLOCK_BYTES);
	uint8_t *want = malloc(ROWS * BLOCKS * ACTS_BLOCK_BYTES);

	for (uint32_t i = 0; i < ROWS * N; i++)
		x[i] = uniform(1000) * (i / 32 % 4 ? 1.0f : 1e-31f);
	for (uint32_t i = 0; i < ROWS * BLOCKS / 4; i++)
		x[i * 4 * ACTS_BLOCK + i % ACTS_BLOCK] = odd[i % ARRAY_LEN(odd)];
	acts_fill(got, x, ROWS, N, 0);
	for (uint32_t r = 0; r < ROWS; r++)
		acts_row(want, x + r * N, BLOCKS, ROWS, r);
	assert_memory_equal(got, want, ROWS * BLOCKS * ACTS_BLOCK_BYTES);
	free(x);
	free(got);
	free(want);
}

static void acts__tiles_cover_the_rows(void **state)
{
	for (uint32_t m = 1; m < 40; m++) {
		uint32_t rows = 0;

		for (uint32_t t = 0; t < acts_tiles(m); t++) {
			const uint32_t r = acts_tile_rows(m, t);

			assert_true(r == 1 || r == 2 || r == 4 || r == 8);
			assert_int_equal(rows, t * ACTS_ROWS);
			rows += r;
		}
		assert_true(rows >= m && rows < m + 4);
		assert_true(acts_bytes(m, 32) >= (size_t)rows * ACTS_BLOCK_BYTES);
	}
}

static void gemm_best__is_the_first_usable(void **state)
{
	for (int s = 0; gemm_sets[s] != gemm_best(); s++)
		assert_false(gemm_sets[s]->usable());
	assert_true(gemm_best()->usable());
	assert_ptr_equal(gemm_sets[GEMM_SETS - 1], &gemm_c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gemm__equals_the_definition),
		cmocka_unit_test(gemm__survives_the_largest_values),
		cmocka_unit_test(acts_fill__odd_numbers),
		cmocka_unit_test(acts_fill__is_the_plain_one),
		cmocka_unit_test(acts__tiles_cover_the_rows),
		cmocka_unit_test(gemm_best__is_the_first_usable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
