// SPDX-License-Identifier: MIT
#include "engine/publish.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/calibration.h"
#include "codec/codec.h"
#include "engine/engine.h"
#include "engine/mapping.h"
#include "engine/prompt.h"
#include "engine/sequence.h"
#include "engine/splice.h"
#include "kv/lskv.h"

static int prefill(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		   const struct publish_opts *opts, struct lslm_error *err)
{
	for (uint32_t at = 0; at < n;) {
		const uint32_t m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;
		int rc = engine_forward(e, seq, tokens + at, m, NULL, 0, err);

		if (rc)
			return rc;
		at += m;
		if (opts->progress)
			opts->progress(opts->arg, at, n);
	}
	return 0;
}

/* Layers of another model, but for a run of them. */
static bool takes_layers(const struct publish_opts *opts)
{
	return opts->map && map_is_run(opts->map);
}

/* Layers that do not travel: those that a map leaves to the model itself, from layer 0 on, are computed where the context is used. */
static struct kv_run run_of(const struct publish_opts *opts, const struct kv_geometry *geo)
{
	struct kv_run run = { 0 };

	if (takes_layers(opts))
		return opts->map->run;
	while (opts->map && run.end < geo->n_layer && map_is_own(opts->map, run.end))
		run.end++;
	return run.end < geo->n_layer ? run : (struct kv_run){ 0 };
}

/* The values of n tokens, n a multiple of a block: computed here, or made from those of another model. */
static int fill(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		const struct publish_opts *opts, struct lslm_error *err)
{
	int rc = 0;

	if (takes_layers(opts))
		return splice_send(opts->from, tokens, n, &opts->map->run, seq->memory,
				   opts->progress, opts->arg, err);
	if (!opts->map || map_needs_own(opts->map))
		rc = prefill(e, seq, tokens, n, opts, err);
	if (!rc && opts->map)
		rc = mapping_make(opts->map, opts->from, e, tokens, n, seq->memory, err);
	return rc;
}

/* What lskv_write() asks for stripes. */
struct source {
	const struct sequence *seq;
	struct manifest *manifest;
	const struct calibration *cal; /* NULL: no level needs it */
	uint8_t *encoded; /* room for a stripe at any level */
	uint32_t *lengths; /* [n_layer] */
};

static const void *stripe_data(void *arg, uint32_t lv, uint32_t stripe)
{
	const struct source *s = arg;
	const struct kv_geometry *g = &s->seq->geo;
	struct manifest_level *level = &s->manifest->levels[lv];
	const uint8_t *in = s->seq->memory + (size_t)stripe * kv_stripe_bytes(g, KV_LEVEL_F16);

	if (level->level == KV_LEVEL_F16)
		return in;
	if (!codec_encode(g, level->level, s->cal, stripe * KV_BLOCK_TOKENS, in, s->encoded,
			  s->lengths))
		return NULL;
	if (level->unit_bytes)
		memcpy(level->unit_bytes + (size_t)stripe * level->n_units, s->lengths,
		       level->n_units * sizeof(*s->lengths));
	return s->encoded;
}

static int make_room(struct source *s, struct lslm_error *err)
{
	const struct kv_geometry *g = &s->manifest->geo;
	size_t most = 1;

	for (uint32_t i = 0; i < s->manifest->n_levels; i++) {
		const enum kv_level level = s->manifest->levels[i].level;
		if (level == KV_LEVEL_P)
			s->manifest->levels[i].calibration = s->cal->fingerprint;
		if (codec_stripe_bound(g, level) > most)
			most = codec_stripe_bound(g, level);
	}
	s->encoded = malloc(most);
	s->lengths = malloc(g->n_layer * sizeof(*s->lengths));
	return s->encoded && s->lengths ? 0 : error_set(err, -ENOMEM, "out of memory for a stripe");
}

static int add_levels(struct manifest **m, const struct kv_geometry *geo, const int32_t *tokens,
		      uint32_t n, const struct publish_opts *opts, struct lslm_error *err)
{
	const struct kv_run run = run_of(opts, geo);
	const uint32_t levels = opts->levels ? opts->levels : 1 << KV_LEVEL_F16;
	int rc = 0;

	*m = NULL;
	for (int level = 0; level < KV_LEVELS && !rc; level++) {
		if (!(levels >> level & 1))
			continue;
		rc = *m ? manifest_add_level(*m, (enum kv_level)level, err) :
			  manifest_new_run(m, geo, &run, tokens, n, (enum kv_level)level, err);
	}
	return rc;
}

static int write_context(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
			 const struct publish_opts *opts, const char *path,
			 const struct kv_identity *identity, struct lslm_error *err)
{
	struct source source = {
		.seq = seq,
		.cal = calibrations_for(opts->calibrations, &identity->model),
	};
	struct manifest *m;
	int rc;

	rc = add_levels(&m, &e->geo, tokens, n, opts, err);
	source.manifest = m;
	if (!rc)
		rc = make_room(&source, err);
	if (!rc) {
		m->identity = *identity;
		m->created = (uint64_t)time(NULL);
		if (opts->title)
			manifest_set_title(m, opts->title);
		if (opts->map)
			m->proof = opts->map->evaluation;
		rc = lskv_write(path, m, opts->seckey, stripe_data, &source, err);
		if (rc == -ECANCELED)
			rc = error_set(err, -ENOMEM, "out of memory for encoding a stripe");
	}
	free(source.encoded);
	free(source.lengths);
	manifest_free(m);
	return rc;
}

static int check_levels(const struct kv_geometry *geo, uint32_t levels,
			const struct calibration *cal, struct lslm_error *err)
{
	int rc = 0;

	for (int level = 0; level < KV_LEVELS && !rc; level++)
		if (levels >> level & 1)
			rc = codec_check(geo, (enum kv_level)level, cal, err);
	return rc;
}

/* In place of a sequence with all layers one without the run's. */
static int leave_out(struct sequence **seq, const struct kv_run *run, uint32_t n,
		     struct lslm_error *err)
{
	const struct kv_geometry geo = kv_run_geometry(run, &(*seq)->geo);
	struct sequence *less;
	int rc = sequence_create(&less, &geo, n, err);

	if (rc)
		return rc;
	splice_take(&(*seq)->geo, run, n / KV_BLOCK_TOKENS, (*seq)->memory, less->memory);
	sequence_destroy(*seq);
	*seq = less;
	return 0;
}

/* The KV of tokens, computed and written. */
static int compute(struct engine *e, const int32_t *tokens, uint32_t n,
		   const struct publish_opts *opts, const char *path,
		   const struct kv_identity *identity, struct lslm_error *err)
{
	const struct kv_run run = run_of(opts, &e->geo);
	const struct kv_geometry geo = kv_run_geometry(&run, &e->geo);
	struct sequence *seq;
	int rc = opts->map ? mapping_match(opts->map, opts->from, e, err) : 0;

	if (!rc)
		rc = check_levels(&geo, opts->levels,
				  calibrations_for(opts->calibrations, &identity->model), err);
	if (!rc)
		rc = sequence_create(&seq, takes_layers(opts) ? &geo : &e->geo, n, err);
	if (rc)
		return rc;
	/* The tokens past the last full block are not stored, so they are not computed either. */
	rc = fill(e, seq, tokens, n - n % KV_BLOCK_TOKENS, opts, err);
	if (!rc && !takes_layers(opts) && !kv_run_is_none(&run))
		rc = leave_out(&seq, &run, n, err);
	if (!rc)
		rc = write_context(e, seq, tokens, n, opts, path, identity, err);
	sequence_destroy(seq);
	return rc;
}

int publish_check(struct engine *e, uint32_t levels, const struct calibrations *calibrations,
		  struct lslm_error *err)
{
	struct kv_identity identity;
	int rc = engine_identity(e, &identity, err);

	return rc ? rc :
		    check_levels(&e->geo, levels, calibrations_for(calibrations, &identity.model),
				 err);
}

int publish_file(struct engine *e, const char *text, size_t len, const struct publish_opts *opts,
		 const char *path, struct kv_hash *key, struct lslm_error *err)
{
	const uint32_t n_ctx = opts->n_ctx ? opts->n_ctx : e->model->params.n_ctx_train;
	struct kv_identity identity;
	int32_t *tokens;
	uint32_t n;
	int rc;

	rc = prompt_context(e->model, text, len, opts->raw, &tokens, &n, err);
	if (rc)
		return rc;
	if (n >= n_ctx)
		rc = error_set(err, -E2BIG,
			       "the text has %u tokens, which does not fit %u positions; shorten "
			       "it or raise -c",
			       n, n_ctx);
	if (!rc)
		rc = publish_check(e, opts->levels, opts->calibrations, err);
	if (!rc)
		rc = engine_identity(e, &identity, err);
	if (!rc) {
		identity.salt = opts->salt;
		if (opts->map)
			identity.map = opts->map->fingerprint;
		*key = kv_key(&identity, tokens, n);
		if (!opts->have || !opts->have(opts->arg, key))
			rc = compute(e, tokens, n, opts, path, &identity, err);
	}
	free(tokens);
	return rc;
}
