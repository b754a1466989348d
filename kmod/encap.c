// SPDX-License-Identifier: GPL-2.0-only
/*
 * Why there is no encap_destroy: the kernel calls it outside of RCU and of every lock, so nothing
 * could tell when the module may go. It is not needed, as the session has its own reference to
 * the socket; one that was closed receives nothing, and is taken apart when the session ends.
 */

#include <linux/bottom_half.h>
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
	if (lslm_place(session, &packet, LSLM_VIA_ENCAP))
		kfree_skb(skb);
	else
		consume_skb(skb);
	return 0;
}

/*
 * sk_user_data has several kinds of owners. Some decide under sk_callback_lock (sockmap,
 * reuseport), some under lock_sock() (GTP). Both are kept out here, without waiting for a process
 * that owns the socket, as that one may sleep for as long as its user likes.
 */
static int take_socket(struct lslm_session *session, struct sock *sk)
{
	int ret = -EBUSY;

	bh_lock_sock(sk);
	if (sock_owned_by_user(sk))
		goto unlock_sock;
	write_lock(&sk->sk_callback_lock);
	if (sk->sk_user_data || READ_ONCE(udp_sk(sk)->encap_type) ||
	    READ_ONCE(udp_sk(sk)->encap_rcv))
		goto unlock;
	rcu_assign_sk_user_data(sk, session);
	/*
	 * Not setup_udp_tunnel_sock(): it also turns off IP_MULTICAST_LOOP and makes checksums be
	 * kept for inner packets, which nothing takes back.
	 */
	WRITE_ONCE(udp_sk(sk)->encap_rcv, encap_rcv);
	WRITE_ONCE(udp_sk(sk)->encap_type, ENCAP_TYPE);
	ret = 0;
unlock:
	write_unlock(&sk->sk_callback_lock);
unlock_sock:
	bh_unlock_sock(sk);
	return ret;
}

int lslm_encap_attach(struct lslm_session *session, struct socket *sock)
{
	int ret;

	local_bh_disable();
	ret = take_socket(session, sock->sk);
	local_bh_enable();
	if (ret)
		return ret;
	sock_hold(sock->sk);
	session->sk = sock->sk;
	compat_encap_enable(sock);
	return 0;
}

/*
 * In two steps. A softirq may have read encap_rcv and not yet sk_user_data, so that one stays ours,
 * and keeps everybody else out, until no such softirq is left.
 */
void lslm_encap_detach(struct lslm_session *session)
{
	struct sock *sk = session->sk;

	/* The socket's owner may have overwritten the hook by UDP_ENCAP: it is not ours then. */
	if (cmpxchg(&udp_sk(sk)->encap_rcv, encap_rcv, NULL) == encap_rcv)
		WRITE_ONCE(udp_sk(sk)->encap_type, 0);
	synchronize_net();
	write_lock_bh(&sk->sk_callback_lock);
	if (__locked_read_sk_user_data_with_flags(sk, 0) == session)
		rcu_assign_sk_user_data(sk, NULL);
	write_unlock_bh(&sk->sk_callback_lock);
}
