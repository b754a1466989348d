/* SPDX-License-Identifier: MIT */
/* The subcommands; each is one file that defines its table, and main.c lists them. */
#ifndef LSLM_CLI_COMMANDS_H
#define LSLM_CLI_COMMANDS_H

#include "cli/opts.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

extern const struct command command_generate;
extern const struct command command_pack;
extern const struct command command_publish;
extern const struct command command_cloud;
extern const struct command command_edge;
extern const struct command command_engine;
extern const struct command command_stat;
extern const struct command command_inspect;
extern const struct command command_plan;
extern const struct command command_bench;
extern const struct command command_eval;
extern const struct command command_align;
extern const struct command command_calibrate;

/* Of --backend and --transport; they stand in the order of the enums. */
extern const char *const load_names[]; /* of enum matrices_load */
extern const char *const backend_names[];
extern const char *const transport_names[];

/* Where edge serves and stat asks when nothing else is said; malloc'd, NULL without memory. */
char *default_socket(void);

/* A progress line on standard error, only where that is a terminal. */
void progress_show(const char *what, uint64_t done, uint64_t total, const char *unit);
void progress_end(void);

#endif
