// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The steering programs, for XDP and for TC; bpf/steer.h says what they decide.
 *
 * Compiled twice. With STEER_PLACE they hand what is allowed to the module, whose functions must
 * then be there when they are loaded; without, to the network stack.
 *
 * Headers are copied to the stack by helpers rather than read in place. The cost is a few dozen
 * nanoseconds against the microseconds of a datagram's decryption; for it one parser reads XDP
 * frames and skbs alike, linear or in pieces.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <linux/lslm.h>

#include "lslm/wire.h"
#include "steer.h"

#define NSEC	  1000000000ULL
#define IP_PIECES 0x3fff /* MF, and the offset */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct steer_config);
	__uint(max_entries, 1);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __be16);
	__type(value, struct steer_port);
	__uint(max_entries, STEER_PORTS);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct steer_address);
	__type(value, struct steer_bucket);
	__uint(max_entries, STEER_PEERS);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct steer_bucket);
	__uint(max_entries, STEER_STRANGERS);
} strangers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct steer_range);
	__type(value, __u32);
	__uint(max_entries, STEER_RANGES);
} urgent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct steer_counter);
	__uint(max_entries, STEER_COUNTERS);
} counters SEC(".maps");

#ifdef STEER_PLACE
extern int lslm_place_xdp(struct xdp_md *ctx, __u32 session, __u32 offset,
			  const struct lslm_place *place, __u32 place__sz) __ksym;
extern int lslm_place_skb(struct __sk_buff *ctx, __u32 session, __u32 offset,
			  const struct lslm_place *place, __u32 place__sz) __ksym;
#endif

/*
 * A frame of either kind. `xdp` is a constant wherever this is used, and everything that takes a
 * frame is inlined, so that of each choice only the right half is left.
 */
struct frame {
	void *ctx;
	__u32 length;
	bool xdp;
	bool tagged; /* a VLAN tag was taken off already */
	bool batch; /* several datagrams in one skb */
};

struct datagram {
	struct steer_address source;
	struct steer_address target;
	__be16 port;
	__u32 offset; /* of the UDP payload in the frame */
	__u32 length; /* of the UDP payload */
	struct lslm_header header;
};

static __always_inline long load(const struct frame *f, __u32 at, void *to, __u32 bytes)
{
	if (f->xdp)
		return bpf_xdp_load_bytes(f->ctx, at, to, bytes);
	return bpf_skb_load_bytes(f->ctx, at, to, bytes);
}

static __always_inline void count(const struct frame *f, __u32 what)
{
	struct steer_counter *c = bpf_map_lookup_elem(&counters, &what);

	if (c) {
		c->frames++;
		c->bytes += f->length;
	}
}

static __always_inline void map_ipv4(struct steer_address *a, __be32 ip)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = ip;
}

static __always_inline bool same(const struct steer_address *a, const struct steer_address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline bool is_any(const struct steer_address *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

/* The Ethernet header: sets *at behind it, returns the network protocol or 0. */
static __always_inline __be16 parse_ether(const struct frame *f, __u32 *at)
{
	struct {
		__be16 tag;
		__be16 proto;
	} vlan;
	struct ethhdr eth;

	if (load(f, 0, &eth, sizeof(eth)))
		return 0;
	*at = sizeof(eth);
	if (eth.h_proto != bpf_htons(ETH_P_8021Q) && eth.h_proto != bpf_htons(ETH_P_8021AD))
		return eth.h_proto;
	if (f->tagged || load(f, *at, &vlan, sizeof(vlan)))
		return 0;
	*at += sizeof(vlan);
	return vlan.proto;
}

/* Returns a verdict, or STEER_COUNTERS to go on: d's addresses are set, *at is behind the header,
 * *left is what the header says is there. */
static __always_inline int parse_ipv4(const struct frame *f, struct datagram *d, __u32 *at,
				      __u32 *left)
{
	struct iphdr ip;

	if (load(f, *at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl != 5 ||
	    ip.protocol != IPPROTO_UDP)
		return STEER_OTHER;
	if (ip.frag_off & bpf_htons(IP_PIECES))
		return STEER_FRAGMENT;
	if (bpf_ntohs(ip.tot_len) < sizeof(ip))
		return STEER_OTHER;
	map_ipv4(&d->source, ip.saddr);
	map_ipv4(&d->target, ip.daddr);
	*at += sizeof(ip);
	*left = bpf_ntohs(ip.tot_len) - sizeof(ip);
	return STEER_COUNTERS;
}

static __always_inline int parse_ipv6(const struct frame *f, struct datagram *d, __u32 *at,
				      __u32 *left)
{
	struct ipv6hdr ip;

	if (load(f, *at, &ip, sizeof(ip)) || ip.version != 6)
		return STEER_OTHER;
	if (ip.nexthdr != IPPROTO_UDP)
		return ip.nexthdr == IPPROTO_FRAGMENT ? STEER_FRAGMENT : STEER_OTHER;
	__builtin_memcpy(&d->source, &ip.saddr, sizeof(d->source));
	__builtin_memcpy(&d->target, &ip.daddr, sizeof(d->target));
	*at += sizeof(ip);
	*left = bpf_ntohs(ip.payload_len);
	return STEER_COUNTERS;
}

/* Returns a verdict, or STEER_COUNTERS: it is a UDP datagram, whole and within the frame. */
static __always_inline int parse(const struct frame *f, struct datagram *d)
{
	__u32 at = 0, left = 0, length;
	struct udphdr udp;
	int verdict = STEER_OTHER;
	__be16 proto;

	proto = parse_ether(f, &at);
	if (proto == bpf_htons(ETH_P_IP))
		verdict = parse_ipv4(f, d, &at, &left);
	else if (proto == bpf_htons(ETH_P_IPV6))
		verdict = parse_ipv6(f, d, &at, &left);
	if (verdict != STEER_COUNTERS)
		return verdict;
	if (at + left > f->length || left < sizeof(udp) || load(f, at, &udp, sizeof(udp)))
		return STEER_OTHER;
	/* What UDP does not claim of the IP datagram, the stack cuts off; so may we. */
	length = bpf_ntohs(udp.len);
	if (length < sizeof(udp) || length > left)
		return STEER_OTHER;
	d->port = udp.dest;
	d->offset = at + sizeof(udp);
	d->length = length - sizeof(udp);
	return STEER_COUNTERS;
}

/* Returns a verdict, or STEER_COUNTERS: DATA of the port's session, whose header is in d. */
static __always_inline int match(const struct frame *f, struct datagram *d,
				 const struct steer_port *port)
{
	__u8 head[LSLM_WIRE_HEADER];

	if (!is_any(&port->address) && !same(&port->address, &d->target))
		return STEER_OTHER;
	if (d->length < LSLM_WIRE_OVERHEAD || load(f, d->offset, head, sizeof(head)))
		return STEER_NOT_DATA;
	lslm_header_get(&d->header, head);
	if (d->header.opcode != LSLM_OP_DATA || d->header.version != LSLM_WIRE_VERSION)
		return STEER_NOT_DATA;
	return d->header.session == port->session ? STEER_COUNTERS : STEER_SESSION;
}

/*
 * Take bytes out of a bucket; false: there were too few, and none was taken, or all when `force`.
 * The lock makes it one step on several CPUs. They read the clock before they get the lock, so a
 * `now` may lie before last_ns: it then adds nothing.
 */
static __always_inline bool take(struct steer_bucket *b, __u64 rate, __u64 burst, __u64 bytes,
				 bool force)
{
	__u64 now = bpf_ktime_get_ns(), passed, seconds, part, tokens;
	bool enough;

	bpf_spin_lock(&b->lock);
	tokens = b->tokens;
	if (!b->last_ns) {
		tokens = burst;
		b->last_ns = now;
	} else if (now > b->last_ns) {
		passed = now - b->last_ns;
		seconds = passed / NSEC;
		/* Twelve days: that much adds up without overflow. */
		if (seconds > 1 << 20)
			seconds = 1 << 20;
		part = (passed % NSEC) * rate + b->rest;
		tokens += seconds * rate + part / NSEC;
		b->rest = part % NSEC;
		b->last_ns = now;
		if (tokens > burst)
			tokens = burst;
	}
	enough = tokens >= bytes;
	if (enough)
		tokens -= bytes;
	else if (force)
		tokens = 0;
	b->tokens = tokens;
	bpf_spin_unlock(&b->lock);
	return enough;
}

static __always_inline __u32 mix(__u32 h, __u32 word)
{
	h = (h ^ word) * 0x9e3779b1;
	return h ^ h >> 15;
}

static __always_inline struct steer_bucket *stranger(const struct steer_address *a, __u32 seed)
{
	__u32 i = mix(mix(mix(mix(seed, a->word[0]), a->word[1]), a->word[2]), a->word[3]);

	i &= STEER_STRANGERS - 1;
	return bpf_map_lookup_elem(&strangers, &i);
}

/* Returns a verdict, or STEER_COUNTERS: it may come in. */
static __always_inline int admit(const struct frame *f, const struct datagram *d)
{
	struct steer_range range = { .session = d->header.session, .slot = d->header.slot };
	struct steer_bucket *b;
	__u32 zero = 0, *waited;
	struct steer_config *c;
	__u64 rate, burst;
	bool force;

	c = bpf_map_lookup_elem(&config, &zero);
	if (!c)
		return STEER_PEER;
	/* The first peer turns the list on, so without it there is nothing to look up. */
	if (c->listed) {
		b = bpf_map_lookup_elem(&peers, &d->source);
		if (!b)
			return STEER_PEER;
		rate = b->rate;
		burst = b->burst;
	} else {
		rate = c->rate;
		burst = c->burst;
		b = stranger(&d->source, c->seed);
	}
	if (!burst || !b)
		return STEER_COUNTERS;
	waited = bpf_map_lookup_elem(&urgent, &range);
	force = waited && *waited == d->header.generation;
	if (take(b, rate, burst, d->length, force))
		return STEER_COUNTERS;
	if (!force)
		return STEER_LIMIT;
	count(f, STEER_EXEMPT);
	return STEER_COUNTERS;
}

/* The last step: who gets the payload. */
static __always_inline int place(const struct frame *f, const struct datagram *d,
				 const struct steer_port *port)
{
#ifdef STEER_PLACE
	struct lslm_place what = { .length = d->length };
	int rc;

	if (f->batch || (port->largest && d->length > port->largest))
		return STEER_PIECES;
	if (f->xdp)
		rc = lslm_place_xdp(f->ctx, port->session, d->offset, &what, sizeof(what));
	else
		rc = lslm_place_skb(f->ctx, port->session, d->offset, &what, sizeof(what));
	switch (rc) {
	case 0:
		return STEER_PLACED;
	case -11: /* EAGAIN */
		return STEER_PIECES;
	case -2: /* ENOENT */
		return STEER_NO_SESSION;
	default:
		return STEER_REFUSED;
	}
#else
	return STEER_SOCKET;
#endif
}

static __always_inline int steer(const struct frame *f)
{
	struct steer_port *port;
	struct datagram d;
	int verdict;

	verdict = parse(f, &d);
	if (verdict != STEER_COUNTERS)
		return verdict;
	port = bpf_map_lookup_elem(&ports, &d.port);
	if (!port)
		return STEER_OTHER;
	verdict = match(f, &d, port);
	if (verdict == STEER_COUNTERS)
		verdict = admit(f, &d);
	if (verdict == STEER_COUNTERS)
		verdict = place(f, &d, port);
	return verdict;
}

static __always_inline bool is_drop(int verdict)
{
	return verdict == STEER_PEER || verdict == STEER_LIMIT || verdict == STEER_PLACED;
}

/* .frags: loads on interfaces with a large MTU too; frames in pieces reach the socket. */
SEC("xdp.frags")
int lslm_steer_xdp(struct xdp_md *ctx)
{
	struct frame f = { .ctx = ctx, .length = bpf_xdp_get_buff_len(ctx), .xdp = true };
	int verdict = steer(&f);

	count(&f, verdict);
	return is_drop(verdict) ? XDP_DROP : XDP_PASS;
}

/* TC_ACT_UNSPEC: go on with the next filter, as if this one were not there. */
SEC("tc")
int lslm_steer_tc(struct __sk_buff *ctx)
{
	struct frame f = {
		.ctx = ctx,
		.length = ctx->len,
		.tagged = ctx->vlan_present,
		.batch = ctx->gso_size,
	};
	int verdict = steer(&f);

	count(&f, verdict);
	return is_drop(verdict) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* What the kernel takes as compatible with its own licence; the file's is in the first line. */
char _license[] SEC("license") = "Dual MIT/GPL";
