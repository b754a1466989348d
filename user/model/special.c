// SPDX-License-Identifier: MIT
#include "model/special.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct special_length {
	size_t len;
	uint8_t first[32];
};

static void set_bit(uint8_t bits[32], char byte)
{
	bits[(unsigned char)byte / 8] |= (uint8_t)(1u << (unsigned char)byte % 8);
}

static bool has_bit(const uint8_t bits[32], char byte)
{
	return bits[(unsigned char)byte / 8] & 1u << (unsigned char)byte % 8;
}

static bool is_special(const struct vocab *v, uint32_t id)
{
	return v->attr[id] & (VOCAB_CONTROL | VOCAB_USER | VOCAB_UNKNOWN);
}

void special_free(struct special *s)
{
	free(s->lengths);
	*s = (struct special){ 0 };
}

static int by_length(const void *a, const void *b)
{
	const struct special_length *x = a, *y = b;

	return x->len < y->len ? 1 : x->len > y->len ? -1 : 0;
}

int special_load(struct special *s, const struct vocab *v, struct lslm_error *err)
{
	size_t count = 0, len, n = 0;

	*s = (struct special){ 0 };
	for (uint32_t i = 0; i < v->n; i++)
		count += is_special(v, i);
	if (!count)
		return 0;
	s->lengths = calloc(count, sizeof(*s->lengths));
	if (!s->lengths)
		return error_set(err, -ENOMEM, "no memory for %zu special tokens", count);
	for (uint32_t i = 0; i < v->n; i++) {
		const char *text = strtab_get(&v->text, i, &len);

		if (!is_special(v, i))
			continue;
		set_bit(s->first, text[0]);
		set_bit(s->lengths[n].first, text[0]);
		s->lengths[n++].len = len;
	}
	qsort(s->lengths, n, sizeof(*s->lengths), by_length);
	for (size_t i = 0; i < n; i++) {
		struct special_length *last = s->n ? &s->lengths[s->n - 1] : NULL;

		if (!last || last->len != s->lengths[i].len)
			s->lengths[s->n++] = s->lengths[i];
		else
			for (size_t b = 0; b < 32; b++)
				last->first[b] |= s->lengths[i].first[b];
	}
	return 0;
}

/* A special token at a place, before it is known whether the place is still free. */
struct hit {
	uint32_t at;
	int32_t id;
};

/* One search: the places where a special token can start, and the cuts made so far. */
struct search {
	const struct vocab *v;
	const char *text;
	size_t len;
	const struct special_area *areas;
	size_t n_areas;
	uint32_t *places;
	struct hit *hits; /* room for one at each place */
	size_t n_places;
	struct special_cut *cuts, *next; /* two lists of the same capacity, swapped every pass */
	size_t n_cuts, cap;
};

static int find_places(struct search *f, const uint8_t first[32])
{
	size_t n = 0;

	for (size_t i = 0; i < f->len; i++)
		n += has_bit(first, f->text[i]);
	if (!n)
		return 0;
	f->places = malloc(n * sizeof(*f->places));
	f->hits = malloc(n * sizeof(*f->hits));
	if (!f->places || !f->hits)
		return -ENOMEM;
	for (size_t i = 0; i < f->len; i++)
		if (has_bit(first, f->text[i]))
			f->places[f->n_places++] = (uint32_t)i;
	return 0;
}

static int reserve_cuts(struct search *f, size_t n)
{
	size_t cap = f->cap ? f->cap : 16;
	struct special_cut *cuts, *next;

	while (cap < n)
		cap *= 2;
	if (cap == f->cap)
		return 0;
	cuts = realloc(f->cuts, cap * sizeof(*cuts));
	if (!cuts)
		return -ENOMEM;
	f->cuts = cuts;
	next = realloc(f->next, cap * sizeof(*next));
	if (!next)
		return -ENOMEM;
	f->next = next;
	f->cap = cap;
	return 0;
}

/* The special token of this length at pos, or -1; *area moves on to the one that may hold pos. */
static int32_t token_at(const struct search *f, size_t pos, size_t len, size_t *area)
{
	int32_t id = vocab_find(f->v, f->text + pos, len);

	if (id < 0 || !is_special(f->v, (uint32_t)id))
		return -1;
	if (f->v->attr[id] & VOCAB_USER)
		return id;
	while (*area < f->n_areas && f->areas[*area].end <= pos)
		++*area;
	if (*area == f->n_areas || pos < f->areas[*area].start || pos + len > f->areas[*area].end)
		return -1;
	return id;
}

/* The order in which hits of one length get their places. */
static int by_id(const void *a, const void *b)
{
	const struct hit *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

static size_t find_hits(struct search *f, const struct special_length *l)
{
	size_t n = 0, area = 0;

	for (size_t i = 0; i < f->n_places; i++) {
		size_t at = f->places[i];
		int32_t id = -1;

		if (f->len - at >= l->len && has_bit(l->first, f->text[at]))
			id = token_at(f, at, l->len, &area);
		if (id >= 0)
			f->hits[n++] = (struct hit){ (uint32_t)at, id };
	}
	qsort(f->hits, n, sizeof(*f->hits), by_id);
	return n;
}

static size_t skip_spaces(const char *text, size_t pos, size_t end)
{
	while (pos < end && (text[pos] == ' ' || (text[pos] >= '\t' && text[pos] <= '\r')))
		pos++;
	return pos;
}

/* Make cuts of one token's hits, where the cuts so far leave room. */
static int cut_hits(struct search *f, const struct hit *hits, size_t n_hits, size_t len)
{
	size_t cut = 0, n = 0, pos = 0;
	struct special_cut *swap;

	if (reserve_cuts(f, f->n_cuts + n_hits) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n_hits; i++) {
		size_t at = hits[i].at, end;

		while (cut < f->n_cuts && f->cuts[cut].start <= at) {
			pos = f->cuts[cut].end;
			f->next[n++] = f->cuts[cut++];
		}
		end = cut < f->n_cuts ? f->cuts[cut].start : f->len;
		if (at < pos || end - at < len)
			continue;
		pos = at + len;
		if (f->v->attr[hits[i].id] & VOCAB_RSTRIP)
			pos = skip_spaces(f->text, pos, end);
		f->next[n++] = (struct special_cut){ at, pos, hits[i].id };
	}
	while (cut < f->n_cuts)
		f->next[n++] = f->cuts[cut++];
	swap = f->cuts;
	f->cuts = f->next;
	f->next = swap;
	f->n_cuts = n;
	return 0;
}

static int find_length(struct search *f, const struct special_length *l)
{
	size_t n = find_hits(f, l), end;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < n; i = end) {
		for (end = i + 1; end < n && f->hits[end].id == f->hits[i].id;)
			end++;
		ret = cut_hits(f, f->hits + i, end - i, l->len);
	}
	return ret;
}

int special_find(const struct special *s, const struct vocab *v, const char *text, size_t len,
		 const struct special_area *areas, size_t n_areas, struct special_cut **cuts,
		 size_t *n)
{
	struct search f = { v, text, len, areas, n_areas, .places = NULL };
	int ret = find_places(&f, s->first);

	for (size_t i = 0; ret == 0 && f.n_places && i < s->n; i++)
		ret = find_length(&f, &s->lengths[i]);
	free(f.places);
	free(f.hits);
	free(f.next);
	if (ret < 0) {
		free(f.cuts);
		return ret;
	}
	*cuts = f.cuts;
	*n = f.n_cuts;
	return 0;
}
