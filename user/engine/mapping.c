// SPDX-License-Identifier: MIT
#include "engine/mapping.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/rows.h"
#include "engine/sequence.h"
#include "engine/splice.h"

static int differs(struct lslm_error *err, const char *what)
{
	return error_set(err, -ENOEXEC, "%s", what);
}

int mapping_check(struct engine *from, struct engine *to, struct lslm_error *err)
{
	uint8_t a[KV_HASH_BYTES], b[KV_HASH_BYTES];

	tokenizer_fingerprint(from->model->tokenizer, a);
	tokenizer_fingerprint(to->model->tokenizer, b);
	return memcmp(a, b, sizeof(a)) ?
		       differs(err, "the two models have different tokenizers; a map needs the "
				    "same tokens on both sides") :
		       0;
}

static int check_target(const struct map *m, struct engine *e, struct lslm_error *err)
{
	struct kv_identity id;
	int rc = engine_identity(e, &id, err);

	if (rc)
		return rc;
	if (!kv_hash_equal(&m->model_to, &id.model) || memcmp(&m->to, &e->geo, sizeof(m->to)) ||
	    !kv_hash_equal(&m->tokenizer, &id.tokenizer))
		return differs(err, "the map is for another model than this one");
	return 0;
}

int mapping_match(const struct map *m, struct engine *from, struct engine *to,
		  struct lslm_error *err)
{
	struct kv_identity a;
	int rc = engine_identity(from, &a, err);

	if (rc)
		return rc;
	if (!kv_hash_equal(&m->model_from, &a.model) ||
	    memcmp(&m->from, &from->geo, sizeof(m->from)))
		return differs(err, "the map is from another larger model");
	if (!kv_hash_equal(&m->tokenizer, &a.tokenizer))
		return differs(err, "the map is for another tokenizer");
	rc = check_target(m, to, err);
	return rc || !map_is_run(m) ? rc : splice_check(from, to, err);
}

int mapping_use(struct engine *e, const char *path, struct lslm_error *err)
{
	struct map *m;
	int rc = map_read(&m, path, err);

	if (rc)
		return rc;
	rc = check_target(m, e, err);
	if (!rc) {
		e->map.fingerprint = m->fingerprint;
		e->map.proven = map_is_proven(m, e->map.why, sizeof(e->map.why));
	}
	map_free(m);
	return rc ? error_prefix(err, rc, "%s", path) : 0;
}

int mapping_prefill(struct engine *e, const int32_t *tokens, uint32_t n, uint8_t **stripes,
		    struct lslm_error *err)
{
	const size_t size = n / KV_BLOCK_TOKENS * kv_stripe_bytes(&e->geo, KV_LEVEL_F16);
	struct sequence *s = NULL;
	int rc;

	n -= n % KV_BLOCK_TOKENS;
	*stripes = malloc(size + 1);
	if (!*stripes)
		return error_set(err, -ENOMEM, "out of memory");
	rc = sequence_create(&s, &e->geo, n ? n : 1, err);
	if (!rc)
		rc = engine_feed(e, s, tokens, n, err);
	if (!rc)
		memcpy(*stripes, s->memory, size);
	else
		free(*stripes);
	sequence_destroy(s);
	return rc;
}

static size_t all_rows(const struct kv_geometry *g)
{
	return (size_t)g->n_layer * KV_BLOCK_TOKENS * rows_width(g);
}

/* Rows of all layers of stripe `at`. */
static void rows_of(float *rows, const struct engine *e, const uint8_t *stripes, uint32_t at)
{
	const struct kv_geometry *g = &e->geo;
	const size_t width = rows_width(g);

	stripes += at * kv_stripe_bytes(g, KV_LEVEL_F16);
	for (uint32_t l = 0; l < g->n_layer; l++)
		rows_get(rows + l * KV_BLOCK_TOKENS * width, width, e->model, g,
			 stripes + l * kv_block_bytes(g, KV_LEVEL_F16), at * KV_BLOCK_TOKENS);
}

int mapping_learn(struct align *a, struct engine *from, struct engine *to, const int32_t *tokens,
		  uint32_t n, const uint8_t *own, struct lslm_error *err)
{
	float *x = malloc((all_rows(&from->geo) + all_rows(&to->geo)) * sizeof(*x)), *y;
	uint8_t *theirs;
	int rc;

	if (!x)
		return error_set(err, -ENOMEM, "out of memory");
	y = x + all_rows(&from->geo);
	rc = mapping_prefill(from, tokens, n, &theirs, err);
	if (!rc) {
		for (uint32_t s = 0; s < n / KV_BLOCK_TOKENS; s++) {
			rows_of(x, from, theirs, s);
			rows_of(y, to, own, s);
			align_add(a, x, y, KV_BLOCK_TOKENS);
		}
		free(theirs);
	}
	free(x);
	return rc;
}

/* Memory for one stripe on its way through a map. */
struct way {
	float *x, *own, *y, *scratch;
};

static void map_stripe(const struct map *m, struct engine *from, struct engine *to,
		       const struct way *w, const uint8_t *theirs, uint8_t *stripes, uint32_t at)
{
	const struct kv_geometry *g = &to->geo;
	const size_t width = rows_width(g);
	uint8_t *out = stripes + at * kv_stripe_bytes(g, KV_LEVEL_F16);

	rows_of(w->x, from, theirs, at);
	if (map_needs_own(m))
		rows_of(w->own, to, stripes, at);
	map_rows(m, w->x, w->own, w->y, w->scratch);
	for (uint32_t l = 0; l < g->n_layer; l++)
		if (!map_is_own(m, l))
			rows_put(out + l * kv_block_bytes(g, KV_LEVEL_F16),
				 w->y + l * KV_BLOCK_TOKENS * width, width, to->model, g,
				 at * KV_BLOCK_TOKENS);
}

int mapping_make(const struct map *m, struct engine *from, struct engine *to, const int32_t *tokens,
		 uint32_t n, uint8_t *stripes, struct lslm_error *err)
{
	const size_t in = all_rows(&from->geo), out = all_rows(&to->geo);
	struct way w = { 0 };
	uint8_t *theirs;
	int rc;

	if (map_is_run(m))
		return splice_make(from, to, tokens, n, &m->run, NULL, NULL, stripes, err);
	w.x = malloc((in + 2 * out + map_scratch(m)) * sizeof(float));
	if (!w.x)
		return error_set(err, -ENOMEM, "out of memory");
	w.own = w.x + in;
	w.y = w.own + out;
	w.scratch = w.y + out;
	rc = mapping_prefill(from, tokens, n, &theirs, err);
	if (!rc) {
		for (uint32_t s = 0; s < n / KV_BLOCK_TOKENS; s++)
			map_stripe(m, from, to, &w, theirs, stripes, s);
		free(theirs);
	}
	free(w.x);
	return rc;
}
