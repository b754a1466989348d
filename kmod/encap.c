// SPDX-License-Identifier: GPL-2.0-only
/*
 * Why there is no encap_destroy: the kernel calls it outside of RCU and of every lock, so nothing
 * could tell when the module may go. It is not needed, as the session has its own reference to
 * the socket; one that was closed receives nothing, and is taken apart when the session ends.
 */

#include <linux/skbuff.h>
#include <linux/udp.h>
#include <net/sock.h>
#include <net/udp_tunnel.h>

#include "encap.h"
#include "lslm/wire.h"
#include "place.h"
#include "session.h"

/* Any non-zero type: only its owner looks at it. WireGuard and OVPN take such numbers too. */
#define ENCAP_TYPE 1

static int encap_rcv(struct sock *sk, struct sk_buff *skb)
{
	u32 offset = skb_transport_offset(skb) + sizeof(struct udphdr);
	struct lslm_session *session = rcu_dereference_sk_user_data(sk);
	struct lslm_packet packet = { .skb = skb, .offset = offset };
	const u8 *opcode;
	u8 copy;

	/* Detached a moment ago. */
	if (!session)
		return 1;
	opcode = skb_header_pointer(skb, offset, sizeof(copy), &copy);
	if (!opcode || *opcode != LSLM_OP_DATA) {
		atomic64_inc(&session->passed);
		return 1;
	}
	packet.size = skb->len - offset;
	if (skb->len <= skb_headlen(skb))
		packet.linear = skb->data + offset;
	lslm_place(session, &packet, LSLM_VIA_ENCAP);
	consume_skb(skb);
	return 0;
}

int lslm_encap_attach(struct lslm_session *session, struct socket *sock)
{
	struct sock *sk = sock->sk;
	int ret = -EBUSY;

	/* Whoever wants sk_user_data of a socket that is not his own decides under this lock. */
	write_lock_bh(&sk->sk_callback_lock);
	if (!sk->sk_user_data && !READ_ONCE(udp_sk(sk)->encap_type) &&
	    !READ_ONCE(udp_sk(sk)->encap_rcv)) {
		rcu_assign_sk_user_data(sk, session);
		ret = 0;
	}
	write_unlock_bh(&sk->sk_callback_lock);
	if (ret)
		return ret;
	sock_hold(sk);
	session->sk = sk;
	/*
	 * Not setup_udp_tunnel_sock(): it also turns off IP_MULTICAST_LOOP and makes checksums be
	 * kept for inner packets, which nothing takes back.
	 */
	WRITE_ONCE(udp_sk(sk)->encap_rcv, encap_rcv);
	WRITE_ONCE(udp_sk(sk)->encap_type, ENCAP_TYPE);
	compat_encap_enable(sock);
	return 0;
}

void lslm_encap_detach(struct lslm_session *session)
{
	struct sock *sk = session->sk;

	write_lock_bh(&sk->sk_callback_lock);
	/* The socket's owner may have overwritten the hook by UDP_ENCAP: it is not ours then. */
	if (READ_ONCE(udp_sk(sk)->encap_rcv) == encap_rcv) {
		WRITE_ONCE(udp_sk(sk)->encap_type, 0);
		WRITE_ONCE(udp_sk(sk)->encap_rcv, NULL);
	}
	rcu_assign_sk_user_data(sk, NULL);
	write_unlock_bh(&sk->sk_callback_lock);
}
