// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The egress guard of a cgroup; bpf/guard.h says what it lets out.
 *
 * What a process is told at once (EPERM from a call) is refused at the call. The packet program
 * is the one that everything has to pass, by whatever call it was sent. It reads the socket, never
 * the packet: what a socket is cannot be forged in a header.
 */
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "guard.h"

#define SOCKET_STREAM 1
#define SOCKET_DGRAM  2

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u8);
	__uint(max_entries, GUARD_PORTS);
} listen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, GUARD_COUNTERS);
} counters SEC(".maps");

/* Answers what every hook here understands: 1 let it go, 0 refuse. */
static __always_inline int judge(__u32 reason)
{
	__u64 *c = bpf_map_lookup_elem(&counters, &reason);

	if (c)
		__sync_fetch_and_add(c, 1);
	return reason == GUARD_ANSWER;
}

/*
 * An accepted connection is told from one that was opened here, be it from the same port, by its
 * past: opening goes through SYN_SENT, and no SYN gets out. (SYN and ACK of an accepted
 * one leave from its listening socket.) A socket without a client, closed or new, has
 * nothing to say but a RST, which carries no data. It must get out: the client of a process that was killed
 * with something unread would wait for ever. Such a socket has forgotten its port.
 */
static __always_inline __u32 judge_tcp(struct bpf_sock *sk)
{
	__u32 port = sk->src_port;

	if (sk->state == BPF_TCP_SYN_SENT)
		return GUARD_SYN;
	if (sk->state == BPF_TCP_CLOSE)
		return GUARD_ANSWER;
	return bpf_map_lookup_elem(&listen, &port) ? GUARD_ANSWER : GUARD_TCP;
}

SEC("cgroup_skb/egress")
int lslm_guard_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk)
		return judge(GUARD_OTHER);
	switch (sk->protocol) {
	case IPPROTO_TCP:
		return judge(judge_tcp(sk));
	case IPPROTO_UDP:
		return judge(GUARD_UDP);
	default:
		return judge(GUARD_OTHER);
	}
}

SEC("cgroup/connect4")
int lslm_guard_connect4(struct bpf_sock_addr *ctx)
{
	return judge(GUARD_CONNECT);
}

SEC("cgroup/connect6")
int lslm_guard_connect6(struct bpf_sock_addr *ctx)
{
	return judge(GUARD_CONNECT);
}

SEC("cgroup/sendmsg4")
int lslm_guard_sendmsg4(struct bpf_sock_addr *ctx)
{
	return judge(GUARD_SENDTO);
}

SEC("cgroup/sendmsg6")
int lslm_guard_sendmsg6(struct bpf_sock_addr *ctx)
{
	return judge(GUARD_SENDTO);
}

/* UDP sockets may exist: programs make them to ask the kernel things. They can send nothing. */
SEC("cgroup/sock_create")
int lslm_guard_socket(struct bpf_sock *sk)
{
	if (sk->type == SOCKET_STREAM && (sk->protocol == IPPROTO_TCP || !sk->protocol))
		return 1;
	if (sk->type == SOCKET_DGRAM && (sk->protocol == IPPROTO_UDP || !sk->protocol))
		return 1;
	return judge(GUARD_SOCKET);
}

/* What the kernel takes as compatible with its own licence; the file's is in the first line. */
char _license[] SEC("license") = "Dual MIT/GPL";
