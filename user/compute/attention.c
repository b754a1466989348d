// SPDX-License-Identifier: MIT
/*
 * What is computed where. A query's keys are shared out in parts, so that threads have something to do even for a
 * single query, and so that a segment of many members can be a part of each. How they are cut depends on that
 * member's segments only, and so does the result.
 */
#include "compute/attention.h"

#include <math.h>
#include <string.h>

#include "base/clones.h"
#include "compute/attention_tile.h"
#include "compute/exp.h"
#include "compute/kvbf16.h"
#include "compute/kvtile.h"

/* A run of blocks is cut into so many parts at most, of at least so many blocks. */
enum { PARTS = 8, PART_BLOCKS = 4 };
/*
 * What is done together: so many key/value heads of one query, or one of as many queries. Of those, up to ATTENTION_TILE where
 * a block is rounded first, which takes as long as two more.
 */
enum { TILE = 16 };
/* Items of a unit for each thread, if there is a choice. */
enum { ITEMS = 6 };
/* Segments at the beginning that are cut by themselves, so that others can have them too. */
enum { SHARED = 4 };
/* Heads whose parts are merged together. */
enum { HEADS = 16 };
/* What one round of the pool takes: members of many tokens, members of one, and parts of the latter. */
enum {
	TOKENS = 16,
	QUERIES = 64,
	SLOTS = QUERIES * (PARTS + 2),
	UNITS = TOKENS + QUERIES * (SHARED + 1)
};

/* A query of a member of one, or of one whose shared segments are rounded. Its slots hold the results of its parts. */
struct query {
	const struct attention_member *member;
	uint32_t row; /* in q and out */
	uint32_t pos;
	uint32_t slot, n_slots;
	uint32_t n_shared; /* segments that are units of their own */
	uint32_t at[SHARED + 1]; /* where in its slots each of them begins, and the rest */
	uint32_t part_blocks; /* of the rest */
	uint32_t taken; /* bit i: segment i is in a unit already */
};

/*
 * Queries against segments first .. end - 1 of a member. Either all tokens of one member, whose results are final, or what
 * there is of struct query, whose results go to slots.
 */
struct unit {
	const struct attention_member *member; /* whose segments are taken */
	uint32_t first, end;
	uint32_t row; /* of its first token; many tokens only */
	const uint16_t *queries; /* numbers of them; NULL: many tokens */
	uint32_t n_queries, n_tiles, tile; /* queries of each */
	uint32_t n_parts, part_blocks;
	uint32_t shared; /* which of its queries' units it is, see query.at */
	uint32_t heads, n_groups; /* key/value heads done together, and how many times that is */
};

struct round {
	const struct attention *a;
	float *scratch;
	size_t scratch_len;
	uint32_t enough; /* items for all threads */
	uint32_t n_units, n_queries, n_order, n_slots;
	struct unit units[UNITS];
	uint32_t items[UNITS + 1]; /* the first of each unit, and their number */
	struct query queries[QUERIES];
	uint16_t order[UNITS]; /* what units' queries point into */
};

/* A slot: [n_head][head_dim] sums of values, then what they are relative to, and of how much weight. */
static size_t slot_floats(uint32_t n_head, uint32_t head_dim)
{
	return (size_t)n_head * (head_dim + 2);
}

size_t attention_partials(uint32_t n_head, uint32_t head_dim)
{
	return SLOTS * slot_floats(n_head, head_dim);
}

size_t attention_scratch(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim)
{
	return attention_tile_scratch(n_head / n_head_kv, head_dim);
}

static float *slot_of(const struct attention *a, uint32_t slot)
{
	return a->partials + slot * slot_floats(a->n_head, a->head_dim);
}

/* --- what there is to do --- */

static uint32_t blocks_of(const struct attention_segment *s)
{
	return (s->n_tokens + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK;
}

/* Blocks of a segment up to a position. */
static uint32_t blocks_until(const struct attention_segment *s, uint32_t pos)
{
	const uint32_t n = blocks_of(s);
	const uint32_t seen = s->first > pos ? 0 : (pos - s->first) / ATTENTION_BLOCK + 1;

	return seen < n ? seen : n;
}

/*
 * Segments first .. end - 1 up to the last block that a query at `pos` sees. Nothing of what comes with it but is behind it
 * counts: in how many pieces a prompt is taken in depends on others.
 */
static void cut(const struct attention_member *m, uint32_t pos, uint32_t first, uint32_t end,
		uint32_t *n_parts, uint32_t *part_blocks)
{
	uint32_t blocks = 0, all = 0;

	for (uint32_t i = first; i < end; i++) {
		const uint32_t seen = blocks_until(&m->segments[i], pos);

		blocks = seen ? all + seen : blocks;
		all += blocks_of(&m->segments[i]);
	}
	*part_blocks = (blocks + PARTS - 1) / PARTS;
	if (*part_blocks < PART_BLOCKS)
		*part_blocks = PART_BLOCKS;
	*n_parts = (blocks + *part_blocks - 1) / *part_blocks;
}

/* How many segments others could have too: all of them is before the query, and something is behind. */
static uint32_t n_shared(const struct attention_member *m)
{
	uint32_t n = 0;

	while (n < SHARED && n + 1 < m->n_segments &&
	       (uint64_t)m->segments[n].first + m->segments[n].n_tokens <= m->pos)
		n++;
	return n;
}

static bool same(const struct attention_segment *a, const struct attention_segment *b)
{
	return a->base == b->base && a->blocks == b->blocks && a->n_tokens == b->n_tokens &&
	       a->stride == b->stride && a->blocks_offset == b->blocks_offset &&
	       a->value_offset == b->value_offset && a->format == b->format && a->first == b->first;
}

static bool is_rounded(const struct attention *a, const struct attention_segment *s)
{
	return s->format == ATTENTION_ROUNDED && kvbf16_fast(a->head_dim);
}

static void add_unit(struct round *r, struct unit u)
{
	const struct attention *a = r->a;
	uint32_t most = is_rounded(a, &u.member->segments[u.first]) ? ATTENTION_TILE : TILE;

	/* Threads have to get about as much as each other. */
	while (most > TILE && u.n_parts * a->n_head_kv * (u.n_queries / most + 1) < r->enough)
		most /= 2;
	u.n_tiles = (u.n_queries + most - 1) / most;
	u.tile = (u.n_queries + u.n_tiles - 1) / u.n_tiles;
	/* As many heads as have room, for the order of memory; but many queries have work enough. */
	u.heads = u.queries && u.tile < TILE ? TILE / u.tile : 1;
	if (u.heads > a->n_head_kv)
		u.heads = a->n_head_kv;
	u.n_groups = (a->n_head_kv + u.heads - 1) / u.heads;
	r->items[r->n_units + 1] = r->items[r->n_units] + u.n_tiles * u.n_parts * u.n_groups;
	r->units[r->n_units++] = u;
}

static void add_tokens(struct round *r, const struct attention_member *m, uint32_t row)
{
	add_unit(r, (struct unit){ .member = m,
				   .end = m->n_segments,
				   .row = row,
				   .n_queries = m->m,
				   .n_parts = 1,
				   .part_blocks = UINT32_MAX });
}

/* Does rounding its first segment once for everybody pay for slots of each of its tokens? */
static bool rounds(const struct attention *a, const struct attention_member *m)
{
	return n_shared(m) && is_rounded(a, m->segments);
}

/* Token i of a member. False where the round is full. */
static bool add_query(struct round *r, const struct attention_member *m, uint32_t i, uint32_t row)
{
	struct query q = { .member = m,
			   .row = row,
			   .pos = m->pos + i,
			   .slot = r->n_slots,
			   .n_shared = n_shared(m) };
	uint32_t n;

	for (uint32_t s = 0; s <= q.n_shared; s++) {
		q.at[s] = q.n_slots;
		cut(m, q.pos, s, s < q.n_shared ? s + 1 : m->n_segments, &n, &q.part_blocks);
		q.n_slots += n;
	}
	if (r->n_queries == QUERIES || r->n_slots + q.n_slots > SLOTS)
		return false;
	r->n_slots += q.n_slots;
	r->queries[r->n_queries++] = q;
	return true;
}

/* Does another query have segment s of q, or all from it on where that is not shared, cut alike? */
static bool has_too(const struct round *r, const struct query *q, const struct query *other,
		    uint32_t s)
{
	if (other->member == q->member)
		return s < q->n_shared ||
		       (other->n_slots == q->n_slots && other->part_blocks == q->part_blocks);
	return s < q->n_shared && s < other->n_shared && !r->a->apart &&
	       same(&q->member->segments[s], &other->member->segments[s]);
}

/* Segment s of query i, for all that have it and are in no unit yet; or what is not shared. */
static void add_segment(struct round *r, uint32_t i, uint32_t s)
{
	const struct query *q = &r->queries[i];
	const bool rest = s == q->n_shared;
	struct unit u = { .member = q->member,
			  .first = s,
			  .end = rest ? q->member->n_segments : s + 1,
			  .shared = s,
			  .queries = r->order + r->n_order };

	if (q->taken >> s & 1)
		return;
	cut(u.member, q->pos, u.first, u.end, &u.n_parts, &u.part_blocks);
	if (!u.n_parts)
		return;
	for (uint32_t k = i; k < r->n_queries; k++) {
		struct query *other = &r->queries[k];

		if (other->taken >> s & 1 || !has_too(r, q, other, s))
			continue;
		other->taken |= 1u << s;
		r->order[r->n_order++] = (uint16_t)k;
		u.n_queries++;
	}
	add_unit(r, u);
}

/* --- doing it --- */

/*
 * Parts are counted in blocks of all of the unit's segments; queries see nothing behind `last`.
 */
static void part(const struct unit *u, struct attention_tile *tiles, uint32_t n_tiles,
		 uint32_t first, uint32_t end)
{
	const uint32_t last = tiles->pos[tiles->n_queries - 1];
	uint32_t at = 0;

	for (uint32_t i = u->first; i < u->end && at < end; i++) {
		const struct attention_segment *s = &u->member->segments[i];
		const uint32_t n = blocks_of(s);
		const uint32_t from = first > at ? first - at : 0, seen = blocks_until(s, last);
		uint32_t to = end - at < n ? end - at : n;

		to = to < seen ? to : seen;
		if (from < to)
			attention_tile_blocks(tiles, n_tiles, s, from, to);
		at += n;
	}
}

static void put_final(const struct attention_tile *t)
{
	const struct attention *a = t->a;

	for (uint32_t r = 0; r < t->rows; r++) {
		const size_t head = (size_t)t->row[r / t->group] * a->n_head +
				    t->kv_head * t->group + r % t->group;

		const float sum = kvtile_total(t->sum + (size_t)r * KVTILE_LANES);

		kvtile_scale(a->out + head * a->head_dim, t->acc + (size_t)r * t->width,
			     sum > 0 ? 1 / sum : 0, a->head_dim);
	}
}

static void put_slot(const struct attention_tile *t, uint32_t query, uint32_t slot)
{
	const struct attention *a = t->a;
	float *to = slot_of(a, slot), *max = to + (size_t)a->n_head * a->head_dim;
	const uint32_t head = t->kv_head * t->group, row = query * t->group;

	for (uint32_t i = 0; i < t->group; i++) {
		memcpy(to + (size_t)(head + i) * a->head_dim, t->acc + (size_t)(row + i) * t->width,
		       a->head_dim * sizeof(float));
		max[head + i] = t->max[row + i];
		max[a->n_head + head + i] = kvtile_total(t->sum + (size_t)(row + i) * KVTILE_LANES);
	}
}

static void tile_queries(const struct round *r, const struct unit *u, uint32_t index,
			 struct attention_tile *t)
{
	const uint32_t first = index * u->tile, left = u->n_queries - first;

	t->n_queries = left < u->tile ? left : u->tile;
	for (uint32_t i = 0; i < t->n_queries; i++) {
		if (u->queries) {
			const struct query *q = &r->queries[u->queries[first + i]];

			t->row[i] = q->row;
			t->pos[i] = q->pos;
		} else {
			t->row[i] = u->row + first + i;
			t->pos[i] = u->member->pos + first + i;
		}
	}
}

/*
 * Tiles of the same part and heads follow each other, so that its blocks are in a cache for the second, and parts do, so that
 * the first block of the next has been asked for. Late tokens see the most keys: they come first, so that no thread starts one
 * when others are done.
 */
static void unit_item(const struct round *r, const struct unit *u, uint32_t item, float *scratch)
{
	const struct attention *a = r->a;
	const uint32_t index = u->n_tiles - 1 - item % u->n_tiles;
	const uint32_t p = item / u->n_tiles % u->n_parts;
	const uint32_t head = item / u->n_tiles / u->n_parts * u->heads;
	const uint32_t n = a->n_head_kv - head < u->heads ? a->n_head_kv - head : u->heads;
	struct attention_tile tiles[TILE];
	uint32_t formats = 0;

	for (uint32_t i = u->first; i < u->end; i++)
		formats |= 1u << u->member->segments[i].format;
	for (uint32_t i = 0; i < n; i++) {
		struct attention_tile *t = &tiles[i];

		t->a = a;
		t->kv_head = head + i;
		t->group = a->n_head / a->n_head_kv;
		t->formats = formats;
		tile_queries(r, u, index, t);
		attention_tile_begin(t, scratch, i * t->n_queries * t->group);
	}
	if (u->queries)
		part(u, tiles, n, p * u->part_blocks, (p + 1) * u->part_blocks);
	else
		part(u, tiles, n, 0, UINT32_MAX);
	for (uint32_t i = 0; i < n; i++) {
		if (!u->queries)
			put_final(&tiles[i]);
		for (uint32_t k = 0; u->queries && k < tiles[i].n_queries; k++) {
			const struct query *q = &r->queries[u->queries[index * u->tile + k]];

			put_slot(&tiles[i], k, q->slot + q->at[u->shared] + p);
		}
	}
}

static void round_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct round *r = arg;
	uint32_t u = 0;

	while (item >= r->items[u + 1])
		u++;
	unit_item(r, &r->units[u], item - r->items[u], r->scratch + thread * r->scratch_len);
}

/*
 * All parts of heads first .. first + n - 1 of a query, each weighted by exp(max - the largest of them) and
 * by the sum of its weights, in order of position.
 */
CLONES static void merge_heads(const struct attention *a, const struct query *q, uint32_t first,
			       uint32_t n)
{
	const uint32_t d = a->head_dim;
	float top[HEADS], sum[HEADS] = { 0 }, w[HEADS];
	float *out = a->out + ((size_t)q->row * a->n_head + first) * d;

	for (uint32_t h = 0; h < n; h++)
		top[h] = -INFINITY;
	for (uint32_t p = 0; p < q->n_slots; p++) {
		const float *max = slot_of(a, q->slot + p) + (size_t)a->n_head * d + first;

		for (uint32_t h = 0; h < n; h++)
			top[h] = max[h] > top[h] ? max[h] : top[h];
	}
	memset(out, 0, (size_t)n * d * sizeof(float));
	for (uint32_t p = 0; p < q->n_slots; p++) {
		const float *acc = slot_of(a, q->slot + p) + (size_t)first * d;
		const float *max = slot_of(a, q->slot + p) + (size_t)a->n_head * d + first;

		for (uint32_t h = 0; h < n; h++) {
			w[h] = max[h] == -INFINITY ? 0 : exp_of(max[h] - top[h]);
			sum[h] += w[h] * max[a->n_head + h];
		}
		for (uint32_t h = 0; h < n; h++)
			for (uint32_t i = 0; i < d; i++)
				out[(size_t)h * d + i] += w[h] * acc[(size_t)h * d + i];
	}
	for (uint32_t h = 0; h < n; h++)
		kvtile_scale(out + (size_t)h * d, out + (size_t)h * d, sum[h] > 0 ? 1 / sum[h] : 0,
			     d);
}

static void merge_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct round *r = arg;
	const struct attention *a = r->a;

	for (uint32_t h = 0; h < a->n_head; h += HEADS)
		merge_heads(a, &r->queries[item], h, a->n_head - h < HEADS ? a->n_head - h : HEADS);
}

static void run_round(struct pool *pool, struct round *r)
{
	for (uint32_t s = 0; s <= SHARED; s++)
		for (uint32_t i = 0; i < r->n_queries; i++)
			if (s <= r->queries[i].n_shared)
				add_segment(r, i, s);
	pool_run(pool, r->items[r->n_units], round_item, r);
	if (r->n_queries == 1)
		merge_item(r, 0, 0);
	else if (r->n_queries)
		pool_run(pool, r->n_queries, merge_item, r);
}

void attention_run(struct pool *pool, const struct attention *a, float *scratch, size_t scratch_len)
{
	uint32_t i = 0, token = 0, row = 0;

	while (i < a->n_members) {
		struct round r;

		r.a = a;
		r.scratch = scratch;
		r.scratch_len = scratch_len;
		r.enough = ITEMS * pool_threads(pool);
		r.n_units = r.n_queries = r.n_order = r.n_slots = 0;
		r.items[0] = 0;

		for (; i < a->n_members && r.n_units < TOKENS; i++, token = 0) {
			const struct attention_member *m = &a->members[i];

			if (m->m > 1 && !rounds(a, m)) {
				add_tokens(&r, m, row);
				row += m->m;
				continue;
			}
			while (token < m->m && add_query(&r, m, token, row)) {
				token++;
				row++;
			}
			if (token < m->m)
				break;
		}
		run_round(pool, &r);
	}
}
