// SPDX-License-Identifier: MIT
#include "kv/run.h"

#include <errno.h>

#include "base/bytes.h"

void kv_run_put(uint8_t *p, const struct kv_run *run)
{
	put_le32(p, run->first);
	put_le32(p + 4, run->end);
	put_le32(p + 8, run->hidden);
	put_le32(p + 12, 0);
}

int kv_run_get(struct kv_run *run, const uint8_t *p)
{
	*run = (struct kv_run){ get_le32(p), get_le32(p + 4), get_le32(p + 8) };
	return get_le32(p + 12) ? -EINVAL : 0;
}

bool kv_run_is_none(const struct kv_run *run)
{
	return run->first == run->end;
}

int kv_run_check(const struct kv_run *run, const struct kv_geometry *model, struct lslm_error *err)
{
	if (kv_run_is_none(run) && !run->first && !run->hidden)
		return 0;
	if (run->first >= run->end || run->end > model->n_layer ||
	    run->end - run->first == model->n_layer)
		return error_set(err, -EINVAL, "layers %u to %u of %u are no run to be computed",
				 run->first, run->end, model->n_layer);
	if (!run->first != !run->hidden || run->hidden > KV_MAX_HIDDEN ||
	    run->hidden % KV_HIDDEN_ALIGN)
		return error_set(err, -EINVAL,
				 "a run from layer %u on with a hidden state of %u values",
				 run->first, run->hidden);
	return 0;
}

struct kv_geometry kv_run_geometry(const struct kv_run *run, const struct kv_geometry *model)
{
	struct kv_geometry geo = *model;

	geo.n_layer -= run->end - run->first;
	geo.n_layer += run->hidden != 0;
	geo.hidden = run->hidden;
	return geo;
}

bool kv_run_has(const struct kv_run *run, uint32_t layer)
{
	return layer >= run->first && layer < run->end;
}

uint32_t kv_run_block(const struct kv_run *run, uint32_t layer)
{
	return layer - (layer < run->first ? 0 : run->end - run->first) + (run->hidden != 0);
}
