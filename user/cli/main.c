// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

static const struct command *const commands[] = {
	&command_generate, &command_pack,  &command_publish,   &command_cloud, &command_edge,
	&command_engine,   &command_stat,  &command_inspect,   &command_bench, &command_plan,
	&command_eval,	   &command_align, &command_calibrate,
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void usage(FILE *out)
{
	fputs("lslm " LSLM_VERSION ": language models at the edge, with context from the cloud\n\n"
	      "usage: lslm COMMAND [options]     lslm COMMAND --help\n\n",
	      out);
	for (int i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
}

/*
 * OpenBLAS starts its threads when it is loaded, before main(). Who serves has no use for them: executed once more, it
 * starts none. Where that cannot be, they sleep.
 */
static void shed_threads(const struct command *cmd, char **argv)
{
	static const char name[] = "OPENBLAS_NUM_THREADS";
	const char *is = getenv(name);

	if (!cmd->lean || (is && !strcmp(is, "1")) || setenv(name, "1", 1))
		return;
	execv("/proc/self/exe", argv);
}

static int run(const struct command *cmd, int argc, char **argv)
{
	const char *words[OPTS_MAX_WORDS] = { NULL };
	struct lslm_error err = { 0 };
	void *values = calloc(1, cmd->size);
	int rc;

	if (!values) {
		fputs("lslm: out of memory\n", stderr);
		return EXIT_FAILED;
	}
	cmd->defaults(values);
	rc = opts_parse(cmd, argc, argv, values, words, &err);
	if (rc == 1) {
		opts_help(cmd, stdout);
		rc = EXIT_DONE;
	} else if (rc) {
		fprintf(stderr, "lslm %s: %s\n", cmd->name, err.text);
		rc = EXIT_USAGE;
	} else {
		rc = cmd->run(values, words, &err);
		if (rc)
			fprintf(stderr, "lslm %s: %s\n", cmd->name, err.text);
	}
	free(values);
	return rc;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("lslm " LSLM_VERSION);
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return EXIT_DONE;
	}
	for (int i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i]->name, argv[1])) {
			shed_threads(commands[i], argv);
			return run(commands[i], argc - 2, argv + 2);
		}
	fprintf(stderr, "lslm: unknown command '%s'; try: lslm --help\n", argv[1]);
	return EXIT_USAGE;
}
