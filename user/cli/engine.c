// SPDX-License-Identifier: MIT
#include "cli/engine.h"

#include <signal.h>
#include <stdio.h>

#include "cli/commands.h"
#include "kv/publisher.h"
#include "serve/engine_process.h"

#define AT(field) offsetof(struct engine_values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_LIST, AT(models), "FILE", "GGUF model; may be given again" },
	{ "courier", 0, OPT_STR, AT(courier), "SOCKET", "who may have read their weights" },
	{ "load", 0, OPT_CHOICE, AT(load), "L", "where weights come from", .choices = load_names },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads of each (all allowed processors)", 0,
	  256 },
	{ "ctx-size", 'c', OPT_U32, AT(n_ctx), "N", "positions per request (as trained)", 0,
	  1 << 24 },
	{ "kv-mib", 0, OPT_U32, AT(kv_mib), "N", "of private KV (a quarter of free memory)", 0,
	  1 << 30 },
	{ "no-reuse", 0, OPT_FLAG, AT(no_reuse), NULL, "of private KV by later requests" },
	{ "attend-apart", 0, OPT_FLAG, AT(attend_apart), NULL, "read a context for each request" },
	{ "engines", 0, OPT_U32, AT(engines), "N", "that share the machine (1)", 1, 1 << 16 },
	{ "drain", 0, OPT_U32, AT(drain_s), "S", "at the end, for answers that have begun", 0,
	  3600 },
	{ "tls-cert", 0, OPT_STR, AT(cert), "FILE", "certificate of the front (PEM)" },
	{ "tls-key", 0, OPT_STR, AT(key), "FILE", "its key (PEM)" },
	{ "tokens", 0, OPT_STR, AT(tokens), "FILE", "of tenants" },
	{ "trust", 0, OPT_STR, AT(trust), "KEY|FILE",
	  "publishers to believe (whom the courier believes)" },
	{ "salt", 0, OPT_STR, AT(salt), "HEX", "tenant salt of the contexts" },
	{ "user", 0, OPT_STR, AT(user), "NAME", "to become when started as root" },
	{ "require-confinement", 0, OPT_FLAG, AT(require), NULL, "or end" },
	{ "cgroup", 0, OPT_STR, AT(cgroup), "DIR", "to enter" },
	{ "channel", 0, OPT_U32, AT(channel), "FD", "to the supervisor", 3, 1 << 20 },
	{ "quiet", 'q', OPT_FLAG, AT(quiet), NULL, "no line per event" },
	{ NULL },
};

static void defaults(void *values)
{
	*(struct engine_values *)values = (struct engine_values){ .engines = 1, .drain_s = 30 };
}

/* One call, so that lines of several processes do not mix. */
static void log_line(void *arg, const char *line)
{
	fprintf(stderr, "engine: %s\n", line);
}

/* Blocked before any thread starts. */
static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	/* The terminal's are for the supervisor, which tells us. */
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct engine_values *v = values;
	struct publisher_trust trust = { 0 };
	struct engine_process_opts o = {
		.channel = (int)v->channel,
		.cgroup = v->cgroup,
		.user = v->user,
		.require_confinement = v->require,
		.courier = v->courier,
		.load = (enum matrices_load)v->load,
		.models = v->models.v,
		.n_models = v->models.n,
		.threads = v->threads,
		.n_ctx = v->n_ctx,
		.kv_bytes = (uint64_t)v->kv_mib << 20,
		.no_reuse = v->no_reuse,
		.attend_apart = v->attend_apart,
		.engines = v->engines,
		.cert = v->cert,
		.key = v->key,
		.tokens = v->tokens,
		.drain_s = v->drain_s,
		.log = v->quiet ? NULL : log_line,
	};
	int rc = 0;

	if (!v->channel || !v->models.n) {
		error_set(err, -EINVAL, "an engine is started by lslm edge -m MODEL");
		return EXIT_USAGE;
	}
	block_signals();
	if (v->salt && kv_hash_parse(&o.salt, v->salt))
		rc = error_set(err, -EINVAL, "--salt: not 64 hexadecimal digits");
	if (!rc && v->trust)
		rc = publisher_trust_load(&trust, v->trust, err);
	o.trusted = v->trust ? (const uint8_t(*)[MANIFEST_PUBKEY_BYTES])trust.keys : NULL;
	o.n_trusted = trust.n;
	if (!rc)
		rc = engine_process_run(&o, err);
	publisher_trust_free(&trust);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_engine = {
	.name = "engine",
	.summary = "one engine of lslm edge, which starts it",
	.words = "",
	.opts = options,
	.size = sizeof(struct engine_values),
	.defaults = defaults,
	.run = run,
};
