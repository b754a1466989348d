/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one way from a datagram to a buffer: check, authenticate, decrypt to the place, commit.
 *
 * What a datagram may do is decided by include/lslm/place.h, shared with the user-space receiver;
 * here are the cipher, the pages and the packets. encap.c and kfunc.c find the datagram in
 * whatever carries it and call lslm_place().
 *
 * Packets are only ever read: others may have references to the same bytes (a sniffer, a clone
 * for another socket, the sender's own pages). The cipher verifies the tag before it writes the
 * first byte, and writes straight to the place, so the decryption is the copy. A datagram in
 * pieces is first copied to the session's scratch. Its pages a local sender can still change, so
 * nothing is read from them twice: the decision is made by one copy of the header, which is what
 * the tag is checked with, and the rest is verified and decrypted in the scratch.
 */
#ifndef LSLM_KMOD_PLACE_H
#define LSLM_KMOD_PLACE_H

#include <linux/lslm.h>
#include <linux/types.h>

struct lslm_session;
struct sk_buff;

/* How a datagram came; in trace events, so numbers stay. */
enum lslm_via { LSLM_VIA_ENCAP = 1, LSLM_VIA_TC = 2, LSLM_VIA_XDP = 3, LSLM_VIA_COUNT };

struct lslm_packet {
	const u8 *linear; /* the whole UDP payload; or NULL, and it is */
	const struct sk_buff *skb; /* in here */
	u32 offset; /* from here on */
	u32 size;
};

/*
 * Places the datagram or counts and returns why not; it is used up either way. In softirq or
 * with bottom halves off, where the caller has found the session. It has seen that opcode is
 * LSLM_OP_DATA.
 */
enum lslm_drop lslm_place(struct lslm_session *session, const struct lslm_packet *packet,
			  enum lslm_via via);

#endif /* LSLM_KMOD_PLACE_H */
