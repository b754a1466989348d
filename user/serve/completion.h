/* SPDX-License-Identifier: MIT */
/*
 * POST /v1/chat/completions and /v1/completions: from a body to an answer.
 *
 * A request meets its context by name (the field "context", or the header X-Lslm-Context, of which the field counts), or by its
 * tokens: the system message is rendered and tokenised as a context is, and the longest attached context that is a prefix of all is
 * taken. What follows is tokenised apart, with a context and without, so that an answer does not depend on whether there was one.
 */
#ifndef LSLM_SERVE_COMPLETION_H
#define LSLM_SERVE_COMPLETION_H

#include "serve/visit.h"

/* Which of the two, the route says. */
enum MHD_Result completion_finish(struct visit *v);
/* NULL is allowed. */
void completion_free(struct completion *c);

#endif
