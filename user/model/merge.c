// SPDX-License-Identifier: MIT
#include "model/merge.h"

#include <errno.h>
#include <stdlib.h>

/*
 * A candidate: the symbol that starts at `left` and the one after it. Merges around it may have
 * made it stale. It is current if the left symbol is alive and the two together still
 * have this size: the left one can only grow by taking the right one in, and then the pair
 * that starts there is longer than that.
 */
struct merge_pair {
	uint64_t key; /* rank << 32 | left: lowest rank first, then leftmost */
	uint32_t size;
	int32_t unit;
};

void merge_free(struct merge *m)
{
	free(m->symbols);
	free(m->heap);
	*m = (struct merge){ 0 };
}

int merge_start(struct merge *m, size_t len)
{
	if (len > m->symbols_cap) {
		size_t cap = len < 64 ? 64 : len + len / 4;

		free(m->symbols);
		m->symbols = malloc(cap * sizeof(*m->symbols));
		m->symbols_cap = m->symbols ? cap : 0;
		if (!m->symbols)
			return -ENOMEM;
	}
	m->len = (uint32_t)len;
	m->last = UINT32_MAX;
	m->heap_n = 0;
	return 0;
}

void merge_add(struct merge *m, uint32_t start, uint32_t len, int32_t unit)
{
	m->symbols[start] = (struct merge_symbol){ start + len, m->last, unit };
	m->last = start;
}

static int heap_push(struct merge *m, struct merge_pair pair)
{
	size_t i = m->heap_n;

	if (i == m->heap_cap) {
		size_t cap = i ? i * 2 : 64;
		struct merge_pair *heap = realloc(m->heap, cap * sizeof(*heap));

		if (!heap)
			return -ENOMEM;
		m->heap = heap;
		m->heap_cap = cap;
	}
	m->heap_n++;
	for (; i && pair.key < m->heap[(i - 1) / 2].key; i = (i - 1) / 2)
		m->heap[i] = m->heap[(i - 1) / 2];
	m->heap[i] = pair;
	return 0;
}

static struct merge_pair heap_pop(struct merge *m)
{
	struct merge_pair top = m->heap[0], last = m->heap[--m->heap_n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < m->heap_n) {
		if (child + 1 < m->heap_n && m->heap[child + 1].key < m->heap[child].key)
			child++;
		if (last.key <= m->heap[child].key)
			break;
		m->heap[i] = m->heap[child];
		i = child;
	}
	m->heap[i] = last;
	return top;
}

/* Consider the symbol at left and its next one. */
static int consider(struct merge *m, uint32_t left, merge_fn *fn, const void *family)
{
	uint32_t right = m->symbols[left].next, rank;
	int32_t unit;

	if (right == m->len || !fn(family, m, left, right, &rank, &unit))
		return 0;
	return heap_push(m, (struct merge_pair){ .key = (uint64_t)rank << 32 | left,
						 .size = m->symbols[right].next - left,
						 .unit = unit });
}

int merge_run(struct merge *m, merge_fn *fn, const void *family)
{
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < m->len; i = m->symbols[i].next)
		ret = consider(m, i, fn, family);
	while (ret == 0 && m->heap_n) {
		struct merge_pair pair = heap_pop(m);
		uint32_t left = (uint32_t)pair.key;
		struct merge_symbol *l = &m->symbols[left], *r;

		if (!l->next || l->next == m->len)
			continue;
		r = &m->symbols[l->next];
		if (r->next - left != pair.size)
			continue;
		if (r->next < m->len)
			m->symbols[r->next].prev = left;
		l->next = r->next;
		l->unit = pair.unit;
		r->next = 0; /* dead: an alive symbol's next is past its start */
		if (l->prev != UINT32_MAX)
			ret = consider(m, l->prev, fn, family);
		if (ret == 0)
			ret = consider(m, left, fn, family);
	}
	return ret;
}
