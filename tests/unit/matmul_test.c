// SPDX-License-Identifier: MIT
/*
 * Products as the engine asks for them: several matrices of several types that share their rows, what follows a
 * product, rows that are made on the way. Against double; the kernels have their own tests.
 */
#include "unit/unit.h"

#include <math.h>

#include "compute/gemm.h"
#include "compute/matmul.h"
#include "compute/quant.h"
#include "unit/random.h"

enum { MAX_M = 70 };

/* A matrix in its type, as floats, and packed. */
struct matrix {
	struct weight w;
	uint8_t *rows;
	float *values;
	void *packed;
};

static void matrix_make(struct matrix *a, enum gguf_type type, uint32_t n_in, uint32_t n_out,
			struct pool *pool)
{
	const size_t n = (size_t)n_in * n_out, block = gguf_type_block_bytes(type);
	struct gguf_tensor t = { .type = type, .ne = { n_in, n_out, 1, 1 } };

	a->rows = malloc(gguf_row_bytes(type, n_in) * n_out);
	a->values = malloc(n * sizeof(float));
	for (size_t i = 0; i < gguf_row_bytes(type, n_in) * n_out; i++)
		a->rows[i] = (uint8_t)(uniform(1000) * 100);
	for (size_t i = 0; i < n / gguf_type_block(type); i++) {
		const float v = uniform(1000);
		const uint16_t h = type == GGUF_BF16 ? f32_to_bf16(v) : f32_to_f16(v / 16);

		memcpy(a->rows + i * block + (type == GGUF_Q6_K ? block - 2 : 0),
		       type == GGUF_F32 ? (const void *)&v : &h, type == GGUF_F32 ? 4 : 2);
		if (type == GGUF_Q4_K || type == GGUF_Q4_1 || type == GGUF_Q5_1)
			memcpy(a->rows + i * block + 2, &h, 2);
	}
	quant_dequantize(type, a->rows, a->values, n);
	t.data = a->rows;
	a->w = weight_of(&t);
	a->packed = aligned_alloc(64, weight_bytes(&a->w));
	weight_store(&a->w, a->packed, pool);
	weight_take(&a->w, a->packed);
	assert_true((a->w.panels != NULL) == (gguf_type_block(type) > 1 && gemm_pays()));
}

static void matrix_free(struct matrix *a)
{
	free(a->packed);
	free(a->rows);
	free(a->values);
}

struct made {
	float *x;
	const float *from;
	uint32_t n_in;
	unsigned int calls[MAX_M];
};

static void make(void *arg, uint32_t first, uint32_t n)
{
	struct made *made = arg;

	for (uint32_t i = first; i < first + n; i++) {
		made->calls[i]++;
		for (uint32_t k = 0; k < made->n_in; k++)
			made->x[(size_t)i * made->n_in + k] =
				2 * made->from[(size_t)i * made->n_in + k];
	}
}

/* A product in double and the size of its terms, which rounding is relative to. */
static double product(const struct matrix *a, uint32_t o, const float *x, double *size)
{
	double sum = 0;

	*size = 0;
	for (uint32_t k = 0; k < a->w.n_in; k++) {
		sum += (double)a->values[(size_t)o * a->w.n_in + k] * x[k];
		*size += fabs(a->values[(size_t)o * a->w.n_in + k] * x[k]);
	}
	return sum;
}

struct setting {
	enum gguf_type types[3];
	uint32_t n_in, n_out[3], m;
	unsigned int threads;
};

/* Three matrices: set, added, and the third as a gate with the first as `up`. y: three results. */
static void run(const struct setting *s, struct matrix *a, const float *from, float *x, float **y,
		float *up_y)
{
	struct made made = { .x = x, .from = from, .n_in = s->n_in };
	const struct matmul jobs[] = {
		{ &a[0].w, y[0], MATMUL_SET },
		{ &a[1].w, y[1], MATMUL_ADD },
		{ &a[2].w, y[2], MATMUL_SWIGLU, &a[0].w, up_y },
	};
	const struct matmul_rows rows = { .x = x, .m = s->m, .make = make, .arg = &made };
	struct matmul_area area = { .scratch_len = matmul_scratch(s->n_in) };
	struct lslm_error err;
	struct pool *pool;

	assert_ok(pool_create(&pool, s->threads, &err), &err);
	area.scratch = aligned_alloc(64, s->threads * area.scratch_len * sizeof(float));
	area.acts = aligned_alloc(64, (matmul_acts_bytes(s->m, s->n_in) + 63) & ~(size_t)63);
	matmul_run(pool, jobs, 3, &rows, &area);
	for (uint32_t i = 0; i < MAX_M; i++)
		assert_int_equal(made.calls[i], i < s->m);
	free(area.scratch);
	free(area.acts);
	pool_destroy(pool);
}

static void check(const struct setting *s, struct matrix *a, const float *x, float *const *y)
{
	for (uint32_t i = 0; i < s->m; i++)
		for (uint32_t j = 0; j < 3; j++)
			for (uint32_t o = 0; o < s->n_out[j]; o++) {
				const float *row = x + (size_t)i * s->n_in;
				const float got = y[j][(size_t)i * s->n_out[j] + o];
				double size, other, want = product(&a[j], o, row, &size);

				want += j == 1 ? 3 : 0;
				if (j == 2) {
					const double up = product(&a[0], o, row, &other);

					size = fabs(want) * other + fabs(up) * size + size * other;
					want = want / (1 + exp(-want)) * up;
				}
				/* Half a step of 127 at most, of bytes; a 256th, of bf16. */
				if (!(fabs(got - want) < 0.005 * size + 1e-4))
					fail_msg("%s, %u rows: job %u, [%u][%u] is %g, expected %g",
						 gguf_type_name(s->types[j]), s->m, j, i, o,
						 (double)got, want);
			}
}

static void matmul_run__every_mixture(void **state)
{
	static const struct setting settings[] = {
		{ { GGUF_Q8_0, GGUF_Q4_K, GGUF_Q8_0 }, 256, { 70, 33, 70 }, 1, 3 },
		{ { GGUF_Q8_0, GGUF_F16, GGUF_BF16 }, 96, { 17, 100, 17 }, 2, 2 },
		{ { GGUF_F16, GGUF_Q5_0, GGUF_F32 }, 64, { 130, 5, 130 }, 9, 2 },
		{ { GGUF_BF16, GGUF_BF16, GGUF_BF16 }, 70, { 66, 3, 66 }, 70, 3 },
		{ { GGUF_BF16, GGUF_BF16, GGUF_BF16 }, 70, { 66, 3, 66 }, 1, 1 },
		{ { GGUF_F32, GGUF_F16, GGUF_F16 }, 70, { 129, 64, 129 }, 70, 2 },
		{ { GGUF_F32, GGUF_F16, GGUF_BF16 }, 33, { 1, 2, 1 }, 63, 4 },
		{ { GGUF_Q6_K, GGUF_Q4_1, GGUF_Q5_1 }, 256, { 48, 64, 48 }, 33, 2 },
	};

	matmul_init();
	for (size_t k = 0; k < ARRAY_LEN(settings); k++) {
		struct setting s = settings[k];
		struct matrix a[3] = { 0 };
		float *from = malloc(sizeof(float) * s.m * s.n_in);
		float *x = malloc(sizeof(float) * s.m * s.n_in), *y[2][3], *up_y;
		struct lslm_error err;
		struct pool *pool;

		assert_ok(pool_create(&pool, 2, &err), &err);
		for (int j = 0; j < 3; j++)
			matrix_make(&a[j], s.types[j], s.n_in, s.n_out[j], pool);
		pool_destroy(pool);
		for (size_t i = 0; i < (size_t)s.m * s.n_in; i++)
			from[i] = uniform(1000);
		up_y = malloc(sizeof(float) * s.m * s.n_out[2]);
		for (int way = 0; way < 2; way++) {
			for (int j = 0; j < 3; j++) {
				const size_t n = (size_t)s.m * s.n_out[j];

				y[way][j] = malloc(n * sizeof(float));
				for (size_t i = 0; i < n; i++)
					y[way][j][i] = 3;
			}
			s.threads = way ? 1 : settings[k].threads;
			run(&s, a, from, x, y[way], up_y);
		}
		check(&s, a, x, y[0]);
		/* To the last bit, with any number of threads. */
		for (int j = 0; j < 3; j++)
			assert_memory_equal(y[0][j], y[1][j], sizeof(float) * s.m * s.n_out[j]);
		for (int j = 0; j < 3; j++) {
			matrix_free(&a[j]);
			free(y[0][j]);
			free(y[1][j]);
		}
		free(up_y);
		free(from);
		free(x);
	}
}

static void matmul_use__by_name(void **state)
{
	assert_int_equal(matmul_use("no such"), -ENOENT);
	assert_int_equal(matmul_use("portable C"), 0);
	assert_non_null(strstr(matmul_describe(), "by portable C ("));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matmul_run__every_mixture),
		cmocka_unit_test(matmul_use__by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
