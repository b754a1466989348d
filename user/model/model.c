// SPDX-License-Identifier: MIT
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No real model comes near; far below where a product of two could overflow 64 bits. */
enum {
	MAX_LAYERS = 1024,
	MAX_WIDTH = 1 << 20,
	MAX_VOCAB = 1 << 24,
	MAX_HEADS = 1024,
	MAX_HEAD_DIM = 1024,
};

static const struct {
	const char *name;
	enum rope_layout layout;
} architectures[] = {
	{ "llama", ROPE_PAIRS },
	{ "qwen2", ROPE_HALVES },
	{ "qwen3", ROPE_HALVES },
};

/* State of one model_open(): where names and errors come from. */
struct loader {
	struct model *m;
	const char *path;
	struct lslm_error *err;
};

static int read_u32(struct loader *ld, const char *suffix, uint32_t *out, uint32_t max,
		    const uint32_t *fallback)
{
	char key[128];
	int rc;

	snprintf(key, sizeof(key), "%s.%s", ld->m->params.arch, suffix);
	rc = gguf_get_u32(ld->m->gguf, key, out);
	if (rc == -ENOENT && fallback) {
		*out = *fallback;
		return 0;
	}
	if (rc == -ENOENT)
		return error_set(ld->err, -EINVAL, "%s: key %s is missing: not a complete model",
				 ld->path, key);
	if (rc)
		return error_set(ld->err, -EINVAL,
				 "%s: key %s is not a single unsigned number, which is all that is "
				 "supported",
				 ld->path, key);
	if (*out == 0 || *out > max)
		return error_set(ld->err, -EINVAL, "%s: key %s = %u is outside 1..%u", ld->path,
				 key, *out, max);
	return 0;
}

static int read_f32(struct loader *ld, const char *suffix, float *out, const float *fallback)
{
	char key[128];
	int rc;

	snprintf(key, sizeof(key), "%s.%s", ld->m->params.arch, suffix);
	rc = gguf_get_f32(ld->m->gguf, key, out);
	if (rc == -ENOENT && fallback) {
		*out = *fallback;
		return 0;
	}
	if (rc || !isfinite(*out) || *out <= 0)
		return error_set(ld->err, -EINVAL, "%s: key %s is missing or not a positive number",
				 ld->path, key);
	return 0;
}

static int read_architecture(struct loader *ld)
{
	struct model_params *p = &ld->m->params;
	struct gguf_str arch;

	if (gguf_get_str(ld->m->gguf, "general.architecture", &arch))
		return error_set(ld->err, -EINVAL,
				 "%s: key general.architecture is missing: not a model", ld->path);
	for (size_t i = 0; i < sizeof(architectures) / sizeof(architectures[0]); i++) {
		const char *name = architectures[i].name;

		if (arch.len == strlen(name) && !memcmp(arch.ptr, name, arch.len)) {
			snprintf(p->arch, sizeof(p->arch), "%s", name);
			p->rope_layout = architectures[i].layout;
			return 0;
		}
	}
	return error_set(ld->err, -EINVAL,
			 "%s: architecture '%.*s' is not supported; use a llama, qwen2 or qwen3 "
			 "model",
			 ld->path, (int)(arch.len > 40 ? 40 : arch.len), arch.ptr);
}

static int read_rope(struct loader *ld)
{
	struct model_params *p = &ld->m->params;
	const float base = 10000.0f, one = 1.0f;
	struct gguf_str type;
	char key[64];
	float factor;
	int rc;

	rc = read_u32(ld, "rope.dimension_count", &p->rope_dims, p->head_dim, &p->head_dim);
	if (!rc)
		rc = read_f32(ld, "rope.freq_base", &p->rope_base, &base);
	if (rc)
		return rc;
	if (p->rope_dims % 2)
		return error_set(ld->err, -EINVAL, "%s: odd rope.dimension_count %u", ld->path,
				 p->rope_dims);
	p->rope_scale = 1.0f;
	snprintf(key, sizeof(key), "%s.rope.scaling.type", p->arch);
	if (gguf_get_str(ld->m->gguf, key, &type)) {
		/* Files from before scaling had types have only this, and mean linear. */
		rc = read_f32(ld, "rope.scale_linear", &factor, &one);
		if (!rc)
			p->rope_scale = 1.0f / factor;
		return rc;
	}
	if (type.len == 4 && !memcmp(type.ptr, "none", 4))
		return 0;
	if (type.len == 6 && !memcmp(type.ptr, "linear", 6)) {
		rc = read_f32(ld, "rope.scaling.factor", &factor, &one);
		if (!rc)
			p->rope_scale = 1.0f / factor;
		return rc;
	}
	return error_set(ld->err, -EINVAL,
			 "%s: RoPE scaling '%.*s' is not supported; use a model with none or "
			 "linear scaling",
			 ld->path, (int)(type.len > 40 ? 40 : type.len), type.ptr);
}

static int read_params(struct loader *ld)
{
	struct model_params *p = &ld->m->params;
	uint32_t def, value_dim;
	int rc;

	rc = read_architecture(ld);
	if (!rc)
		rc = read_u32(ld, "block_count", &p->n_layer, MAX_LAYERS, NULL);
	if (!rc)
		rc = read_u32(ld, "embedding_length", &p->n_embd, MAX_WIDTH, NULL);
	if (!rc)
		rc = read_u32(ld, "feed_forward_length", &p->n_ff, MAX_WIDTH, NULL);
	if (!rc)
		rc = read_u32(ld, "context_length", &p->n_ctx_train, UINT32_MAX, NULL);
	if (!rc)
		rc = read_u32(ld, "attention.head_count", &p->n_head, MAX_HEADS, NULL);
	if (!rc)
		rc = read_u32(ld, "attention.head_count_kv", &p->n_head_kv, MAX_HEADS, &p->n_head);
	if (!rc)
		rc = read_f32(ld, "attention.layer_norm_rms_epsilon", &p->norm_eps, NULL);
	if (rc)
		return rc;
	if (p->n_head % p->n_head_kv)
		return error_set(ld->err, -EINVAL,
				 "%s: %u heads do not divide over %u key/value heads", ld->path,
				 p->n_head, p->n_head_kv);
	def = p->n_embd / p->n_head;
	rc = read_u32(ld, "attention.key_length", &p->head_dim, MAX_HEAD_DIM, &def);
	if (!rc)
		rc = read_u32(ld, "attention.value_length", &value_dim, MAX_HEAD_DIM, &p->head_dim);
	if (rc)
		return rc;
	if (p->head_dim == 0 || p->head_dim > MAX_HEAD_DIM || value_dim != p->head_dim)
		return error_set(ld->err, -EINVAL,
				 "%s: head sizes %u (keys) and %u (values) are not supported",
				 ld->path, p->head_dim, value_dim);
	if (gguf_get_u32(ld->m->gguf, "llama.expert_count", &def) == 0 && def > 0)
		return error_set(ld->err, -EINVAL, "%s: mixture of experts is not supported",
				 ld->path);
	return read_rope(ld);
}

static int find_matrix(struct loader *ld, const struct gguf_tensor **out, const char *name,
		       uint64_t n_in, uint64_t n_out)
{
	const struct gguf_tensor *t = gguf_tensor_find(ld->m->gguf, name);

	if (!t)
		return error_set(ld->err, -EINVAL, "%s: tensor %s is missing: not a complete model",
				 ld->path, name);
	if (t->n_dims != 2 || t->ne[0] != n_in || t->ne[1] != n_out)
		return error_set(ld->err, -EINVAL,
				 "%s: tensor %s is %llu x %llu, the metadata say %llu x %llu",
				 ld->path, name, (unsigned long long)t->ne[0],
				 (unsigned long long)t->ne[1], (unsigned long long)n_in,
				 (unsigned long long)n_out);
	*out = t;
	return 0;
}

/* *out stays NULL when an optional vector is absent. */
static int find_vector(struct loader *ld, const float **out, const char *name, uint64_t n,
		       bool optional)
{
	const struct gguf_tensor *t = gguf_tensor_find(ld->m->gguf, name);
	struct model *m = ld->m;
	float *v;

	if (!t && optional)
		return 0;
	if (!t)
		return error_set(ld->err, -EINVAL, "%s: tensor %s is missing: not a complete model",
				 ld->path, name);
	if (t->n_dims != 1 || t->ne[0] != n)
		return error_set(ld->err, -EINVAL,
				 "%s: tensor %s has %llu values, the metadata say %llu", ld->path,
				 name, (unsigned long long)t->ne[0], (unsigned long long)n);
	if (t->type != GGUF_F32)
		return error_set(
			ld->err, -EINVAL,
			"%s: tensor %s is %s, vectors are F32 in GGUF: convert the model again",
			ld->path, name, gguf_type_name(t->type));
	v = malloc(n * sizeof(*v));
	if (!v)
		return error_set(ld->err, -ENOMEM, "%s: out of memory for %s", ld->path, name);
	memcpy(v, t->data, n * sizeof(*v));
	m->vectors[m->n_vectors++] = v;
	*out = v;
	return 0;
}

static int find_layer(struct loader *ld, uint32_t l)
{
	const struct model_params *p = &ld->m->params;
	struct model_layer *y = &ld->m->layers[l];
	const bool bias = !strcmp(p->arch, "qwen2"), qk_norm = !strcmp(p->arch, "qwen3");
	const uint64_t e = p->n_embd, q = (uint64_t)p->n_head * p->head_dim;
	const uint64_t kv = (uint64_t)p->n_head_kv * p->head_dim;
	const struct {
		const struct gguf_tensor **out;
		const char *name;
		uint64_t n_in, n_out;
	} matrices[] = {
		{ &y->wq, "attn_q.weight", e, q },
		{ &y->wk, "attn_k.weight", e, kv },
		{ &y->wv, "attn_v.weight", e, kv },
		{ &y->wo, "attn_output.weight", q, e },
		{ &y->gate, "ffn_gate.weight", e, p->n_ff },
		{ &y->up, "ffn_up.weight", e, p->n_ff },
		{ &y->down, "ffn_down.weight", p->n_ff, e },
	};
	const struct {
		const float **out;
		const char *name;
		uint64_t n;
		bool optional;
	} vectors[] = {
		{ &y->attn_norm, "attn_norm.weight", e, false },
		{ &y->ffn_norm, "ffn_norm.weight", e, false },
		/* llama files may carry biases too; only qwen2 must. */
		{ &y->bq, "attn_q.bias", q, !bias },
		{ &y->bk, "attn_k.bias", kv, !bias },
		{ &y->bv, "attn_v.bias", kv, !bias },
		{ &y->q_norm, "attn_q_norm.weight", p->head_dim, !qk_norm },
		{ &y->k_norm, "attn_k_norm.weight", p->head_dim, !qk_norm },
	};
	char name[64];
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(matrices) / sizeof(matrices[0]); i++) {
		snprintf(name, sizeof(name), "blk.%u.%s", l, matrices[i].name);
		rc = find_matrix(ld, matrices[i].out, name, matrices[i].n_in, matrices[i].n_out);
	}
	for (size_t i = 0; !rc && i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		snprintf(name, sizeof(name), "blk.%u.%s", l, vectors[i].name);
		rc = find_vector(ld, vectors[i].out, name, vectors[i].n, vectors[i].optional);
	}
	return rc;
}

/* Vectors that a layer can have, see find_layer(). */
enum { VECTORS_PER_LAYER = 7, VECTORS_PER_MODEL = 2 };

/*
 * Tensors that this forward pass would not use change the results without anyone
 * noticing (an output bias, a sub-layer norm), so a file that has one is refused. The RoPE
 * frequency tables that old converters wrote are recomputed and harmless.
 */
static int check_nothing_unused(struct loader *ld)
{
	static const char *const known[] = {
		"attn_q.weight",      "attn_k.weight",	    "attn_v.weight",
		"attn_output.weight", "ffn_gate.weight",    "ffn_up.weight",
		"ffn_down.weight",    "attn_norm.weight",   "ffn_norm.weight",
		"attn_q.bias",	      "attn_k.bias",	    "attn_v.bias",
		"attn_q_norm.weight", "attn_k_norm.weight", "attn_rot_embd.weight",
		"attn_rot_embd",
	};
	static const char *const global[] = {
		"token_embd.weight",
		"output.weight",
		"output_norm.weight",
		"rope_freqs.weight",
	};
	const struct model *m = ld->m;

	for (size_t i = 0; i < gguf_n_tensors(m->gguf); i++) {
		const char *name = gguf_tensor(m->gguf, i)->name;
		bool used = false;
		unsigned int layer;
		int at = 0;

		for (size_t k = 0; k < sizeof(global) / sizeof(global[0]); k++)
			used |= !strcmp(name, global[k]);
		if (sscanf(name, "blk.%u.%n", &layer, &at) == 1 && at && layer < m->params.n_layer)
			for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); k++)
				used |= !strcmp(name + at, known[k]);
		if (!used)
			return error_set(ld->err, -EINVAL,
					 "%s: tensor %.80s is not part of a %s model as known here",
					 ld->path, name, m->params.arch);
	}
	return 0;
}

static int find_tensors(struct loader *ld)
{
	struct model *m = ld->m;
	struct model_params *p = &m->params;
	const struct gguf_tensor *embd;
	int rc;

	m->layers = calloc(p->n_layer, sizeof(*m->layers));
	m->vectors = calloc((size_t)p->n_layer * VECTORS_PER_LAYER + VECTORS_PER_MODEL,
			    sizeof(*m->vectors));
	if (!m->layers || !m->vectors)
		return error_set(ld->err, -ENOMEM, "%s: out of memory", ld->path);
	/* Vectors lie between the matrices; asked for one by one, each would wait for the disk. */
	for (size_t i = 0; i < gguf_n_tensors(m->gguf); i++) {
		const struct gguf_tensor *t = gguf_tensor(m->gguf, i);

		if (t->n_dims == 1)
			gguf_will_read(m->gguf, t->data, t->size);
	}
	embd = gguf_tensor_find(m->gguf, "token_embd.weight");
	if (!embd || embd->ne[1] == 0 || embd->ne[1] > MAX_VOCAB)
		return error_set(ld->err, -EINVAL,
				 "%s: tensor token_embd.weight is missing or absurd", ld->path);
	p->n_vocab = (uint32_t)embd->ne[1];
	rc = find_matrix(ld, &m->embd, "token_embd.weight", p->n_embd, p->n_vocab);
	m->output = m->embd;
	if (!rc && gguf_tensor_find(m->gguf, "output.weight"))
		rc = find_matrix(ld, &m->output, "output.weight", p->n_embd, p->n_vocab);
	if (!rc)
		rc = find_vector(ld, &m->output_norm, "output_norm.weight", p->n_embd, false);
	if (!rc)
		rc = find_vector(ld, &m->rope_factors, "rope_freqs.weight", p->rope_dims / 2, true);
	for (uint32_t l = 0; !rc && l < p->n_layer; l++)
		rc = find_layer(ld, l);
	if (!rc)
		rc = check_nothing_unused(ld);
	return rc;
}

static int open_tokenizer(struct loader *ld)
{
	struct model *m = ld->m;
	uint32_t n;
	int rc;

	rc = tokenizer_open(&m->tokenizer, m->gguf, ld->err);
	if (rc)
		return error_prefix(ld->err, rc, "%s", ld->path);
	n = tokenizer_n_vocab(m->tokenizer);
	/* Embeddings are often padded upwards; the other way an id would have no row. */
	if (n > m->params.n_vocab)
		return error_set(ld->err, -EINVAL,
				 "%s: the tokenizer has %u tokens, the embedding only %u", ld->path,
				 n, m->params.n_vocab);
	m->chat = chat_detect(m->gguf);
	return 0;
}

int model_open(struct model **out, const char *path, struct lslm_error *err)
{
	struct model *m = calloc(1, sizeof(*m));
	struct loader ld = { .m = m, .path = path, .err = err };
	int rc;

	if (!m)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	rc = gguf_open(&m->gguf, path, err);
	if (!rc)
		rc = read_params(&ld);
	if (!rc)
		rc = find_tensors(&ld);
	if (!rc)
		rc = open_tokenizer(&ld);
	if (rc) {
		model_close(m);
		return rc;
	}
	*out = m;
	return 0;
}

void model_close(struct model *m)
{
	if (!m)
		return;
	if (m->tokenizer)
		tokenizer_close(m->tokenizer);
	for (size_t i = 0; i < m->n_vectors; i++)
		free(m->vectors[i]);
	free(m->vectors);
	free(m->layers);
	if (m->gguf)
		gguf_close(m->gguf);
	free(m);
}

uint64_t model_n_params(const struct model *m)
{
	uint64_t n = 0;

	for (size_t i = 0; i < gguf_n_tensors(m->gguf); i++) {
		const struct gguf_tensor *t = gguf_tensor(m->gguf, i);

		n += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
	}
	return n;
}

int model_rope_bytes(const struct model *m, uint8_t **data, size_t *size)
{
	const struct model_params *p = &m->params;
	const uint32_t n = m->rope_factors ? p->rope_dims / 2 : 0;
	const uint32_t head[] = { p->rope_layout, p->rope_dims, n };
	const float scale[] = { p->rope_base, p->rope_scale };
	uint8_t *at;

	*size = sizeof(head) + sizeof(scale) + n * sizeof(float);
	*data = at = malloc(*size);
	if (!at)
		return -ENOMEM;
	memcpy(at, head, sizeof(head));
	memcpy(at + sizeof(head), scale, sizeof(scale));
	if (n)
		memcpy(at + sizeof(head) + sizeof(scale), m->rope_factors, n * sizeof(float));
	return 0;
}
