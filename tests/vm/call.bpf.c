// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Calls the module with whatever a test wants, however wrong; kfunc_test.c runs it. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include <linux/lslm.h>

#include "call.h"

extern int lslm_place_xdp(struct xdp_md *ctx, __u32 session, __u32 offset,
			  const struct lslm_place *place, __u32 place__sz) __ksym;
extern int lslm_place_skb(struct __sk_buff *ctx, __u32 session, __u32 offset,
			  const struct lslm_place *place, __u32 place__sz) __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct call);
	__uint(max_entries, 1);
} calls SEC(".maps");

SEC("xdp.frags")
int call_xdp(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct call *c = bpf_map_lookup_elem(&calls, &zero);

	if (!c)
		return XDP_ABORTED;
	if (c->small)
		c->answer = lslm_place_xdp(ctx, c->session, c->offset, &c->place, 4);
	else
		c->answer = lslm_place_xdp(ctx, c->session, c->offset, &c->place, 8);
	return XDP_PASS;
}

SEC("tc")
int call_tc(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct call *c = bpf_map_lookup_elem(&calls, &zero);

	if (!c)
		return 0;
	if (c->small)
		c->answer = lslm_place_skb(ctx, c->session, c->offset, &c->place, 4);
	else
		c->answer = lslm_place_skb(ctx, c->session, c->offset, &c->place, 8);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
