// SPDX-License-Identifier: MIT
#include "engine/reuse.h"

#include <errno.h>
#include <stdlib.h>

#include "codec/codec.h"

int reuse_open(struct reuse *r, struct engine *e, const struct kv_run *run, const int32_t *tokens,
	       uint32_t n, struct lslm_error *err)
{
	struct kv_geometry geo = e->geo;
	int rc;

	*r = (struct reuse){ .e = e, .run = *run, .tokens = tokens, .n = n };
	rc = kv_run_check(run, &e->geo, err);
	if (!rc && kv_run_is_none(run))
		rc = error_set(err, -EINVAL, "no layer is to be computed");
	if (!rc && run->hidden && run->hidden != e->model->params.n_embd)
		rc = error_set(err, -EINVAL, "a hidden state of %u values, this model's has %u",
			       run->hidden, e->model->params.n_embd);
	if (rc)
		return error_prefix(err, -ENOEXEC, "not for this model");
	geo.n_layer = run->end - run->first;
	rc = sequence_create(&r->seq, &geo, n, err);
	if (rc)
		return rc;
	r->seq->first_layer = run->first;
	if (!run->hidden)
		return 0;
	r->hidden = malloc(ENGINE_BATCH * (size_t)run->hidden * sizeof(*r->hidden));
	return r->hidden ? 0 : error_set(err, -ENOMEM, "out of memory");
}

void reuse_close(struct reuse *r)
{
	sequence_destroy(r->seq);
	free(r->hidden);
	*r = (struct reuse){ 0 };
}

uint32_t reuse_next(const struct reuse *r, uint32_t most)
{
	const uint32_t left = r->n - sequence_len(r->seq);

	most = most && most < ENGINE_BATCH ? most : ENGINE_BATCH;
	return left < most ? left : most;
}

void reuse_take(struct reuse *r, uint32_t i, enum kv_level level, const uint8_t *block)
{
	const struct kv_geometry geo = kv_run_geometry(&r->run, &r->e->geo);

	/* Of that length it has no reason to fail. */
	codec_decode(&geo, level, NULL, 0, 0, block, kv_unit_bytes(&geo, level, 0),
		     (uint8_t *)r->hidden + i * kv_unit_bytes(&geo, KV_LEVEL_F16, 0), NULL);
}

int reuse_compute(struct reuse *r, uint32_t tokens, struct lslm_error *err)
{
	return engine_run(r->e, r->seq, &r->run, r->tokens + sequence_len(r->seq), r->hidden,
			  tokens, err);
}
