/* SPDX-License-Identifier: MIT */
/*
 * /v1/contexts: what is attached, and what is done about it.
 *
 * Changes are made by the front's ops, which may take their time: they run on threads of their own, a few at once, while the
 * connection sleeps.
 */
#ifndef LSLM_SERVE_CONTEXT_OPS_H
#define LSLM_SERVE_CONTEXT_OPS_H

#include "serve/visit.h"

enum MHD_Result contexts_describe(struct visit *v);
enum MHD_Result contexts_describe_one(struct visit *v);
/* These are called again when the work is done. */
enum MHD_Result contexts_attach(struct visit *v);
enum MHD_Result contexts_pin(struct visit *v);
enum MHD_Result contexts_unpin(struct visit *v);
enum MHD_Result contexts_drop(struct visit *v);

/* It has ended. NULL is allowed. */
void context_job_free(struct context_job *j);

#endif
