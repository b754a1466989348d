/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The front end on a socket: the hook that the kernel has for UDP encapsulation, on a socket that
 * user space made and goes on using. The kernel has verified the checksum by then, and hands over
 * one datagram at a time, also where a batch (GRO, UDP_SEGMENT) came in.
 */
#ifndef LSLM_ENCAP_H
#define LSLM_ENCAP_H

struct lslm_session;
struct socket;

/* From now on DATA goes to the session. -EBUSY: the hook or sk_user_data is somebody else's. */
int lslm_encap_attach(struct lslm_session *session, struct socket *sock);

/*
 * The socket is an ordinary one again; it may have been closed. The session may be freed after a
 * synchronize_net().
 */
void lslm_encap_detach(struct lslm_session *session);

#endif /* LSLM_ENCAP_H */
