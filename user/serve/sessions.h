/* SPDX-License-Identifier: MIT */
/*
 * What the cloud does for each request about placement sessions (docs/protocol.md, section 9).
 *
 *   POST   /v1/sessions           {"context", "session"}: a session, with its first pair of keys
 *   POST   /v1/sessions/ID/keys   the next pair
 *   DELETE /v1/sessions/ID
 *
 * As in contexts.h, the client has been authenticated before. All three are 404 where placement over UDP
 * is off. Replies with keys are wiped once they were sent.
 */
#ifndef LSLM_SERVE_SESSIONS_H
#define LSLM_SERVE_SESSIONS_H

#include "serve/contexts.h"

enum MHD_Result sessions_open_body(struct request *r, const char *data, size_t size);
enum MHD_Result sessions_open(struct request *r);
enum MHD_Result sessions_renew(struct request *r);
enum MHD_Result sessions_end(struct request *r);

#endif
