/* SPDX-License-Identifier: MIT */
/*
 * Steering by hand, for tests: steer_tool IFACE[,MODE]
 *
 * Prints "ready DESCRIPTION", then does what the lines on standard input say, and ends with it:
 *   port PORT SESSION LARGEST [ADDRESS]    unport PORT
 *   limit RATE BURST
 *   peer ADDRESS RATE BURST                unpeer ADDRESS
 *   urgent SESSION SLOT GENERATION         calm SESSION SLOT
 *   stats                                  NAME=FRAMES/BYTES ... of what is not zero
 * Each is answered by one line: "ok", figures, or "error CODE TEXT".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/steer.h"

enum { MAX_WORDS = 5 };

static unsigned long long number(const char *word)
{
	return word ? strtoull(word, NULL, 0) : 0;
}

static int stats(struct steer *s, struct lslm_error *err)
{
	struct steer_counter c[STEER_COUNTERS];
	int rc = steer_stats(s, c, err);

	if (rc)
		return rc;
	for (int i = 0; i < STEER_COUNTERS; i++) {
		if (c[i].frames)
			printf("%s=%llu/%llu ", steer_verdict_name(i), c[i].frames, c[i].bytes);
	}
	puts("");
	return 1;
}

/* 0: say ok, 1: said something, negative: err. */
static int obey(struct steer *s, char *w[MAX_WORDS], struct lslm_error *err)
{
	if (!strcmp(w[0], "port"))
		return steer_port(s, number(w[1]), number(w[2]), number(w[3]), w[4], err);
	if (!strcmp(w[0], "unport"))
		return steer_port_remove(s, number(w[1]), err);
	if (!strcmp(w[0], "limit"))
		return steer_limit(s, number(w[1]), number(w[2]), err);
	if (!strcmp(w[0], "peer"))
		return steer_peer(s, w[1], number(w[2]), number(w[3]), err);
	if (!strcmp(w[0], "unpeer"))
		return steer_peer_remove(s, w[1], err);
	if (!strcmp(w[0], "urgent"))
		return steer_urgent(s, number(w[1]), number(w[2]), number(w[3]), err);
	if (!strcmp(w[0], "calm"))
		return steer_calm(s, number(w[1]), number(w[2]), err);
	if (!strcmp(w[0], "stats"))
		return stats(s, err);
	return error_set(err, -EINVAL, "%s: no such command", w[0]);
}

static void split(char *line, char *words[MAX_WORDS])
{
	for (int i = 0; i < MAX_WORDS; i++)
		words[i] = strtok(i ? NULL : line, " \n");
}

int main(int argc, char **argv)
{
	char ifname[IF_NAMESIZE], line[256], *words[MAX_WORDS];
	enum steer_mode mode;
	struct lslm_error err;
	struct steer *s;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: steer_tool IFACE[,MODE]\n");
		return 2;
	}
	if (steer_parse(argv[1], ifname, &mode, &err) || steer_open(&s, ifname, mode, &err)) {
		fprintf(stderr, "lslm: %s\n", err.text);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready %s\n", steer_describe(s));
	while (fgets(line, sizeof(line), stdin)) {
		split(line, words);
		if (!words[0])
			continue;
		rc = obey(s, words, &err);
		if (rc < 0)
			printf("error %d %s\n", rc, err.text);
		else if (!rc)
			puts("ok");
	}
	steer_close(s);
	return 0;
}
