/* SPDX-License-Identifier: MIT */
/*
 * Load for a server of OpenAI's API: users who ask, wait for the answer, and ask again.
 *
 * Every request is a chat with the same system message, the shared context, and a question of its own, streamed. The server
 * may be any: `lslm edge`, llama-server. A closed loop: a user has one request at a time.
 */
#ifndef LSLM_CLI_BENCH_SERVE_H
#define LSLM_CLI_BENCH_SERVE_H

#include "cli/bench.h"

int bench_serve(const struct bench_values *v, struct lslm_error *err);

#endif
