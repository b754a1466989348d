// SPDX-License-Identifier: MIT
#include "net/delivery.h"

#include <stdlib.h>
#include <unistd.h>

struct local {
	struct delivery delivery;
	struct courier *courier;
};

static struct courier *courier_of(struct delivery *d)
{
	return ((struct local *)d)->courier;
}

static int local_start(struct delivery *d, struct delivery_fds *fds, struct lslm_error *err)
{
	struct courier *c = courier_of(d);
	int ret = courier_run(c, err);

	if (ret < 0)
		return ret;
	fds->courier = -1;
	fds->pitch = courier_pitch(c);
	fds->buffer = courier_buffer_fd(c, err);
	if (fds->buffer < 0)
		return fds->buffer;
	fds->control = courier_control_fd(c, err);
	if (fds->control < 0)
		close(fds->buffer);
	return fds->control < 0 ? fds->control : 0;
}

static void local_set_head(struct delivery *d, uint32_t stripes)
{
	courier_set_head(courier_of(d), stripes);
}

static void local_stats(struct delivery *d, struct courier_stats *out)
{
	courier_stats(courier_of(d), out);
}

static bool local_failed(struct delivery *d, struct lslm_error *why)
{
	return courier_failed(courier_of(d), why);
}

static void local_finish(struct delivery *d, struct lslm_error *why)
{
	courier_finish(courier_of(d), why);
}

static void local_close(struct delivery *d)
{
	courier_close(courier_of(d));
	free(d);
}

static const struct delivery_ops local_ops = {
	.start = local_start,
	.set_head = local_set_head,
	.stats = local_stats,
	.failed = local_failed,
	.finish = local_finish,
	.close = local_close,
};

int delivery_open_local(struct delivery **out, const struct courier_opts *opts,
			struct lslm_error *err)
{
	struct local *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return error_sys(err, -ENOMEM, "courier");
	ret = courier_open(&l->courier, opts, err);
	if (ret < 0) {
		free(l);
		return ret;
	}
	l->delivery.ops = &local_ops;
	l->delivery.manifest = courier_manifest(l->courier);
	courier_is_offline(l->courier, &l->delivery.outage);
	*out = &l->delivery;
	return 0;
}
