/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The front ends for BPF: lslm_place_xdp() and lslm_place_skb(), as the UAPI header documents them
 * at struct lslm_place.
 *
 * Any program that root loads may call them, with any packet and any numbers. They believe the
 * program nothing but where it says that a datagram is; whether there is one, and what it may do,
 * is found out as for every other.
 */
#ifndef LSLM_KFUNC_H
#define LSLM_KFUNC_H

#include <linux/lslm.h>
#include <linux/types.h>

struct __sk_buff;
struct xdp_md;

void lslm_kfunc_init(void);

/* LSLM_OFF_UNKNOWN when the kernel has taken the module's BTF. */
enum lslm_off lslm_kfunc_btf_off(void);
/* The same of calling from XDP and TC programs. */
enum lslm_off lslm_kfunc_xdp_off(void);
enum lslm_off lslm_kfunc_tc_off(void);

int lslm_place_xdp(struct xdp_md *ctx, u32 session, u32 offset, const struct lslm_place *place,
		   u32 place__sz);
int lslm_place_skb(struct __sk_buff *ctx, u32 session, u32 offset, const struct lslm_place *place,
		   u32 place__sz);

#endif /* LSLM_KFUNC_H */
