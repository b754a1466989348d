/* SPDX-License-Identifier: GPL-2.0-only */
/* Session descriptors: the calls, mmap, poll and fdinfo of a session. */
#ifndef LSLM_SESSION_FD_H
#define LSLM_SESSION_FD_H

struct file;
struct lslm_session;

/* A file that owns session, which is destroyed if there cannot be one. ERR_PTR() on failure. */
struct file *lslm_session_file(struct lslm_session *session);

#endif /* LSLM_SESSION_FD_H */
