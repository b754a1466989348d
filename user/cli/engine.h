/* SPDX-License-Identifier: MIT */
/* What `lslm engine` is told; `lslm edge` writes it down, for the engines that it starts. */
#ifndef LSLM_CLI_ENGINE_H
#define LSLM_CLI_ENGINE_H

#include "cli/opts.h"

struct engine_values {
	struct opt_list models;
	const char *courier, *cgroup, *user, *trust, *salt, *cert, *key, *tokens;
	uint32_t channel, threads, n_ctx, kv_mib, engines, drain_s;
	int load;
	bool require, no_reuse, attend_apart, quiet;
};

#endif
