// SPDX-License-Identifier: GPL-2.0-only

#include <linux/err.h>
#include <linux/file.h>
#include <linux/hashtable.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/nospec.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "binding.h"
#include "encap.h"
#include "ring.h"
#include "session.h"
#include "trace.h"

static bool plain;
module_param(plain, bool, 0444);
MODULE_PARM_DESC(plain, "allow sessions without authentication, for measurements (default: no)");

enum { LIFETIME_MAX_S = 24 * 60 * 60 };

#define SCRATCH_BYTES (LSLM_CHUNK_MAX + LSLM_WIRE_OVERHEAD)

/*
 * Sessions by number, of all network namespaces together: numbers are random, so those of many
 * namespaces spread as well as those of one.
 */
#define TABLE_BITS 8
static DEFINE_SPINLOCK(table_lock);
static DEFINE_HASHTABLE(table, TABLE_BITS);

static struct lslm_session *find(const struct net *net, u32 number)
{
	struct lslm_session *s;

	hash_for_each_possible_rcu(table, s, node, number, lockdep_is_held(&table_lock)) {
		if (s->number == number && net_eq(s->net, net))
			return s;
	}
	return NULL;
}

struct lslm_session *lslm_session_find(const struct net *net, u32 number)
{
	struct lslm_session *s = find(net, number);

	return s && !sock_flag(s->sk, SOCK_DEAD) ? s : NULL;
}

/*
 * A random number, so that nobody off the path can guess where to send forgeries. So many tries
 * fail only when the numbers are nearly used up.
 */
static int give_number(struct lslm_session *s)
{
	int tries, ret = -ENOSPC;
	u32 number;

	spin_lock(&table_lock);
	for (tries = 0; tries < 1024; tries++) {
		number = get_random_u32();
		if (!number || find(s->net, number))
			continue;
		s->number = number;
		s->rx.session = number;
		hash_add_rcu(table, &s->node, number);
		ret = 0;
		break;
	}
	spin_unlock(&table_lock);
	return ret;
}

static void take_number(struct lslm_session *s)
{
	spin_lock(&table_lock);
	hash_del_rcu(&s->node);
	spin_unlock(&table_lock);
}

static void session_free(struct lslm_session *s)
{
	if (s->ring)
		fput(s->ring->file);
	kvfree(s->rx.slots);
	kvfree(s->bindings);
	kvfree_sensitive(s->scratch, SCRATCH_BYTES);
	kvfree_sensitive(s, sizeof(*s));
}

static struct lslm_session *session_alloc(u32 n_slots, u32 ring_entries)
{
	struct lslm_session *s = kvzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	int ret = -ENOMEM;

	if (!s)
		return ERR_PTR(-ENOMEM);
	mutex_init(&s->config);
	spin_lock_init(&s->lock);
	s->rx.n_slots = n_slots;
	s->rx.slots = kvcalloc(n_slots, sizeof(*s->rx.slots), GFP_KERNEL_ACCOUNT);
	s->bindings = kvcalloc(n_slots, sizeof(*s->bindings), GFP_KERNEL_ACCOUNT);
	s->scratch = kvzalloc(SCRATCH_BYTES, GFP_KERNEL_ACCOUNT);
	if (s->rx.slots && s->bindings && s->scratch)
		ret = lslm_ring_create(ring_entries, &s->ring);
	if (ret) {
		session_free(s);
		return ERR_PTR(ret);
	}
	return s;
}

static bool is_udp(const struct sock *sk)
{
	return (sk->sk_family == AF_INET || sk->sk_family == AF_INET6) &&
	       sk->sk_type == SOCK_DGRAM && sk->sk_protocol == IPPROTO_UDP;
}

/* The socket is attached last but one: a packet may come at once, and then finds all the rest. */
static int start(struct lslm_session *s, struct socket *sock)
{
	int ret;

	if (!is_udp(sock->sk))
		return -EPROTONOSUPPORT;
	s->net = sock_net(sock->sk);
	s->netns = s->net->ns.inum;
	ret = lslm_encap_attach(s, sock);
	if (ret)
		return ret;
	ret = give_number(s);
	if (!ret)
		return 0;
	lslm_encap_detach(s);
	sock_put(s->sk);
	return ret;
}

int lslm_session_create(const struct lslm_session_create *arg, struct lslm_session **out)
{
	struct lslm_session *s;
	struct socket *sock;
	int ret;

	if (!arg->slots || arg->slots > LSLM_SLOTS_MAX || arg->ring_entries < LSLM_RING_MIN ||
	    arg->ring_entries > LSLM_RING_MAX || !is_power_of_2(arg->ring_entries))
		return -EINVAL;
	sock = sockfd_lookup(arg->socket, &ret);
	if (!sock)
		return ret;
	s = session_alloc(arg->slots, arg->ring_entries);
	ret = PTR_ERR_OR_ZERO(s);
	if (!ret) {
		ret = start(s, sock);
		if (ret)
			session_free(s);
	}
	sockfd_put(sock);
	if (ret)
		return ret;
	trace_session_create(s->number, s->netns, arg->slots, arg->ring_entries);
	*out = s;
	return 0;
}

void lslm_session_destroy(struct lslm_session *s)
{
	u32 i;

	take_number(s);
	/* Waits for softirqs that found the session by either way. */
	lslm_encap_detach(s);
	trace_session_destroy(s->number, s->netns, s->rx.received, s->rx.placed_packets,
			      s->rx.placed_bytes);
	for (i = 0; i < s->rx.n_slots && s->n_regions; i++) {
		if (!s->bindings[i])
			continue;
		s->n_regions--;
		trace_region_unbind(s->number, i, s->rx.slots[i].generation,
				    s->bindings[i]->handle.buffer->id,
				    s->rx.slots[i].region.chunks_missing);
		lslm_binding_destroy(s->bindings[i]);
	}
	sock_put(s->sk);
	session_free(s);
}

static int check_key(const struct lslm_session_key *arg)
{
	if (arg->key >= LSLM_WIRE_KEYS || arg->cipher > LSLM_CIPHER_PLAIN)
		return -EINVAL;
	if (arg->cipher == LSLM_CIPHER_NONE)
		return 0;
	if (!arg->max_packets || arg->max_packets > LSLM_COUNTER_MAX + 1 || !arg->lifetime_s ||
	    arg->lifetime_s > LIFETIME_MAX_S)
		return -EINVAL;
	return arg->cipher == LSLM_CIPHER_PLAIN && !plain ? -EOPNOTSUPP : 0;
}

int lslm_session_set_key(struct lslm_session *s, const struct lslm_session_key *arg)
{
	struct lslm_rx_key *key;
	int ret = check_key(arg);
	u32 i;

	if (ret)
		return ret;
	i = array_index_nospec(arg->key, LSLM_WIRE_KEYS);
	key = &s->rx.keys[i];
	spin_lock_bh(&s->lock);
	memset(key, 0, sizeof(*key));
	memzero_explicit(s->secrets[i], LSLM_WIRE_KEY_BYTES);
	if (arg->cipher != LSLM_CIPHER_NONE) {
		key->cipher = arg->cipher;
		key->in_use = 1;
		key->max_packets = arg->max_packets;
		key->expires_ns = ktime_get_ns() + (u64)arg->lifetime_s * NSEC_PER_SEC;
	}
	if (arg->cipher == LSLM_CIPHER_CHACHA20POLY1305)
		memcpy(s->secrets[i], arg->secret, LSLM_WIRE_KEY_BYTES);
	spin_unlock_bh(&s->lock);
	return 0;
}

/* False: there is no such slot. A user's number is kept in bounds on paths not taken, too. */
static bool take_slot(const struct lslm_session *s, u32 *slot)
{
	if (*slot >= s->rx.n_slots)
		return false;
	*slot = array_index_nospec(*slot, s->rx.n_slots);
	return true;
}

/* 0 means that nothing was ever bound, so it is passed over. */
static u32 next_generation(u32 generation)
{
	return generation + 1 ?: 1;
}

/* Returns what was bound there; nobody uses it any more. b is NULL: unbind. */
static struct lslm_binding *swap_binding(struct lslm_session *s, u32 i, struct lslm_binding *b)
{
	struct lslm_slot *slot = &s->rx.slots[i];
	struct lslm_binding *old = s->bindings[i];

	lockdep_assert_held(&s->config);
	if (old)
		trace_region_unbind(s->number, i, slot->generation, old->handle.buffer->id,
				    slot->region.chunks_missing);
	spin_lock_bh(&s->lock);
	slot->generation = next_generation(slot->generation);
	slot->bound = !!b;
	if (b)
		slot->region = b->region;
	s->bindings[i] = b;
	s->n_regions += !!b - !!old;
	spin_unlock_bh(&s->lock);
	return old;
}

int lslm_session_bind(struct lslm_session *s, struct lslm_region_bind *arg)
{
	struct lslm_binding *b, *old;
	int ret;

	if (!take_slot(s, &arg->slot))
		return -EINVAL;
	ret = lslm_binding_create(arg, &b);
	if (ret)
		return ret;
	arg->out_chunks = b->region.n_chunks;
	if (mutex_lock_killable(&s->config)) {
		lslm_binding_destroy(b);
		return -EINTR;
	}
	old = swap_binding(s, arg->slot, b);
	arg->out_generation = s->rx.slots[arg->slot].generation;
	trace_region_bind(s->number, arg->slot, arg->out_generation, b->handle.buffer->id, b->base,
			  b->region.length, b->region.n_units, b->region.n_chunks,
			  b->region.chunks_missing);
	mutex_unlock(&s->config);
	lslm_binding_destroy(old);
	return 0;
}

int lslm_session_unbind(struct lslm_session *s, u32 slot)
{
	struct lslm_binding *old = NULL;

	if (!take_slot(s, &slot))
		return -EINVAL;
	if (mutex_lock_killable(&s->config))
		return -EINTR;
	if (s->bindings[slot])
		old = swap_binding(s, slot, NULL);
	mutex_unlock(&s->config);
	lslm_binding_destroy(old);
	return old ? 0 : -ENOENT;
}

/*
 * The bitmap is read without `lock`, as that takes long for a large region. Bits are only ever
 * set while it is bound: a chunk that comes meanwhile may still be called missing.
 */
int lslm_session_missing(struct lslm_session *s, struct lslm_region_missing *arg,
			 struct lslm_range *ranges)
{
	struct lslm_slot *slot;

	if (!take_slot(s, &arg->slot))
		return -EINVAL;
	if (mutex_lock_killable(&s->config))
		return -EINTR;
	slot = &s->rx.slots[arg->slot];
	if (!slot->bound || slot->generation != arg->generation) {
		mutex_unlock(&s->config);
		return -ESTALE;
	}
	arg->out_ranges = lslm_region_missing(&slot->region, arg->from, ranges, arg->max_ranges);
	/* A bit that was seen was set under this lock, after its chunk was written: it is there. */
	spin_lock_bh(&s->lock);
	arg->out_missing = slot->region.chunks_missing;
	spin_unlock_bh(&s->lock);
	mutex_unlock(&s->config);
	return 0;
}

void lslm_session_state(struct lslm_session *s, struct lslm_session_state *state)
{
	spin_lock_bh(&s->lock);
	state->n_regions = s->n_regions;
	state->received = s->rx.received;
	state->placed_packets = s->rx.placed_packets;
	state->placed_bytes = s->rx.placed_bytes;
	state->units_done = s->rx.units_done;
	state->overflows = s->ring->overflows;
	memcpy(state->via, s->via, sizeof(state->via));
	memcpy(state->drops, s->rx.drops, sizeof(state->drops));
	spin_unlock_bh(&s->lock);
	state->passed = atomic64_read(&s->passed);
}

const char *lslm_drop_name(enum lslm_drop drop)
{
	static const char *const names[] = {
		[LSLM_DROP_NONE] = "none",	 [LSLM_DROP_HEADER] = "header",
		[LSLM_DROP_SESSION] = "session", [LSLM_DROP_KEY] = "key",
		[LSLM_DROP_REPLAY] = "replay",	 [LSLM_DROP_FORGED] = "forged",
		[LSLM_DROP_SLOT] = "slot",	 [LSLM_DROP_GENERATION] = "generation",
		[LSLM_DROP_BOUNDS] = "bounds",	 [LSLM_DROP_DUPLICATE] = "duplicate",
		[LSLM_DROP_MEMORY] = "memory",
	};

	static_assert(ARRAY_SIZE(names) == LSLM_DROP_COUNT);
	return drop < LSLM_DROP_COUNT ? names[drop] : NULL;
}

bool lslm_session_plain_on(void)
{
	return plain;
}
