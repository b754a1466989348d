// SPDX-License-Identifier: MIT
#include "model/pretokenize.h"

#include <string.h>

#include "model/unicode.h"

#define BIT(class) (1u << (class))
#define SYMBOLS	   (BIT(UNICODE_OTHER) | BIT(UNICODE_PUNCT)) /* [^\s\p{L}\p{N}] */

static const struct pretokenize_kind kinds[] = {
	{ "gpt-2", PRETOKENIZE_GPT2, false, false },
	{ "phi-2", PRETOKENIZE_GPT2, false, false },
	{ "gigachat", PRETOKENIZE_GPT2, false, false },
	{ "roberta-bpe", PRETOKENIZE_GPT2, false, false },
	{ "mpt", PRETOKENIZE_GPT2, false, false },
	{ "olmo", PRETOKENIZE_GPT2, false, false },
	{ "jais", PRETOKENIZE_GPT2, false, false },
	{ "llama-bpe", PRETOKENIZE_LLAMA3, true, true },
	{ "llama3", PRETOKENIZE_LLAMA3, true, true },
	{ "llama-v3", PRETOKENIZE_LLAMA3, true, true },
	{ "falcon3", PRETOKENIZE_LLAMA3, true, true },
	{ "dbrx", PRETOKENIZE_LLAMA3, false, false },
	{ "smaug-bpe", PRETOKENIZE_LLAMA3, false, false },
	{ "qwen2", PRETOKENIZE_QWEN2, false, false },
	{ "deepseek-r1-qwen", PRETOKENIZE_QWEN2, false, false },
	{ "megrez", PRETOKENIZE_QWEN2, false, false },
	{ "stablelm2", PRETOKENIZE_QWEN2, false, false },
	{ "smollm", PRETOKENIZE_DIGITS, false, false },
	{ "starcoder", PRETOKENIZE_DIGITS, false, false },
	{ "refact", PRETOKENIZE_DIGITS, false, false },
	{ "command-r", PRETOKENIZE_DIGITS, false, false },
	{ "codeshell", PRETOKENIZE_DIGITS, false, false },
	{ "exaone", PRETOKENIZE_DIGITS, false, false },
	{ "minerva-7b", PRETOKENIZE_DIGITS, false, false },
	{ "falcon", PRETOKENIZE_FALCON, false, false },
};

const struct pretokenize_kind *pretokenize_find(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strlen(kinds[i].name) == len && memcmp(kinds[i].name, name, len) == 0)
			return &kinds[i];
	return NULL;
}

/* The character at pos; past the end its length is 0 and its class is in no set. */
struct character {
	uint32_t code;
	size_t len;
	unsigned int bit;
};

static struct character look(const char *text, size_t pos, size_t end)
{
	struct character c = { 0 };

	if (pos < end) {
		c.len = unicode_decode(text + pos, end - pos, &c.code);
		c.bit = BIT(unicode_class(c.code));
	}
	return c;
}

static bool is_newline(struct character c)
{
	return c.len && (c.code == '\r' || c.code == '\n');
}

/* Where the run of characters of these classes ends; at most max of them. */
static size_t run(const char *text, size_t pos, size_t end, unsigned int classes, size_t max)
{
	struct character c;

	while (max-- && (c = look(text, pos, end)).bit & classes)
		pos += c.len;
	return pos;
}

/* 's|'t|'re|'ve|'m|'ll|'d at pos: its length, or 0. */
static size_t contraction(const char *text, size_t pos, size_t end, bool fold)
{
	int a, b = 0, mask = fold ? 0x20 : 0;

	if (end - pos < 2 || text[pos] != '\'')
		return 0;
	a = text[pos + 1] | mask;
	if (a == 's' || a == 't' || a == 'm' || a == 'd')
		return 2;
	if (end - pos > 2)
		b = text[pos + 2] | mask;
	return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ at a white space: all of the run, or all but the last before another word. */
static size_t space_end(const char *text, size_t pos, size_t end)
{
	size_t last = pos, next = pos;
	struct character c;

	while ((c = look(text, next, end)).bit & BIT(UNICODE_SPACE)) {
		last = next;
		next += c.len;
	}
	return next == end || last == pos ? next : last;
}

/* The word of GPT2 at pos < end. */
static size_t gpt2_end(const char *text, size_t pos, size_t end)
{
	static const unsigned int sets[] = { BIT(UNICODE_LETTER), BIT(UNICODE_NUMBER), SYMBOLS };
	size_t n = contraction(text, pos, end, false);
	size_t from = pos + (text[pos] == ' ');
	struct character c = look(text, from, end);

	if (n)
		return pos + n;
	for (size_t i = 0; i < 3; i++)
		if (c.bit & sets[i])
			return run(text, from, end, sets[i], SIZE_MAX);
	return space_end(text, pos, end);
}

/* \s*[\r\n]+ at pos: the run of white space up to its last newline, or pos where it has none. */
static size_t newline_end(const char *text, size_t pos, size_t end)
{
	size_t newline = pos;
	struct character c;

	while ((c = look(text, pos, end)).bit & BIT(UNICODE_SPACE)) {
		pos += c.len;
		if (is_newline(c))
			newline = pos;
	}
	return newline;
}

/* The word of LLAMA3 or QWEN2 at pos < end. */
static size_t llama3_end(const char *text, size_t pos, size_t end, size_t max_digits)
{
	struct character c = look(text, pos, end), d;
	size_t n = contraction(text, pos, end, true);
	size_t from = pos + c.len;

	if (n)
		return pos + n;
	if (c.bit & BIT(UNICODE_NUMBER))
		return run(text, pos, end, BIT(UNICODE_NUMBER), max_digits);
	if (!is_newline(c)) {
		d = look(text, from, end);
		if ((c.bit | d.bit) & BIT(UNICODE_LETTER))
			return run(text, from, end, BIT(UNICODE_LETTER), SIZE_MAX);
	}
	if (c.code != ' ')
		from = pos;
	if (look(text, from, end).bit & SYMBOLS) {
		pos = run(text, from, end, SYMBOLS, SIZE_MAX);
		while (is_newline(look(text, pos, end)))
			pos++;
		return pos;
	}
	from = newline_end(text, pos, end);
	return from > pos ? from : space_end(text, pos, end);
}

/* DIGITS: every number character is a word, what lies between two is cut as GPT2 does. */
static size_t digits_end(struct pretokenize *w, size_t pos)
{
	struct character c = look(w->text, pos, w->len);
	const unsigned int others = ~BIT(UNICODE_NUMBER);

	if (c.bit & BIT(UNICODE_NUMBER))
		return pos + c.len;
	if (w->cut_end <= pos)
		w->cut_end = run(w->text, pos, w->len, others, SIZE_MAX);
	return gpt2_end(w->text, pos, w->cut_end);
}

static bool is_falcon_punct(struct character c)
{
	return c.bit & BIT(UNICODE_PUNCT) ||
	       (c.len && c.code < 0x80 && c.code && strchr("$+<=>^~|`", (int)c.code));
}

static size_t falcon_run(const char *text, size_t pos, size_t end, bool punct)
{
	struct character c;

	while ((c = look(text, pos, end)).len && is_falcon_punct(c) == punct)
		pos += c.len;
	return pos;
}

/* [0-9][0-9][0-9] inside a word of GPT2: the match at pos, or the text before the next one. */
static size_t threes_end(const char *text, size_t pos, size_t end)
{
	size_t digits = 0;

	for (size_t i = pos; i < end; i++) {
		digits = text[i] >= '0' && text[i] <= '9' ? digits + 1 : 0;
		if (digits == 3)
			return i - 2 == pos ? pos + 3 : i - 2;
	}
	return end;
}

static size_t falcon_end(struct pretokenize *w, size_t pos)
{
	if (w->number_end <= pos) {
		if (w->cut_end <= pos) {
			size_t end = falcon_run(w->text, pos, w->len, true);

			if (end > pos)
				return end;
			w->cut_end = falcon_run(w->text, pos, w->len, false);
		}
		w->number_end = gpt2_end(w->text, pos, w->cut_end);
	}
	return threes_end(w->text, pos, w->number_end);
}

void pretokenize_start(struct pretokenize *w, enum pretokenize_rules rules, const char *text,
		       size_t len)
{
	*w = (struct pretokenize){ .rules = rules, .text = text, .len = len };
}

bool pretokenize_next(struct pretokenize *w)
{
	size_t pos = w->end;

	if (pos == w->len)
		return false;
	w->start = pos;
	switch (w->rules) {
	case PRETOKENIZE_GPT2:
		w->end = gpt2_end(w->text, pos, w->len);
		break;
	case PRETOKENIZE_LLAMA3:
		w->end = llama3_end(w->text, pos, w->len, 3);
		break;
	case PRETOKENIZE_QWEN2:
		w->end = llama3_end(w->text, pos, w->len, 1);
		break;
	case PRETOKENIZE_DIGITS:
		w->end = digits_end(w, pos);
		break;
	case PRETOKENIZE_FALCON:
		w->end = falcon_end(w, pos);
		break;
	}
	return true;
}
