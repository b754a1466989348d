// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Sends every packet of a queue to the AF_XDP socket in the map; the rest goes its usual way. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} to_socket SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&to_socket, 0, XDP_PASS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
