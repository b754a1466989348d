/* SPDX-License-Identifier: MIT */
/*
 * A unix socket to serve from, of which there is one at its path.
 *
 * A lock on PATH.lock, which ends with its holder however that dies, says who serves: a second one is
 * refused, and whoever has it may replace the socket that a killed one left. It is bound under another name and
 * renamed, so that at PATH there is always a socket with its final mode. What is no socket is never replaced.
 */
#ifndef LSLM_SERVE_LOCAL_SOCKET_H
#define LSLM_SERVE_LOCAL_SOCKET_H

#include <sys/socket.h>

#include "base/error.h"

struct local_socket;

/*
 * SOCK_SEQPACKET, listening, not blocking, mode 0600; with a group (name or number) 0660 and that group's.
 * Missing directories are made. -EADDRINUSE: it is served already; -EEXIST: something else is there;
 * -ENAMETOOLONG; -EINVAL: no such group; -EPERM: a group that this user is not in.
 */
int local_socket_open(struct local_socket **out, const char *path, const char *group,
		      struct lslm_error *err);
int local_socket_fd(const struct local_socket *s);
/* A connection, not blocking, and who is at its other end; >= 0 or -errno. */
int local_socket_accept(const struct local_socket *s, struct ucred *peer);
/* Takes the socket's name away, if it is still the own one. NULL is allowed. */
void local_socket_close(struct local_socket *s);

#endif
