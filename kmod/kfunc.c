// SPDX-License-Identifier: GPL-2.0-only

#include <linux/bottom_half.h>
#include <linux/bpf.h>
#include <linux/kernfs.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/preempt.h>
#include <linux/skbuff.h>
#include <net/net_namespace.h>
#include <net/xdp.h>

#include "kfunc.h"
#include "lslm/wire.h"
#include "place.h"
#include "session.h"
#include "trace.h"

/* Settled by lslm_kfunc_init(). */
static enum lslm_off btf_off __ro_after_init;
static enum lslm_off xdp_off __ro_after_init;
static enum lslm_off tc_off __ro_after_init;

/*
 * Takes over what the program says of a packet of `size` bytes. *place may be in a map, where
 * others change it meanwhile, so it is read once.
 */
static bool take_call(struct lslm_packet *packet, u32 offset, const struct lslm_place *place,
		      u32 place__sz, u32 size)
{
	if (place__sz != sizeof(*place) || READ_ONCE(place->flags))
		return false;
	packet->offset = offset;
	packet->size = READ_ONCE(place->length);
	return offset <= size && packet->size <= size - offset;
}

static int place_for(const struct net *net, u32 number, const struct lslm_packet *packet,
		     enum lslm_via via)
{
	static const struct lslm_header unknown;
	struct lslm_session *session;
	/* BPF_PROG_TEST_RUN of 6.1; everywhere else they are off. Off, they are an RCU section. */
	bool with_bh = !in_softirq();
	int ret = -ENOENT;

	if (unlikely(with_bh))
		local_bh_disable();
	session = lslm_session_find(net, number);
	if (session) {
		lslm_place(session, packet, via);
		ret = 0;
	}
	if (unlikely(with_bh))
		local_bh_enable();
	if (ret)
		trace_place_drop(number, &unknown, packet->size, via, LSLM_DROP_SESSION);
	return ret;
}

__bpf_kfunc int lslm_place_xdp(struct xdp_md *ctx, u32 session, u32 offset,
			       const struct lslm_place *place, u32 place__sz)
{
	struct xdp_buff *xdp = (void *)ctx;
	u32 linear = xdp->data_end - xdp->data;
	struct lslm_packet packet = {};

	if (!take_call(&packet, offset, place, place__sz, xdp_get_buff_len(xdp)))
		return -EINVAL;
	if (offset > linear || packet.size > linear - offset)
		return -EAGAIN;
	/* Frames of an AF_XDP socket's: a process could change them between check and use. */
	if (xdp->rxq->mem.type == MEM_TYPE_XSK_BUFF_POOL)
		return -EAGAIN;
	packet.linear = xdp->data + offset;
	if (!packet.size || *packet.linear != LSLM_OP_DATA)
		return -EAGAIN;
	return place_for(dev_net(xdp->rxq->dev), session, &packet, LSLM_VIA_XDP);
}

__bpf_kfunc int lslm_place_skb(struct __sk_buff *ctx, u32 session, u32 offset,
			       const struct lslm_place *place, u32 place__sz)
{
	const struct sk_buff *skb = (const void *)ctx;
	struct lslm_packet packet = { .skb = skb };
	const u8 *opcode;
	u8 copy;

	if (!take_call(&packet, offset, place, place__sz, skb->len))
		return -EINVAL;
	/* Several datagrams, of which the program sees the first header only. */
	if (skb_is_gso(skb) || !packet.size)
		return -EAGAIN;
	opcode = skb_header_pointer(skb, offset, sizeof(copy), &copy);
	if (!opcode || *opcode != LSLM_OP_DATA)
		return -EAGAIN;
	if (offset + packet.size <= skb_headlen(skb))
		packet.linear = skb->data + offset;
	return place_for(dev_net(skb->dev), session, &packet, LSLM_VIA_TC);
}

BTF_KFUNCS_START(xdp_ids)
BTF_ID_FLAGS(func, lslm_place_xdp)
BTF_KFUNCS_END(xdp_ids)

BTF_KFUNCS_START(tc_ids)
BTF_ID_FLAGS(func, lslm_place_skb)
BTF_KFUNCS_END(tc_ids)

static const struct btf_kfunc_id_set xdp_set = { .owner = THIS_MODULE, .set = &xdp_ids };
static const struct btf_kfunc_id_set tc_set = { .owner = THIS_MODULE, .set = &tc_ids };

/*
 * Registering says 0 also where it did nothing. What tells is /sys/kernel/btf/lslm, which the
 * kernel makes before this runs, once it has verified the module's BTF. It is looked up in the
 * kernel's own tree, since whoever loads the module need not have sysfs mounted.
 */
static bool __init has_btf(void)
{
	struct kernfs_node *dir = kernfs_find_and_get(kernel_kobj->sd, "btf");
	struct kernfs_node *file;

	if (!dir)
		return false;
	file = kernfs_find_and_get(dir, THIS_MODULE->name);
	kernfs_put(file);
	kernfs_put(dir);
	return file;
}

static enum lslm_off __init add_set(enum bpf_prog_type type, const struct btf_kfunc_id_set *set,
				    const char *kind)
{
	int ret;

	/* The build left the ids unresolved. */
	if (!set->set->cnt || !set->set->pairs[0].id)
		return LSLM_OFF_NO_BTF;
	ret = register_btf_kfunc_id_set(type, set);
	if (!ret)
		return LSLM_OFF_UNKNOWN;
	pr_warn("cannot be called from %s programs (%d)\n", kind, ret);
	return LSLM_OFF_KERNEL;
}

void __init lslm_kfunc_init(void)
{
	btf_off = LSLM_OFF_KERNEL;
	if (IS_ENABLED(CONFIG_DEBUG_INFO_BTF_MODULES) && IS_ENABLED(CONFIG_BPF_SYSCALL))
		btf_off = has_btf() ? LSLM_OFF_UNKNOWN : LSLM_OFF_NO_BTF;
	xdp_off = btf_off;
	tc_off = btf_off;
	if (btf_off)
		return;
	xdp_off = add_set(BPF_PROG_TYPE_XDP, &xdp_set, "XDP");
	tc_off = add_set(BPF_PROG_TYPE_SCHED_CLS, &tc_set, "TC");
}

enum lslm_off lslm_kfunc_btf_off(void)
{
	return btf_off;
}

enum lslm_off lslm_kfunc_xdp_off(void)
{
	return xdp_off;
}

enum lslm_off lslm_kfunc_tc_off(void)
{
	return tc_off;
}
