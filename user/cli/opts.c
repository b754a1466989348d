// SPDX-License-Identifier: MIT
#include "cli/opts.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const struct opt *find_long(const struct command *cmd, const char *name, size_t len)
{
	for (const struct opt *o = cmd->opts; o->name; o++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len))
			return o;
	return NULL;
}

static const struct opt *find_short(const struct command *cmd, char letter)
{
	for (const struct opt *o = cmd->opts; o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

static int bad(const struct opt *o, const char *value, const char *want, struct lslm_error *err)
{
	return error_set(err, -EINVAL, "--%s: '%s' is not %s", o->name, value, want);
}

static int set_number(const struct opt *o, const char *value, double *out, struct lslm_error *err)
{
	char want[96], *end;

	snprintf(want, sizeof(want), "a number in %g..%g", o->min, o->max);
	*out = strtod(value, &end);
	if (end == value || *end || isspace((unsigned char)*value) || !(*out >= o->min) ||
	    !(*out <= o->max))
		return bad(o, value, want, err);
	if (o->type == OPT_U32 && *out != floor(*out))
		return bad(o, value, "a whole number", err);
	return 0;
}

static int set_choice(const struct opt *o, const char *value, int *out, struct lslm_error *err)
{
	char want[160] = "one of";
	size_t n;

	for (int i = 0; o->choices[i]; i++)
		if (!strcmp(o->choices[i], value)) {
			*out = i;
			return 0;
		}
	for (int i = 0; o->choices[i]; i++) {
		n = strlen(want);
		snprintf(want + n, sizeof(want) - n, "%s %s", i ? "," : "", o->choices[i]);
	}
	return bad(o, value, want, err);
}

static int set(const struct opt *o, const char *value, void *values, struct lslm_error *err)
{
	char *at = (char *)values + o->offset, *end;
	unsigned long long u;
	double number = 0;
	int rc;

	switch (o->type) {
	case OPT_FLAG:
		*(bool *)at = true;
		return 0;
	case OPT_STR:
		*(const char **)at = value;
		return 0;
	case OPT_U64:
		errno = 0;
		u = strtoull(value, &end, 0);
		if (errno || end == value || *end || !isdigit((unsigned char)*value))
			return bad(o, value, "a whole number", err);
		*(uint64_t *)at = u;
		return 0;
	case OPT_LIST:
		if (((struct opt_list *)at)->n == OPTS_MAX_LIST)
			return error_set(err, -EINVAL, "--%s: given more than %d times", o->name,
					 OPTS_MAX_LIST);
		((struct opt_list *)at)->v[((struct opt_list *)at)->n++] = value;
		return 0;
	case OPT_CHOICE:
		return set_choice(o, value, (int *)at, err);
	case OPT_U32:
	case OPT_F32:
		rc = set_number(o, value, &number, err);
		if (rc)
			return rc;
		if (o->type == OPT_U32)
			*(uint32_t *)at = (uint32_t)number;
		else
			*(float *)at = (float)number;
		return 0;
	}
	return error_set(err, -EINVAL, "--%s: unknown type", o->name);
}

static int check_required(const struct command *cmd, const void *values, unsigned int n_words,
			  struct lslm_error *err)
{
	for (const struct opt *o = cmd->opts; o->name; o++)
		if (o->required && !*(const char *const *)((const char *)values + o->offset))
			return error_set(err, -EINVAL, "--%s %s is needed; try: lslm %s --help",
					 o->name, o->arg, cmd->name);
	if (n_words < cmd->min_words || n_words > cmd->max_words)
		return error_set(err, -EINVAL, "wrong number of arguments; usage: lslm %s %s",
				 cmd->name, cmd->words);
	return 0;
}

int opts_parse(const struct command *cmd, int argc, char **argv, void *values, const char **words,
	       struct lslm_error *err)
{
	unsigned int n_words = 0;
	bool only_words = false;
	int rc;

	for (int i = 0; i < argc; i++) {
		const char *arg = argv[i], *value = NULL;
		const struct opt *o;

		if (only_words || arg[0] != '-' || !arg[1]) {
			if (n_words == OPTS_MAX_WORDS || n_words == cmd->max_words)
				return error_set(err, -EINVAL,
						 "unexpected argument '%s'; usage: lslm %s %s", arg,
						 cmd->name, cmd->words);
			words[n_words++] = arg;
			continue;
		}
		if (!strcmp(arg, "--")) {
			only_words = true;
			continue;
		}
		if (!strcmp(arg, "--help") || !strcmp(arg, "-h"))
			return 1;
		if (arg[1] == '-') {
			const size_t len = strcspn(arg + 2, "=");

			o = find_long(cmd, arg + 2, len);
			value = arg[2 + len] ? arg + 3 + len : NULL;
		} else {
			o = find_short(cmd, arg[1]);
			value = arg[2] ? arg + 2 : NULL;
		}
		if (!o)
			return error_set(err, -EINVAL, "unknown option %s; try: lslm %s --help",
					 arg, cmd->name);
		if (o->type == OPT_FLAG && value)
			return error_set(err, -EINVAL, "--%s takes no value", o->name);
		if (o->type != OPT_FLAG && !value) {
			if (i + 1 == argc)
				return error_set(err, -EINVAL, "--%s needs a value: %s", o->name,
						 o->arg);
			value = argv[++i];
		}
		rc = set(o, value, values, err);
		if (rc)
			return rc;
	}
	return check_required(cmd, values, n_words, err);
}

struct words {
	char **v;
	size_t n, room;
	bool failed;
};

/* Takes the word; NULL stands for one that there was no memory for. */
static void add(struct words *w, char *word)
{
	char **more = w->v;

	if (word && w->n + 2 > w->room)
		more = realloc(w->v, (w->room + 32) * sizeof(*w->v));
	if (!word || !more) {
		w->failed = true;
		free(word);
		return;
	}
	if (w->n + 2 > w->room)
		w->room += 32;
	w->v = more;
	w->v[w->n++] = word;
	w->v[w->n] = NULL;
}

__attribute__((format(printf, 2, 3))) static void add_word(struct words *w, const char *fmt, ...)
{
	char *word;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&word, fmt, ap) < 0)
		word = NULL;
	va_end(ap);
	add(w, word);
}

static void format(struct words *w, const struct opt *o, const void *at)
{
	const struct opt_list *list = at;

	switch (o->type) {
	case OPT_FLAG:
		add_word(w, "--%s", o->name);
		return;
	case OPT_STR:
		add_word(w, "--%s=%s", o->name, *(const char *const *)at);
		return;
	case OPT_U32:
		add_word(w, "--%s=%u", o->name, *(const uint32_t *)at);
		return;
	case OPT_U64:
		add_word(w, "--%s=%llu", o->name, (unsigned long long)*(const uint64_t *)at);
		return;
	case OPT_F32:
		add_word(w, "--%s=%.9g", o->name, *(const float *)at);
		return;
	case OPT_CHOICE:
		add_word(w, "--%s=%s", o->name, o->choices[*(const int *)at]);
		return;
	case OPT_LIST:
		for (uint32_t i = 0; i < list->n; i++)
			add_word(w, "--%s=%s", o->name, list->v[i]);
		return;
	}
}

static size_t value_size(enum opt_type type)
{
	static const size_t sizes[] = {
		[OPT_FLAG] = sizeof(bool),
		[OPT_STR] = sizeof(char *),
		[OPT_U32] = sizeof(uint32_t),
		[OPT_U64] = sizeof(uint64_t),
		[OPT_F32] = sizeof(float),
		[OPT_CHOICE] = sizeof(int),
		[OPT_LIST] = sizeof(struct opt_list),
	};

	return sizes[type];
}

char **opts_format(const struct command *cmd, const void *values)
{
	char *plain = calloc(1, cmd->size);
	struct words w = { .failed = !plain };

	if (plain)
		cmd->defaults(plain);
	add_word(&w, "lslm");
	add_word(&w, "%s", cmd->name);
	for (const struct opt *o = cmd->opts; o->name && !w.failed; o++) {
		const char *at = (const char *)values + o->offset;

		if (memcmp(at, plain + o->offset, value_size(o->type)))
			format(&w, o, at);
	}
	free(plain);
	if (!w.failed)
		return w.v;
	opts_free_argv(w.v);
	return NULL;
}

void opts_free_argv(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}

void opts_help(const struct command *cmd, FILE *out)
{
	fprintf(out, "%s\n\nusage: lslm %s%s%s [options]\n\n", cmd->summary, cmd->name,
		*cmd->words ? " " : "", cmd->words);
	for (const struct opt *o = cmd->opts; o->name; o++) {
		char left[64], letter[4] = "";

		if (o->letter)
			snprintf(letter, sizeof(letter), "-%c,", o->letter);
		snprintf(left, sizeof(left), "%3s --%s %s", letter, o->name, o->arg ? o->arg : "");
		fprintf(out, "  %-28s %s", left, o->help);
		if (o->choices) {
			fputs(" (", out);
			for (int i = 0; o->choices[i]; i++)
				fprintf(out, "%s%s", i ? ", " : "", o->choices[i]);
			fputc(')', out);
		}
		fputs(o->required ? " [needed]\n" : "\n", out);
	}
	if (cmd->notes)
		fprintf(out, "\n%s\n", cmd->notes);
}
