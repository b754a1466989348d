// SPDX-License-Identifier: MIT
#include "engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "compute/attention.h"
#include "compute/matmul.h"
#include "kv/fingerprint.h"

/* Floats of one scratch area, rounded so that the next one starts at a cache line. */
static size_t padded(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

static uint64_t widest(const struct model_params *p)
{
	const uint64_t heads = (uint64_t)p->n_head * p->head_dim;
	const uint64_t width = p->n_ff > p->n_embd ? p->n_ff : p->n_embd;

	return width > heads ? width : heads;
}

static size_t thread_scratch(const struct model_params *p)
{
	const size_t mul = matmul_scratch(widest(p));
	const size_t att = attention_scratch(p->n_head, p->n_head_kv, p->head_dim);

	return padded(mul > att ? mul : att);
}

/* model_open() bounds every width to 2^20 and heads * head_dim to 2^20, so sums fit 64 bits. */
static int allocate(struct engine *e, struct lslm_error *err)
{
	const struct model_params *p = &e->model->params;
	const size_t heads = (size_t)p->n_head * p->head_dim;
	const size_t kv = (size_t)p->n_head_kv * p->head_dim;
	const struct {
		float **at;
		size_t floats;
	} areas[] = {
		{ &e->x, ENGINE_BATCH * (size_t)p->n_embd },
		{ &e->h, ENGINE_BATCH * (size_t)p->n_embd },
		{ &e->q, ENGINE_BATCH * heads },
		{ &e->k, ENGINE_BATCH * kv },
		{ &e->v, ENGINE_BATCH * kv },
		{ &e->att, ENGINE_BATCH * heads },
		{ &e->gate, ENGINE_BATCH * (size_t)p->n_ff },
		{ &e->up, ENGINE_BATCH * (size_t)p->n_ff },
		{ &e->partials, attention_partials(p->n_head, p->head_dim) },
		{ &e->angles, ENGINE_BATCH * (size_t)p->rope_dims },
		{ &e->area.scratch, pool_threads(e->pool) * thread_scratch(p) },
		{ (float **)&e->area.acts,
		  matmul_acts_bytes(ENGINE_BATCH, widest(p)) / sizeof(float) },
	};
	size_t total = 0;
	float *at;

	for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++)
		total += padded(areas[i].floats);
	if (posix_memalign(&e->memory, 64, total * sizeof(float)))
		return error_set(err, -ENOMEM, "scratch of %zu MiB: out of memory",
				 total * sizeof(float) >> 20);
	/* Activations are a user's text in other form. */
	madvise(e->memory, total * sizeof(float), MADV_DONTDUMP);
	at = e->memory;
	for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
		*areas[i].at = at;
		at += padded(areas[i].floats);
	}
	e->area.scratch_len = thread_scratch(p);
	return 0;
}

int engine_create_with(struct engine **out, const struct model *model, unsigned int n_threads,
		       const struct matrices_opts *weights, struct lslm_error *err)
{
	struct engine *e = calloc(1, sizeof(*e));
	int rc;

	if (!e)
		return error_set(err, -ENOMEM, "out of memory");
	e->model = model;
	e->geo = (struct kv_geometry){
		.n_layer = model->params.n_layer,
		.n_head_kv = model->params.n_head_kv,
		.head_dim = model->params.head_dim,
	};
	matmul_init();
	rc = kv_geometry_check(&e->geo, err);
	if (!rc)
		rc = pool_create(&e->pool, n_threads, err);
	/* First, so that they are on their way meanwhile. */
	if (!rc)
		rc = matrices_open(&e->matrices, model, e->pool, weights, err);
	if (!rc)
		rc = allocate(e, err);
	if (rc) {
		engine_destroy(e);
		return rc;
	}
	e->layers = matrices_layers(e->matrices);
	*out = e;
	return 0;
}

int engine_create(struct engine **out, const struct model *model, unsigned int n_threads,
		  struct lslm_error *err)
{
	return engine_create_with(out, model, n_threads, NULL, err);
}

void engine_destroy(struct engine *e)
{
	if (!e)
		return;
	pool_destroy(e->pool);
	matrices_close(e->matrices);
	free(e->memory);
	free(e);
}

int engine_await(const struct engine *e, struct lslm_error *err)
{
	return matrices_await_shared(e->matrices, err);
}

int engine_identity(struct engine *e, struct kv_identity *id, struct lslm_error *err)
{
	const struct kv_hash *known;
	uint8_t *rope;
	size_t size;
	int rc;

	if (e->has_identity) {
		*id = e->identity;
		return 0;
	}
	known = matrices_fingerprint(e->matrices);
	if (known)
		e->identity.model = *known;
	rc = known ? 0 : fingerprint_model(e->model->gguf, &e->identity.model, NULL, err);
	if (rc)
		return rc;
	tokenizer_fingerprint(e->model->tokenizer, e->identity.tokenizer.b);
	if (model_rope_bytes(e->model, &rope, &size))
		return error_set(err, -ENOMEM, "out of memory");
	e->identity.rope = kv_digest(rope, size);
	free(rope);
	e->has_identity = 1;
	*id = e->identity;
	return 0;
}
