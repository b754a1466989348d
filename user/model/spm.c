// SPDX-License-Identifier: MIT
#include "model/spm.h"

#include <stdlib.h>
#include <string.h>

#define SPACE	  "\xe2\x96\x81" /* U+2581 */
#define SPACE_LEN 3

/* A character is what its first byte says, whatever follows: bytes that are not UTF-8 pass. */
static size_t char_len(const char *text, size_t len)
{
	unsigned char b = (unsigned char)text[0];
	size_t n = b < 0xc0 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;

	return n < len ? n : len;
}

/* How a character starts. 0xff is in no UTF-8; here it is the space, where words are cut. */
static unsigned int char_start(const char *text, size_t len)
{
	if (len >= SPACE_LEN && memcmp(text, SPACE, SPACE_LEN) == 0)
		return 0xff;
	return (unsigned char)text[0];
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int spm_byte(const char *text, size_t len)
{
	int hi, lo;

	if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
		return -1;
	hi = hex_digit(text[3]);
	lo = hex_digit(text[4]);
	return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

static void add_joins(struct spm *s, const char *text, size_t len)
{
	for (size_t i = char_len(text, len); i < len; i += char_len(text + i, len - i)) {
		unsigned int end = (unsigned char)text[i - 1];
		unsigned int start = char_start(text + i, len - i);

		s->joins[end][start / 8] |= (uint8_t)(1u << start % 8);
	}
}

int spm_load(struct spm *s, const struct vocab *v, struct lslm_error *err)
{
	static const char hex[] = "0123456789ABCDEF";

	memset(s, 0, sizeof(*s));
	for (uint32_t i = 0; i < v->n; i++) {
		size_t len;
		const char *text = strtab_get(&v->text, i, &len);

		if (v->attr[i] & VOCAB_BYTE && spm_byte(text, len) < 0)
			return error_set(
				err, -EINVAL,
				"byte token %u is not written as <0xNN>; the file is damaged", i);
		add_joins(s, text, len);
	}
	for (unsigned int b = 0; b < 256; b++) {
		char name[6] = { '<', '0', 'x', hex[b >> 4], hex[b & 15], '>' }, byte = (char)b;

		s->byte_id[b] = vocab_find(v, name, sizeof(name));
		if (s->byte_id[b] < 0)
			s->byte_id[b] = vocab_find(v, &byte, 1);
		if (s->byte_id[b] < 0)
			s->byte_id[b] = v->unk;
	}
	return 0;
}

struct family {
	const struct vocab *v;
	const char *text; /* of the word being merged */
};

/* The order of floats as that of integers, the highest score first; -0 is 0. */
static uint32_t score_rank(float score)
{
	union {
		float f;
		uint32_t u;
	} bits = { .f = score + 0.0f };

	return bits.u >> 31 ? bits.u : ~(bits.u | 0x80000000u);
}

static bool piece_merge(const void *ctx, const struct merge *m, uint32_t left, uint32_t right,
			uint32_t *rank, int32_t *unit)
{
	const struct family *f = ctx;

	*unit = vocab_find(f->v, f->text + left, m->symbols[right].next - left);
	if (*unit < 0)
		return false;
	*rank = score_rank(f->v->scores[*unit]);
	return true;
}

static int encode_word(const struct spm *s, const struct vocab *v, struct merge *m,
		       const char *text, size_t len, struct idlist *out)
{
	struct family f = { v, text };
	int ret = merge_start(m, len);

	if (ret < 0)
		return ret;
	for (size_t i = 0, n; i < len; i += n) {
		n = char_len(text + i, len - i);
		merge_add(m, (uint32_t)i, (uint32_t)n, vocab_find(v, text + i, n));
	}
	ret = merge_run(m, piece_merge, &f);
	for (uint32_t i = 0; ret == 0 && i < m->len; i = m->symbols[i].next) {
		if (m->symbols[i].unit >= 0) {
			ret = idlist_push(out, m->symbols[i].unit);
			continue;
		}
		for (uint32_t b = i; ret == 0 && b < m->symbols[i].next; b++)
			if (s->byte_id[(unsigned char)text[b]] >= 0)
				ret = idlist_push(out, s->byte_id[(unsigned char)text[b]]);
	}
	return ret;
}

/* Where the text from pos can be cut next, at the latest at its end. */
static size_t word_end(const struct spm *s, const char *text, size_t pos, size_t len)
{
	for (;;) {
		unsigned int start, end;

		pos += char_len(text + pos, len - pos);
		if (pos == len)
			return pos;
		start = char_start(text + pos, len - pos);
		end = (unsigned char)text[pos - 1];
		if (!(s->joins[end][start / 8] & 1u << start % 8))
			return pos;
	}
}

/* The text with U+2581 for each space; *len receives its length. */
static char *escape(const char *text, size_t n, bool prefix, size_t *len)
{
	size_t spaces = prefix;
	char *out, *p;

	for (size_t i = 0; i < n; i++)
		spaces += text[i] == ' ';
	*len = n + spaces * (SPACE_LEN - 1) + prefix;
	out = p = malloc(*len + 1);
	if (!out)
		return NULL;
	if (prefix)
		p = mempcpy(p, SPACE, SPACE_LEN);
	for (size_t i = 0; i < n; i++) {
		if (text[i] == ' ')
			p = mempcpy(p, SPACE, SPACE_LEN);
		else
			*p++ = text[i];
	}
	return out;
}

int spm_encode(const struct spm *s, const struct vocab *v, struct merge *m, const char *text,
	       size_t len, bool prefix, struct idlist *out)
{
	size_t n, end;
	char *escaped = escape(text, len, prefix, &n);
	int ret = 0;

	if (!escaped)
		return -ENOMEM;
	for (size_t pos = 0; ret == 0 && pos < n; pos = end) {
		end = word_end(s, escaped, pos, n);
		ret = encode_word(s, v, m, escaped + pos, end - pos, out);
	}
	free(escaped);
	return ret;
}
