/* SPDX-License-Identifier: MIT */
/*
 * A model: sizes, tensors, tokenizer and chat family of one GGUF.
 *
 * Architectures: llama (and what files call llama: SmolLM2, TinyLlama, Mistral,
 * Llama-3), qwen2 (biases on q, k, v), qwen3 (RMS norm over each head of q and k). They share
 * one forward pass; what differs is whether a tensor is there and how RoPE pairs
 * its dimensions. Any other architecture is refused by name.
 *
 * Weights stay in the mapped file in their own type. One-dimensional tensors (norms,
 * biases, RoPE factors) are converted to floats at open.
 *
 * A model is immutable after open and shared freely between threads.
 */
#ifndef LSLM_MODEL_MODEL_H
#define LSLM_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/chat.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

/* Which two dimensions of a head RoPE turns together. */
enum rope_layout {
	ROPE_PAIRS, /* (0,1), (2,3), ...: llama */
	ROPE_HALVES, /* (0, d/2), (1, d/2 + 1), ...: qwen2, qwen3 ("neox") */
};

struct model_params {
	char arch[16];
	uint32_t n_layer;
	uint32_t n_embd;
	uint32_t n_ff;
	uint32_t n_head;
	uint32_t n_head_kv;
	uint32_t head_dim;
	uint32_t n_vocab;
	uint32_t n_ctx_train;
	float norm_eps;
	enum rope_layout rope_layout;
	uint32_t rope_dims; /* the first so many dimensions of a head are turned */
	float rope_base;
	float rope_scale; /* positions are multiplied by it: 1, or 1/factor for linear scaling */
};

/* Matrices [out][in], row-major; vectors as floats. NULL where the architecture has none. */
struct model_layer {
	const float *attn_norm; /* [n_embd] */
	const struct gguf_tensor *wq; /* [n_head * head_dim][n_embd] */
	const struct gguf_tensor *wk; /* [n_head_kv * head_dim][n_embd] */
	const struct gguf_tensor *wv;
	const struct gguf_tensor *wo; /* [n_embd][n_head * head_dim] */
	const float *bq, *bk, *bv;
	const float *q_norm, *k_norm; /* [head_dim] */
	const float *ffn_norm; /* [n_embd] */
	const struct gguf_tensor *gate; /* [n_ff][n_embd] */
	const struct gguf_tensor *up;
	const struct gguf_tensor *down; /* [n_embd][n_ff] */
};

struct model {
	struct gguf *gguf;
	struct tokenizer *tokenizer;
	enum chat_family chat;
	struct model_params params;
	const struct gguf_tensor *embd; /* [n_vocab][n_embd] */
	const struct gguf_tensor *output; /* [n_vocab][n_embd]; embd when tied */
	const float *output_norm;
	const float *rope_factors; /* [rope_dims / 2] divisors of the frequencies, or NULL */
	struct model_layer *layers; /* [n_layer] */
	float **vectors; /* owns the converted vectors */
	size_t n_vectors;
};

/*
 * -EINVAL with one line for a file that is no such model: an architecture or RoPE scaling not
 * known, a tensor missing or of another shape, sizes that do not fit together.
 */
int model_open(struct model **out, const char *path, struct lslm_error *err);
void model_close(struct model *m);

/* Sum of all elements of all tensors. */
uint64_t model_n_params(const struct model *m);

/*
 * Everything about positions that changes KV values, in a fixed byte form for hashing: layout,
 * dims, base, scale, factors. *data is malloc'd for the caller.
 */
int model_rope_bytes(const struct model *m, uint8_t **data, size_t *size);

#endif
