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

enum { MATRICES = sizeof(struct engine_layer) / sizeof(struct weight) };

/*
 * Matrices are packed into memory of our own. Their pages of the file are then not needed any more, but
 * for the embedding's, whose rows are looked up.
 */
static int pack(struct engine *e, struct lslm_error *err)
{
	const struct model *m = e->model;
	const size_t n = (size_t)m->params.n_layer * MATRICES + 1;
	struct weight *w = calloc(n, sizeof(*w));
	int rc;

	if (!w)
		return error_set(err, -ENOMEM, "out of memory");
	e->layers = (struct engine_layer *)w;
	e->output = w + n - 1;
	for (uint32_t l = 0; l < m->params.n_layer; l++) {
		const struct model_layer *y = &m->layers[l];

		e->layers[l] = (struct engine_layer){
			.wq = weight_of(y->wq),
			.wk = weight_of(y->wk),
			.wv = weight_of(y->wv),
			.wo = weight_of(y->wo),
			.gate = weight_of(y->gate),
			.up = weight_of(y->up),
			.down = weight_of(y->down),
		};
	}
	w[n - 1] = weight_of(m->output);
	rc = weights_pack(&e->packed, w, n, e->pool, err);
	for (size_t i = 0; !rc && i < n; i++)
		if (w[i].panels && w[i].rows != m->embd->data)
			gguf_forget(m->gguf, w[i].rows,
				    gguf_row_bytes(w[i].type, w[i].n_in) * w[i].n_out);
	return rc;
}

int engine_create(struct engine **out, const struct model *model, unsigned int n_threads,
		  struct lslm_error *err)
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
	if (!rc)
		rc = allocate(e, err);
	if (!rc)
		rc = pack(e, err);
	if (rc) {
		engine_destroy(e);
		return rc;
	}
	*out = e;
	return 0;
}

void engine_destroy(struct engine *e)
{
	if (!e)
		return;
	pool_destroy(e->pool);
	weights_free(&e->packed);
	free(e->layers);
	free(e->memory);
	free(e);
}

size_t engine_decode_bytes(const struct engine *e)
{
	const struct weight *w = (const struct weight *)e->layers;
	size_t bytes = 0;

	for (size_t i = 0; i < (size_t)e->model->params.n_layer * MATRICES + 1; i++)
		bytes += gguf_row_bytes(w[i].type, w[i].n_in) * w[i].n_out;
	return bytes;
}

int engine_identity(struct engine *e, struct kv_identity *id, struct lslm_error *err)
{
	uint8_t *rope;
	size_t size;
	int rc;

	if (e->has_identity) {
		*id = e->identity;
		return 0;
	}
	rc = fingerprint_model(e->model->gguf, &e->identity.model, NULL, err);
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
