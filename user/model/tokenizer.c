// SPDX-License-Identifier: MIT
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/bytes.h"
#include "model/bpe.h"
#include "model/special.h"
#include "model/spm.h"
#include "model/unicode.h"
#include "model/vocab.h"

struct tokenizer {
	struct vocab vocab;
	struct special special;
	struct spm spm; /* one of the two is in use */
	struct bpe bpe;
	uint8_t fingerprint[32];
};

/* --- opening --- */

static void hash_u32(crypto_generichash_state *state, uint32_t value)
{
	uint8_t bytes[4];

	put_le32(bytes, value);
	crypto_generichash_update(state, bytes, sizeof(bytes));
}

static void hash_str(crypto_generichash_state *state, const char *text, size_t len)
{
	hash_u32(state, (uint32_t)len);
	crypto_generichash_update(state, (const uint8_t *)text, len);
}

static void hash_tokens(crypto_generichash_state *state, const struct vocab *v)
{
	hash_u32(state, v->n);
	for (uint32_t i = 0; i < v->n; i++) {
		uint8_t attr = v->attr[i] & (uint8_t)~VOCAB_EOG;
		uint32_t score;
		size_t len;
		const char *text = strtab_get(&v->text, i, &len);

		hash_str(state, text, len);
		crypto_generichash_update(state, &attr, 1);
		if (!v->scores)
			continue;
		memcpy(&score, &v->scores[i], sizeof(score));
		hash_u32(state, score);
	}
}

static void hash_merges(crypto_generichash_state *state, const struct vocab *v,
			const struct gguf *g)
{
	const char *key = "tokenizer.ggml.merges";
	int64_t n = v->pre ? gguf_arr_len(g, key) : 0;
	struct gguf_str s;

	hash_u32(state, (uint32_t)n);
	for (int64_t i = 0; i < n; i++)
		if (gguf_arr_str(g, key, (size_t)i, &s) == 0)
			hash_str(state, s.ptr, s.len);
}

static void hash_all(struct tokenizer *t, const struct gguf *g)
{
	const struct vocab *v = &t->vocab;
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, sizeof(t->fingerprint));
	crypto_generichash_update(&state, (const uint8_t *)"lslm tokenizer 1", 16);
	hash_u32(&state, v->pre ? 1u + v->pre->rules : 0);
	hash_u32(&state, (uint32_t)v->add_bos | (uint32_t)v->add_eos << 1 |
				 (uint32_t)(!v->pre && v->add_space) << 2 |
				 (uint32_t)(v->pre && v->pre->whole_words) << 3);
	hash_u32(&state, (uint32_t)v->bos);
	hash_u32(&state, (uint32_t)v->eos);
	hash_u32(&state, (uint32_t)v->unk);
	hash_tokens(&state, v);
	hash_merges(&state, v, g);
	crypto_generichash_final(&state, t->fingerprint, sizeof(t->fingerprint));
}

int tokenizer_open(struct tokenizer **out, const struct gguf *g, struct lslm_error *err)
{
	struct tokenizer *t;
	int ret;

	if (sodium_init() < 0)
		return error_set(err, -EIO, "libsodium does not start");
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_set(err, -ENOMEM, "no memory for a tokenizer");
	ret = vocab_load(&t->vocab, g, err);
	if (ret == 0)
		ret = t->vocab.pre ? bpe_load(&t->bpe, &t->vocab, g, err) :
				     spm_load(&t->spm, &t->vocab, err);
	if (ret == 0)
		ret = special_load(&t->special, &t->vocab, err);
	if (ret < 0) {
		tokenizer_close(t);
		return error_prefix(err, ret, "%s", gguf_path(g));
	}
	hash_all(t, g);
	*out = t;
	return 0;
}

void tokenizer_close(struct tokenizer *t)
{
	if (!t)
		return;
	special_free(&t->special);
	bpe_free(&t->bpe);
	vocab_free(&t->vocab);
	free(t);
}

/* --- encoding --- */

static int encode_text(const struct tokenizer *t, struct merge *m, const char *text, size_t len,
		       bool after_special, struct idlist *out)
{
	const struct vocab *v = &t->vocab;

	if (!len)
		return 0;
	if (v->pre)
		return bpe_encode(&t->bpe, v, m, text, len, out);
	return spm_encode(&t->spm, v, m, text, len, v->add_space && after_special, out);
}

/* The text between the special tokens, and these. The start counts as one. */
static int encode_cuts(const struct tokenizer *t, const char *text, size_t len,
		       const struct special_cut *cuts, size_t n, struct idlist *out)
{
	struct merge m = { 0 };
	bool after_special = true;
	size_t pos = 0;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < n; i++) {
		ret = encode_text(t, &m, text + pos, cuts[i].start - pos, after_special, out);
		if (ret == 0)
			ret = idlist_push(out, cuts[i].id);
		pos = cuts[i].end;
		after_special = true;
	}
	if (ret == 0)
		ret = encode_text(t, &m, text + pos, len - pos, after_special, out);
	merge_free(&m);
	return ret;
}

static int encode(const struct tokenizer *t, const char *text, size_t len,
		  const struct special_area *areas, size_t n_areas, unsigned int flags,
		  struct idlist *out)
{
	const struct vocab *v = &t->vocab;
	struct special_cut *cuts = NULL;
	size_t n = 0;
	int ret = special_find(&t->special, v, text, len, areas, n_areas, &cuts, &n);

	if (ret == 0 && flags & TOKENIZER_ADD_SPECIAL && v->add_bos)
		ret = idlist_push(out, v->bos);
	if (ret == 0)
		ret = encode_cuts(t, text, len, cuts, n, out);
	if (ret == 0 && flags & TOKENIZER_ADD_SPECIAL && v->add_eos)
		ret = idlist_push(out, v->eos);
	free(cuts);
	return ret;
}

/* The parts as one text and the areas of the special ones; false: no memory. */
static bool join(const struct tokenizer_part *parts, size_t n, size_t len, char **text,
		 struct special_area **areas, size_t *n_areas)
{
	size_t pos = 0;

	*n_areas = 0;
	*text = malloc(len + 1);
	*areas = calloc(n + 1, sizeof(**areas));
	if (!*text || !*areas)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (parts[i].len)
			memcpy(*text + pos, parts[i].text, parts[i].len);
		if (parts[i].special)
			(*areas)[(*n_areas)++] = (struct special_area){ pos, pos + parts[i].len };
		pos += parts[i].len;
	}
	return true;
}

int tokenizer_encode_parts(const struct tokenizer *t, const struct tokenizer_part *parts,
			   size_t n_parts, unsigned int flags, int32_t **ids, size_t *n,
			   struct lslm_error *err)
{
	struct special_area *areas = NULL;
	struct idlist out = { 0 };
	size_t len = 0, n_areas;
	char *text = NULL;
	int ret = -ENOMEM;

	for (size_t i = 0; i < n_parts; i++)
		if (__builtin_add_overflow(len, parts[i].len, &len) || len > TOKENIZER_MAX_TEXT)
			return error_set(err, -E2BIG, "a text of over %zu MiB cannot be tokenised",
					 TOKENIZER_MAX_TEXT >> 20);
	/* One place to spare, so that a text without tokens is not NULL. */
	if (join(parts, n_parts, len, &text, &areas, &n_areas) && idlist_push(&out, 0) == 0) {
		out.n = 0;
		ret = encode(t, text, len, areas, n_areas, flags, &out);
	}
	free(text);
	free(areas);
	if (ret < 0) {
		free(out.ids);
		return error_set(err, ret, "no memory to tokenise %zu bytes", len);
	}
	*ids = out.ids;
	*n = out.n;
	return 0;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned int flags,
		     int32_t **ids, size_t *n, struct lslm_error *err)
{
	struct tokenizer_part part = { text, len, (flags & TOKENIZER_PARSE_SPECIAL) != 0 };

	return tokenizer_encode_parts(t, &part, 1, flags, ids, n, err);
}

/* --- decoding --- */

/* Counts all that is put, keeps what fits. */
struct sink {
	char *buf;
	size_t cap, n;
};

static void put(struct sink *s, const char *bytes, size_t len)
{
	size_t room = s->n < s->cap ? s->cap - s->n : 0;

	if (room)
		memcpy(s->buf + s->n, bytes, len < room ? len : room);
	s->n += len;
}

/* U+2581 is a space. */
static void put_piece(struct sink *s, const char *text, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = len - i >= 3 && memcmp(text + i, "\xe2\x96\x81", 3) == 0 ? 3 : 1;
		if (n == 3)
			put(s, " ", 1);
		else
			put(s, text + i, 1);
	}
}

/*
 * The characters as the bytes they stand for. One that stands for none shows that the vocabulary
 * is not what it says; llama.cpp makes it visible in this form, and so do we.
 */
static void put_bytes(struct sink *s, const char *text, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		uint32_t code;
		char utf8[4], hex[3];
		int byte;

		n = unicode_decode(text + i, len - i, &code);
		byte = unicode_to_byte(code);
		utf8[0] = (char)byte;
		if (byte >= 0) {
			put(s, utf8, 1);
			continue;
		}
		put(s, "[UNK_BYTE_0x", 12);
		for (size_t k = 0, n_utf8 = unicode_encode(code, utf8); k < n_utf8; k++) {
			snprintf(hex, sizeof(hex), "%02x", (unsigned char)utf8[k]);
			put(s, hex, 2);
		}
		put(s, text, len);
		put(s, "]", 1);
	}
}

size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *buf, size_t cap)
{
	const struct vocab *v = &t->vocab;
	struct sink s = { buf, cap, 0 };
	const char *text;
	size_t len;
	uint8_t attr;
	char byte;

	if (id < 0 || (uint32_t)id >= v->n)
		return 0;
	attr = v->attr[id];
	text = strtab_get(&v->text, (uint32_t)id, &len);
	if (attr & (VOCAB_CONTROL | VOCAB_UNKNOWN)) {
		if (special)
			put(&s, text, len);
	} else if (attr & VOCAB_USER) {
		put(&s, text, len);
	} else if (attr & VOCAB_NORMAL) {
		if (v->pre)
			put_bytes(&s, text, len);
		else
			put_piece(&s, text, len);
	} else if (attr & VOCAB_BYTE && !v->pre) {
		byte = (char)spm_byte(text, len);
		put(&s, &byte, 1);
	}
	return s.n;
}

/* --- what the model says about itself --- */

uint32_t tokenizer_n_vocab(const struct tokenizer *t)
{
	return t->vocab.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
	return t->vocab.bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
	return t->vocab.eos;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
	return t->vocab.add_bos;
}

static bool has_attr(const struct tokenizer *t, int32_t id, uint8_t attr)
{
	return id >= 0 && (uint32_t)id < t->vocab.n && t->vocab.attr[id] & attr;
}

bool tokenizer_is_eog(const struct tokenizer *t, int32_t id)
{
	return has_attr(t, id, VOCAB_EOG);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
	return has_attr(t, id, VOCAB_CONTROL | VOCAB_USER);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *name)
{
	return vocab_find(&t->vocab, name, strlen(name));
}

const char *tokenizer_kind(const struct tokenizer *t)
{
	return t->vocab.pre ? "gpt2" : "llama";
}

const char *tokenizer_pre(const struct tokenizer *t)
{
	return t->vocab.pre ? t->vocab.pre->name : "";
}

void tokenizer_fingerprint(const struct tokenizer *t, uint8_t out[32])
{
	memcpy(out, t->fingerprint, sizeof(t->fingerprint));
}
