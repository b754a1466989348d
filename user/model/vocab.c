// SPDX-License-Identifier: MIT
#include "model/vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KEY(name) "tokenizer.ggml." name

void vocab_free(struct vocab *v)
{
	strtab_free(&v->text);
	free(v->attr);
	free(v->scores);
	*v = (struct vocab){ 0 };
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t len)
{
	int32_t id = strtab_find(&v->text, text, len);

	return id < (int32_t)v->n ? id : -1;
}

static int32_t find_name(const struct vocab *v, const char *name)
{
	return vocab_find(v, name, strlen(name));
}

/* --- tokens --- */

/* The family and, for byte-level BPE, the pre-tokenizer. */
static int load_kind(struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	struct gguf_str model, pre;
	int ret = gguf_get_str(g, KEY("model"), &model);

	if (ret < 0)
		return error_set(err, -EINVAL, "the file has no tokenizer (tokenizer.ggml.model)");
	if (model.len == 5 && memcmp(model.ptr, "llama", 5) == 0)
		return 0;
	if (model.len != 4 || memcmp(model.ptr, "gpt2", 4) != 0)
		return error_set(err, -ENOTSUP,
				 "tokenizer.ggml.model %.*s is not supported, only llama and gpt2",
				 (int)(model.len < 40 ? model.len : 40), model.ptr);
	if (gguf_get_str(g, KEY("pre"), &pre) < 0)
		return error_set(err, -ENOTSUP,
				 "tokenizer.ggml.pre is missing, so how to cut text is unknown; "
				 "convert the model again");
	v->pre = pretokenize_find(pre.ptr, pre.len);
	if (!v->pre)
		return error_set(err, -ENOTSUP, "pre-tokenizer %.*s is not supported",
				 (int)(pre.len < 40 ? pre.len : 40), pre.ptr);
	return 0;
}

static int load_texts(struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	int64_t n = gguf_arr_len(g, KEY("tokens"));
	char empty[32];

	if (n <= 0)
		return error_set(err, -EINVAL, "tokenizer.ggml.tokens is missing or empty");
	for (int64_t i = 0; i < n; i++) {
		struct gguf_str s;
		int32_t id;

		if (gguf_arr_str(g, KEY("tokens"), (size_t)i, &s) < 0)
			return error_set(err, -EINVAL,
					 "tokenizer.ggml.tokens is not an array of strings");
		if (!s.len) {
			s.len = (size_t)snprintf(empty, sizeof(empty), "[EMPTY_%lld]",
						 (long long)i);
			s.ptr = empty;
		}
		id = strtab_intern(&v->text, s.ptr, s.len);
		if (id < 0)
			return error_set(err, id, "no memory for %lld tokens", (long long)n);
		if (id != i)
			return error_set(
				err, -EINVAL,
				"tokens %d and %lld have the same text; the file is damaged", id,
				(long long)i);
	}
	v->n = (uint32_t)n;
	return 0;
}

static int load_types(struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	/* Indexed by the file's number; 5, unused, and what is unknown have no attribute. */
	static const uint8_t attrs[] = {
		[1] = VOCAB_NORMAL, [2] = VOCAB_UNKNOWN, [3] = VOCAB_CONTROL,
		[4] = VOCAB_USER,   [6] = VOCAB_BYTE,
	};
	int64_t n = gguf_arr_len(g, KEY("token_type"));

	v->attr = calloc(v->n, 1);
	if (!v->attr)
		return error_set(err, -ENOMEM, "no memory for %u tokens", v->n);
	if (n == -ENOENT) {
		memset(v->attr, VOCAB_NORMAL, v->n);
		return 0;
	}
	if (n != v->n)
		return error_set(err, -EINVAL,
				 "tokenizer.ggml.token_type has %lld entries for %u tokens",
				 n < 0 ? 0 : (long long)n, v->n);
	for (uint32_t i = 0; i < v->n; i++) {
		int32_t type;

		if (gguf_arr_i32(g, KEY("token_type"), i, &type) < 0)
			return error_set(err, -EINVAL,
					 "tokenizer.ggml.token_type is not an array of integers");
		if (type >= 0 && (size_t)type < sizeof(attrs))
			v->attr[i] = attrs[type];
	}
	return 0;
}

static int load_scores(struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	int64_t n = gguf_arr_len(g, KEY("scores"));

	if (v->pre)
		return 0;
	if (n != v->n)
		return error_set(err, -EINVAL,
				 "tokenizer.ggml.scores has %lld entries for %u tokens",
				 n < 0 ? 0 : (long long)n, v->n);
	v->scores = calloc(v->n, sizeof(*v->scores));
	if (!v->scores)
		return error_set(err, -ENOMEM, "no memory for %u tokens", v->n);
	for (uint32_t i = 0; i < v->n; i++)
		if (gguf_arr_f32(g, KEY("scores"), i, &v->scores[i]) < 0 || isnan(v->scores[i]))
			return error_set(err, -EINVAL,
					 "tokenizer.ggml.scores: entry %u is not a number", i);
	return 0;
}

/* --- special tokens --- */

/* *id stays as it is where the key is absent. Returns 1 where it is present. */
static int load_id(const struct vocab *v, const struct gguf *g, const char *key, int32_t *id,
		   struct lslm_error *err)
{
	uint32_t value;
	int ret = gguf_get_u32(g, key, &value);

	if (ret == -ENOENT)
		return 0;
	if (ret < 0)
		return error_set(err, -EINVAL, "%s is not a token id", key);
	if (value >= v->n)
		return error_set(err, -EINVAL, "%s is %u, but there are only %u tokens", key, value,
				 v->n);
	*id = (int32_t)value;
	return 1;
}

static int load_flag(const struct gguf *g, const char *key, bool *flag, struct lslm_error *err)
{
	int ret = gguf_get_bool(g, key, flag);

	return ret == 0 || ret == -ENOENT ? 0 : error_set(err, -EINVAL, "%s is not a bool", key);
}

/* A type that the text implies replaces the one in the file. */
static void set_control(struct vocab *v, int32_t id)
{
	v->attr[id] = VOCAB_CONTROL | (v->attr[id] & VOCAB_EOG);
}

/*
 * A role that a token may have: by a key, else by the first of its names that is a token.
 * end: does it end a generation?
 */
struct role {
	const char *keys[2];
	const char *names[7];
	bool end;
};

static const struct role roles[] = {
	{ { KEY("eot_token_id") },
	  { "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<EOT>",
	    "<｜end▁of▁sentence｜>" },
	  true },
	{ { KEY("eom_token_id") }, { "<|eom_id|>" }, true },
	{ { KEY("fim_pre_token_id"), KEY("prefix_token_id") },
	  { "<|fim_prefix|>", "<fim-prefix>", "<｜fim▁begin｜>", "<PRE>" },
	  false },
	{ { KEY("fim_suf_token_id"), KEY("suffix_token_id") },
	  { "<|fim_suffix|>", "<fim-suffix>", "<｜fim▁hole｜>", "<SUF>" },
	  false },
	{ { KEY("fim_mid_token_id"), KEY("middle_token_id") },
	  { "<|fim_middle|>", "<fim-middle>", "<｜fim▁end｜>", "<MID>" },
	  false },
	{ { KEY("fim_pad_token_id") }, { "<|fim_pad|>", "<fim-pad>", "<PAD>" }, true },
	{ { KEY("fim_rep_token_id") },
	  { "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>" },
	  true },
	{ { KEY("fim_sep_token_id") }, { "<|file_sep|>" }, true },
};

static int load_role(struct vocab *v, const struct gguf *g, const struct role *role,
		     struct lslm_error *err)
{
	int32_t id = -1;
	int ret;

	for (size_t i = 0; i < 2 && role->keys[i]; i++) {
		ret = load_id(v, g, role->keys[i], &id, err);
		if (ret < 0)
			return ret;
	}
	for (size_t i = 0; id < 0 && i < 7 && role->names[i]; i++) {
		id = find_name(v, role->names[i]);
		if (id >= 0)
			set_control(v, id);
	}
	if (id >= 0 && role->end)
		v->attr[id] |= VOCAB_EOG;
	return 0;
}

static int load_ends(struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	static const char *const names[] = { "<|eot_id|>",    "<|im_end|>",    "<|end|>",
					     "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
					     "<EOT>" };
	int ret;

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		ret = load_role(v, g, &roles[i], err);
		if (ret < 0)
			return ret;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int32_t id = find_name(v, names[i]);

		if (id >= 0) {
			set_control(v, id);
			v->attr[id] |= VOCAB_EOG;
		}
	}
	if (v->eos >= 0)
		v->attr[v->eos] |= VOCAB_EOG;
	return 0;
}

static int load_special(struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	int ret;

	v->bos = v->pre ? 11 : 1;
	v->eos = v->pre ? 11 : 2;
	v->unk = v->pre ? -1 : 0;
	if (v->bos >= (int32_t)v->n)
		v->bos = -1;
	if (v->eos >= (int32_t)v->n)
		v->eos = -1;
	v->add_bos = v->pre ? v->pre->add_bos : true;
	v->add_space = !v->pre;
	ret = load_id(v, g, KEY("bos_token_id"), &v->bos, err);
	if (ret >= 0)
		ret = load_id(v, g, KEY("eos_token_id"), &v->eos, err);
	if (ret >= 0)
		ret = load_id(v, g, KEY("unknown_token_id"), &v->unk, err);
	if (ret >= 0)
		ret = load_flag(g, KEY("add_bos_token"), &v->add_bos, err);
	if (ret >= 0)
		ret = load_flag(g, KEY("add_eos_token"), &v->add_eos, err);
	if (ret >= 0)
		ret = load_flag(g, KEY("add_space_prefix"), &v->add_space, err);
	if (ret < 0)
		return ret;
	if (v->add_bos && v->bos < 0)
		return error_set(err, -EINVAL, "add_bos_token is set, but there is no BOS token");
	if (v->add_eos && v->eos < 0)
		return error_set(err, -EINVAL, "add_eos_token is set, but there is no EOS token");
	return load_ends(v, g, err);
}

static bool is_phi3(const struct gguf *g)
{
	struct gguf_str name;

	if (gguf_get_str(g, "general.name", &name) < 0)
		return false;
	for (size_t i = 0; i + 4 <= name.len; i++)
		if (strncasecmp(name.ptr + i, "phi3", 4) == 0 ||
		    (i + 5 <= name.len && strncasecmp(name.ptr + i, "phi-3", 5) == 0))
			return true;
	return false;
}

static void load_strip(struct vocab *v, const struct gguf *g)
{
	static const char *const without[] = { "<unk>", "<s>", "<|endoftext|>" };

	if (!is_phi3(g))
		return;
	for (uint32_t i = 0; i < v->n; i++)
		if (v->attr[i] & (VOCAB_CONTROL | VOCAB_USER | VOCAB_UNKNOWN))
			v->attr[i] |= VOCAB_RSTRIP;
	for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
		int32_t id = find_name(v, without[i]);

		if (id >= 0)
			v->attr[id] &= (uint8_t)~VOCAB_RSTRIP;
	}
}

int vocab_load(struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	int ret;

	*v = (struct vocab){ 0 };
	ret = load_kind(v, g, err);
	if (ret == 0)
		ret = load_texts(v, g, err);
	if (ret == 0)
		ret = load_types(v, g, err);
	if (ret == 0)
		ret = load_scores(v, g, err);
	if (ret == 0)
		ret = load_special(v, g, err);
	if (ret < 0) {
		vocab_free(v);
		return ret;
	}
	load_strip(v, g);
	return 0;
}
