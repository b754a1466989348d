// SPDX-License-Identifier: GPL-2.0-only

#include <linux/lslm.h>

#include "stats.h"

struct lslm_stats lslm_stats;

void lslm_stats_get(struct lslm_get_stats *out)
{
	struct lslm_stats *s = &lslm_stats;

	out->out_clients = atomic64_read(&s->clients);
	out->out_buffers = atomic64_read(&s->buffers);
	out->out_bytes = atomic64_read(&s->bytes);
	out->out_holds = atomic64_read(&s->holds);
	out->out_created = atomic64_read(&s->created);
	out->out_freed = atomic64_read(&s->freed);
	out->out_refused = atomic64_read(&s->refused);
	out->out_no_memory = atomic64_read(&s->no_memory);
	out->out_purges_asked = atomic64_read(&s->purges_asked);
	out->out_purges_pressure = atomic64_read(&s->purges_pressure);
	out->out_purged_bytes = atomic64_read(&s->purged_bytes);
}
