// SPDX-License-Identifier: MIT
#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

#define MERGES "tokenizer.ggml.merges"

void bpe_free(struct bpe *b)
{
	free(b->pairs);
	*b = (struct bpe){ 0 };
}

static struct bpe_pair *find_pair(const struct bpe *b, uint32_t left, uint32_t right)
{
	uint64_t key = (uint64_t)left << 32 | right;
	/* Fibonacci hashing; the upper half mixes both units. */
	uint32_t at = (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32) & b->mask;

	while (b->pairs[at].unit >= 0 && (b->pairs[at].left != left || b->pairs[at].right != right))
		at = (at + 1) & b->mask;
	return &b->pairs[at];
}

/* At most half full, so that a search ends. */
static int reserve_pairs(struct bpe *b, uint64_t n)
{
	uint64_t slots = 64;

	while (slots < n * 2)
		slots *= 2;
	if (slots > UINT32_MAX)
		return -E2BIG;
	b->pairs = malloc(slots * sizeof(*b->pairs));
	if (!b->pairs)
		return -ENOMEM;
	b->mask = (uint32_t)slots - 1;
	for (uint64_t i = 0; i < slots; i++)
		b->pairs[i].unit = -1;
	return 0;
}

static int load_bytes(struct bpe *b, struct vocab *v)
{
	for (unsigned int i = 0; i < 256; i++) {
		char text[4];
		size_t len = unicode_encode(unicode_from_byte((uint8_t)i), text);

		b->byte_unit[i] = strtab_intern(&v->text, text, len);
		if (b->byte_unit[i] < 0)
			return b->byte_unit[i];
	}
	return 0;
}

/* "left right": units for both and for what they make. The text is in the file, so is copied. */
static int load_merge(struct bpe *b, struct vocab *v, struct gguf_str s, uint32_t rank,
		      char *joined)
{
	/* A part may start with a space, though no byte is written so. */
	const char *space = s.len > 1 ? memchr(s.ptr + 1, ' ', s.len - 1) : NULL;
	size_t n = space ? (size_t)(space - s.ptr) : 0;
	struct bpe_pair *pair;
	int32_t left, right, unit;

	if (!space || n + 1 == s.len)
		return -EINVAL;
	memcpy(joined, s.ptr, n);
	memcpy(joined + n, space + 1, s.len - n - 1);
	left = strtab_intern(&v->text, joined, n);
	right = strtab_intern(&v->text, joined + n, s.len - n - 1);
	unit = strtab_intern(&v->text, joined, s.len - 1);
	if (left < 0 || right < 0 || unit < 0)
		return left < 0 ? left : right < 0 ? right : unit;
	pair = find_pair(b, (uint32_t)left, (uint32_t)right);
	if (pair->unit < 0)
		*pair = (struct bpe_pair){ (uint32_t)left, (uint32_t)right, rank, unit };
	return 0;
}

static int load_merges(struct bpe *b, struct vocab *v, const struct gguf *g, int64_t n,
		       struct lslm_error *err)
{
	char *joined = NULL;
	size_t cap = 0;
	int ret = 0;

	for (int64_t i = 0; ret == 0 && i < n; i++) {
		struct gguf_str s;

		if (gguf_arr_str(g, MERGES, (size_t)i, &s) < 0) {
			ret = error_set(err, -EINVAL, MERGES " is not an array of strings");
			break;
		}
		if (s.len > cap) {
			free(joined);
			cap = s.len * 2;
			joined = malloc(cap);
		}
		ret = cap && !joined ? -ENOMEM : load_merge(b, v, s, (uint32_t)i, joined);
		if (ret == -EINVAL)
			error_set(err, ret,
				  MERGES ": entry %lld is not two parts with a space "
					 "between; the file is damaged",
				  (long long)i);
		else if (ret < 0)
			error_set(err, ret, "no memory for %lld merges", (long long)n);
	}
	free(joined);
	return ret;
}

int bpe_load(struct bpe *b, struct vocab *v, const struct gguf *g, struct lslm_error *err)
{
	int64_t n = gguf_arr_len(g, MERGES);
	int ret;

	memset(b, 0, sizeof(*b));
	if (n < 0)
		return error_set(err, -EINVAL, MERGES " is missing");
	ret = reserve_pairs(b, (uint64_t)n);
	if (ret == 0)
		ret = load_bytes(b, v);
	if (ret < 0)
		error_set(err, ret, "no memory for %lld merges", (long long)n);
	else
		ret = load_merges(b, v, g, n, err);
	if (ret < 0)
		bpe_free(b);
	return ret;
}

static bool unit_merge(const void *family, const struct merge *m, uint32_t left, uint32_t right,
		       uint32_t *rank, int32_t *unit)
{
	const struct bpe_pair *pair = find_pair(family, (uint32_t)m->symbols[left].unit,
						(uint32_t)m->symbols[right].unit);

	*rank = pair->rank;
	*unit = pair->unit;
	return pair->unit >= 0;
}

/* The token that is the word as a whole, or -1. name has room for the longest token. */
static int32_t find_word(const struct vocab *v, const char *text, size_t len, char *name)
{
	size_t n = 0;

	if (len > v->text.longest)
		return -1;
	for (size_t i = 0; i < len && n <= v->text.longest; i++)
		n += unicode_encode(unicode_from_byte((uint8_t)text[i]), name + n);
	return vocab_find(v, name, n);
}

static int encode_word(const struct bpe *b, const struct vocab *v, struct merge *m,
		       const char *text, size_t len, struct idlist *out)
{
	int ret = merge_start(m, len);

	if (ret < 0)
		return ret;
	for (size_t i = 0; i < len; i++)
		merge_add(m, (uint32_t)i, 1, b->byte_unit[(unsigned char)text[i]]);
	ret = merge_run(m, unit_merge, b);
	for (uint32_t i = 0; ret == 0 && i < m->len; i = m->symbols[i].next) {
		int32_t unit = m->symbols[i].unit;

		if (unit < (int32_t)v->n) {
			ret = idlist_push(out, unit);
			continue;
		}
		for (uint32_t j = i; ret == 0 && j < m->symbols[i].next; j++) {
			unit = b->byte_unit[(unsigned char)text[j]];
			if (text[j] > ' ' && text[j] <= '~' && unit < (int32_t)v->n)
				ret = idlist_push(out, unit);
		}
	}
	return ret;
}

int bpe_encode(const struct bpe *b, const struct vocab *v, struct merge *m, const char *text,
	       size_t len, struct idlist *out)
{
	struct pretokenize w;
	char *name = NULL;
	int ret = 0;

	if (v->pre->whole_words) {
		name = malloc(v->text.longest + 4);
		if (!name)
			return -ENOMEM;
	}
	pretokenize_start(&w, v->pre->rules, text, len);
	while (ret == 0 && pretokenize_next(&w)) {
		size_t n = w.end - w.start;
		int32_t id = name ? find_word(v, text + w.start, n, name) : -1;

		if (id >= 0)
			ret = idlist_push(out, id);
		else
			ret = encode_word(b, v, m, text + w.start, n, out);
	}
	free(name);
	return ret;
}
