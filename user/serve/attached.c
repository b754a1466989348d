// SPDX-License-Identifier: MIT
#include "serve/attached.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct attached_context {
	struct attached *set;
	struct attached_context *next;
	struct context *context;
	char key[KV_HASH_TEXT];
	uint32_t refs; /* the set's own is one */
	bool pinned;
};

struct attached {
	pthread_mutex_t lock;
	struct attached_context *first;
	bool untold;
};

int attached_open(struct attached **out, struct lslm_error *err)
{
	struct attached *set = calloc(1, sizeof(*set));

	if (!set)
		return error_sys(err, -ENOMEM, "contexts");
	pthread_mutex_init(&set->lock, NULL);
	*out = set;
	return 0;
}

static void end(struct attached_context *c)
{
	context_close(c->context);
	free(c);
}

void attached_close(struct attached *set)
{
	struct attached_context *c;

	if (!set)
		return;
	while ((c = set->first)) {
		set->first = c->next;
		end(c);
	}
	pthread_mutex_destroy(&set->lock);
	free(set);
}

static const struct manifest *manifest_of(const struct attached_context *c)
{
	return context_manifest(c->context);
}

/* ---- whose ---- */

static bool may_use(const struct attached_context *c, const struct kv_hash *salt)
{
	return kv_hash_equal(&manifest_of(c)->identity.salt, salt);
}

/* The place that points to it; to NULL where there is none. */
static struct attached_context **place_of(struct attached *set, const struct kv_hash *key)
{
	struct attached_context **at = &set->first;

	while (*at && !kv_hash_equal(&manifest_of(*at)->key, key))
		at = &(*at)->next;
	return at;
}

int attached_add(struct attached *set, struct context *c, struct lslm_error *err)
{
	struct attached_context *n = calloc(1, sizeof(*n));
	int rc = 0;

	if (!n)
		return error_sys(err, -ENOMEM, "context");
	n->set = set;
	n->context = c;
	n->refs = 1;
	kv_hash_format(&manifest_of(n)->key, n->key);
	pthread_mutex_lock(&set->lock);
	if (*place_of(set, &manifest_of(n)->key)) {
		rc = error_set(err, -EEXIST, "this context is attached already");
	} else {
		n->next = set->first;
		set->first = n;
	}
	pthread_mutex_unlock(&set->lock);
	if (rc)
		free(n);
	return rc;
}

void attached_set_told(struct attached *set, bool told)
{
	pthread_mutex_lock(&set->lock);
	set->untold = !told;
	pthread_mutex_unlock(&set->lock);
}

bool attached_is_told(struct attached *set)
{
	bool told;

	pthread_mutex_lock(&set->lock);
	told = !set->untold;
	pthread_mutex_unlock(&set->lock);
	return told;
}

static int no_such_context(struct lslm_error *err)
{
	return error_set(err, -ENOENT, "no such context is attached");
}

int attached_remove(struct attached *set, const struct kv_hash *key, struct lslm_error *err)
{
	struct attached_context **at, *c;

	pthread_mutex_lock(&set->lock);
	at = place_of(set, key);
	c = *at;
	if (c)
		*at = c->next;
	pthread_mutex_unlock(&set->lock);
	if (!c)
		return no_such_context(err);
	attached_put(c);
	return 0;
}

int attached_pin(struct attached *set, const struct kv_hash *key, bool pinned,
		 struct lslm_error *err)
{
	struct attached_context *c;

	pthread_mutex_lock(&set->lock);
	c = *place_of(set, key);
	if (c)
		c->pinned = pinned;
	pthread_mutex_unlock(&set->lock);
	return c ? 0 : no_such_context(err);
}

/* ---- meeting one ---- */

struct attached_context *attached_match(struct attached *set, const struct kv_hash *salt,
					const int32_t *ids, uint32_t n)
{
	struct attached_context *best = NULL;
	uint32_t len, longest = 0;

	pthread_mutex_lock(&set->lock);
	for (struct attached_context *c = set->first; c; c = c->next) {
		const int32_t *tokens = context_tokens(c->context, &len);

		if (len <= longest || len >= n || !may_use(c, salt) ||
		    memcmp(tokens, ids, len * sizeof(*ids)))
			continue;
		longest = len;
		best = c;
	}
	if (best)
		best->refs++;
	pthread_mutex_unlock(&set->lock);
	return best;
}

int attached_find(struct attached *set, const struct kv_hash *salt, const char *name,
		  struct attached_context **out, struct lslm_error *err)
{
	const size_t len = strlen(name);
	unsigned int n = 0;
	bool untold;

	pthread_mutex_lock(&set->lock);
	for (struct attached_context *c = set->first; c; c = c->next) {
		if (!may_use(c, salt) ||
		    (strncasecmp(c->key, name, len) && strcmp(manifest_of(c)->title, name)))
			continue;
		*out = c;
		n++;
	}
	if (n == 1)
		(*out)->refs++;
	untold = set->untold;
	pthread_mutex_unlock(&set->lock);
	if (!n && untold)
		return error_set(
			err, -ENOTCONN,
			"which contexts there are is not known yet; try again in a moment");
	if (!n)
		return no_such_context(err);
	return n == 1 ? 0 : error_set(err, -ENOTUNIQ, "%u contexts are named so; give the key", n);
}

void attached_put(struct attached_context *c)
{
	struct attached *set = c->set;
	bool last;

	pthread_mutex_lock(&set->lock);
	last = --c->refs == 0;
	pthread_mutex_unlock(&set->lock);
	if (last)
		end(c);
}

struct context *attached_get(struct attached_context *c)
{
	return c->context;
}

/* ---- what is told ---- */

enum { SOURCES = 8, LEVELS = 16 };

struct counts {
	uint64_t total, ready, failed;
	uint64_t source[SOURCES];
	uint64_t level[LEVELS];
};

static const char *const source_names[] = {
	[CONTROL_FROM_NONE] = "none", [CONTROL_FROM_CLOUD] = "cloud",
	[CONTROL_FROM_FILE] = "file", [CONTROL_FROM_COMPUTE] = "computed",
	[CONTROL_FROM_DISK] = "disk", [CONTROL_FROM_PEER] = "peer",
};

enum { N_SOURCES = sizeof(source_names) / sizeof(source_names[0]) };

/* A block in the map: wanted, failed, or by its source. */
static char mark(const struct context_block *b)
{
	static const char marks[] = { '?', 'c', 'f', 'l', 'd', 'p' };

	_Static_assert(sizeof(marks) == N_SOURCES, "one mark per source");
	if (b->state == CONTROL_WANTED)
		return '.';
	if (b->state == CONTROL_FAILED)
		return 'x';
	return (uint32_t)b->source < N_SOURCES ? marks[b->source] : '?';
}

static void count(struct counts *n, const struct context_block *b)
{
	n->total++;
	n->failed += b->state == CONTROL_FAILED;
	if (b->state != CONTROL_READY)
		return;
	n->ready++;
	if ((uint32_t)b->source < SOURCES)
		n->source[b->source]++;
	if ((uint32_t)b->level < LEVELS)
		n->level[b->level]++;
}

/* One string per layer, one character per stripe: where it came from, and at which level. */
static int draw_layer(const struct context *c, uint32_t layer, struct counts *n, json_t *map,
		      json_t *levels)
{
	const uint32_t stripes = context_manifest(c)->n_stripes;
	char *row = malloc(2 * (size_t)stripes + 1);
	int rc;

	if (!row)
		return -1;
	for (uint32_t s = 0; s < stripes; s++) {
		const struct context_block b = context_block(c, s, layer);

		count(n, &b);
		row[s] = mark(&b);
		row[stripes + s] = b.state != CONTROL_READY ? '.' :
				   b.level < 10		    ? (char)('0' + b.level) :
							      '+';
	}
	rc = json_array_append_new(map, json_stringn(row, stripes));
	rc |= json_array_append_new(levels, json_stringn(row + stripes, stripes));
	free(row);
	return rc;
}

static json_t *by_source(const struct counts *n)
{
	json_t *o = json_object();

	for (uint32_t i = 1; i < N_SOURCES; i++)
		if (n->source[i])
			json_object_set_new(o, source_names[i],
					    json_integer((json_int_t)n->source[i]));
	return o;
}

static json_t *by_level(const struct counts *n)
{
	json_t *o = json_object();

	for (uint32_t i = 0; i < LEVELS; i++)
		if (n->level[i] && kv_level_name(i))
			json_object_set_new(o, kv_level_name(i),
					    json_integer((json_int_t)n->level[i]));
	return o;
}

static const char *state_of(const struct counts *n)
{
	if (n->ready == n->total)
		return "ready";
	return n->failed ? "failed" : "arriving";
}

static json_t *describe(const struct attached_context *c)
{
	const struct manifest *m = manifest_of(c);
	json_t *map = json_array(), *levels = json_array();
	struct counts n = { 0 };
	int rc = 0;

	for (uint32_t l = 0; l < m->geo.n_layer && !rc; l++)
		rc = draw_layer(c->context, l, &n, map, levels);
	return json_pack("{s:s, s:s, s:I, s:s, s:b, s:I, s:{s:I, s:I, s:I, s:I, s:o, s:o}, "
			 "s:{s:I, s:I, s:o, s:o}}",
			 "key", c->key, "title", m->title, "tokens", (json_int_t)m->n_tokens,
			 "state", state_of(&n), "pinned", c->pinned, "requests",
			 (json_int_t)c->refs - 1, "blocks", "total", (json_int_t)n.total, "ready",
			 (json_int_t)n.ready, "wanted", (json_int_t)(n.total - n.ready - n.failed),
			 "failed", (json_int_t)n.failed, "sources", by_source(&n), "levels",
			 by_level(&n), "map", "stripes", (json_int_t)m->n_stripes, "layers",
			 (json_int_t)m->geo.n_layer, "sources", map, "levels", levels);
}

json_t *attached_describe(struct attached *set, const struct kv_hash *salt,
			  const struct kv_hash *key)
{
	json_t *list = json_array();

	pthread_mutex_lock(&set->lock);
	for (struct attached_context *c = set->first; c; c = c->next)
		if (may_use(c, salt) && (!key || kv_hash_equal(&manifest_of(c)->key, key)))
			json_array_append_new(list, describe(c));
	pthread_mutex_unlock(&set->lock);
	return list;
}

static void add_up(const struct context *c, struct attached_sum *out)
{
	const struct manifest *m = context_manifest(c);

	out->tokens += m->n_tokens;
	out->blocks += (uint64_t)m->n_stripes * m->geo.n_layer;
	for (uint32_t s = 0; s < m->n_stripes; s++) {
		for (uint32_t l = 0; l < m->geo.n_layer; l++) {
			const struct context_block b = context_block(c, s, l);

			out->ready += b.state == CONTROL_READY;
			out->failed += b.state == CONTROL_FAILED;
			out->from_peers += b.state == CONTROL_READY &&
					   b.source == CONTROL_FROM_PEER;
		}
	}
}

void attached_sum(struct attached *set, const struct kv_hash *salt, struct attached_sum *out)
{
	*out = (struct attached_sum){ 0 };
	pthread_mutex_lock(&set->lock);
	for (struct attached_context *c = set->first; c; c = c->next) {
		if (!may_use(c, salt))
			continue;
		out->contexts++;
		out->pinned += c->pinned;
		add_up(c->context, out);
	}
	pthread_mutex_unlock(&set->lock);
}
