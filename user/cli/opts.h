/* SPDX-License-Identifier: MIT */
/*
 * Command-line options as data: parsing, range checks and help come from one table.
 *
 * A command has a table of struct opt over a plain structure of values. The caller
 * fills the structure with defaults, opts_parse() overwrites what the command
 * line says. Long options are --name VALUE or --name=VALUE, short ones -x VALUE; "--" ends them. Other
 * words are positional and go to the command's `words` in order.
 */
#ifndef LSLM_CLI_OPTS_H
#define LSLM_CLI_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum opt_type {
	OPT_FLAG, /* bool, no value */
	OPT_STR, /* const char * */
	OPT_U32, /* uint32_t in [min, max] */
	OPT_U64, /* uint64_t */
	OPT_F32, /* float in [min, max] */
	OPT_CHOICE, /* int: index into choices */
	OPT_LIST, /* struct opt_list; may be given again and again */
};

enum { OPTS_MAX_LIST = 64 };

struct opt_list {
	const char *v[OPTS_MAX_LIST];
	uint32_t n;
};

struct opt {
	const char *name; /* without dashes */
	char letter; /* 0: none */
	enum opt_type type;
	size_t offset; /* in the structure of values */
	const char *arg; /* what help calls the value */
	const char *help;
	double min, max;
	const char *const *choices; /* NULL-terminated */
	bool required; /* OPT_STR: must be given */
};

enum { OPTS_MAX_WORDS = 4 };

struct command {
	const char *name;
	const char *summary; /* one line */
	const char *words; /* positional arguments as help shows them, "" for none */
	unsigned int min_words, max_words;
	const struct opt *opts; /* ends with a NULL name */
	size_t size; /* of the structure of values */
	void (*defaults)(void *values);
	/* Returns an exit code: 0 done, 1 failed; the error line is in err then. */
	int (*run)(const void *values, const char *const *words, struct lslm_error *err);
	const char *notes; /* printed under the options, or NULL */
	bool lean; /* runs without OpenBLAS's threads */
};

/* 0, or -EINVAL with a line; 1 when --help was asked for. words: argv entries, [OPTS_MAX_WORDS]. */
int opts_parse(const struct command *cmd, int argc, char **argv, void *values, const char **words,
	       struct lslm_error *err);

/*
 * The other way round: "lslm", the command's name, and a word for each option that is not as it is by default; NULL
 * at the end. Malloc'd, for opts_free_argv(). NULL: no memory.
 */
char **opts_format(const struct command *cmd, const void *values);
void opts_free_argv(char **argv); /* NULL is allowed */

void opts_help(const struct command *cmd, FILE *out);

#endif
