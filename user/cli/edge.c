// SPDX-License-Identifier: MIT
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/token.h"
#include "cli/commands.h"
#include "cli/engine.h"
#include "codec/calibration.h"
#include "kv/publisher.h"
#include "serve/channel.h"
#include "serve/edge.h"
#include "serve/shelf.h"
#include "serve/supervisor.h"

struct values {
	const char *cloud, *courier, *group, *trust, *store, *steer, *steer_limit, *levels;
	const char *cacert, *token_file, *cert, *key;
	struct opt_list contexts, models, calibrations, peers;
	const char *peer_listen, *peer_cert, *peer_key, *peer_token_file, *peer_cacert,
		*peer_client_ca, *peer_tenants, *peer_url, *nats, *nats_creds, *nats_cacert;
	const char *context_file, *store_key, *listen, *engine_user, *salt, *tls_cert, *tls_key,
		*tokens;
	uint32_t engines, threads, n_ctx, kv_mib, drain_s, channel;
	uint32_t max_contexts;
	bool require, no_reuse, attend_apart, asked_only;
	int backend, transport, load;
	uint32_t store_mib, store_days, stall_ms, connect_ms;
	float deadline_s;
	bool quiet;
};

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "cloud", 0, OPT_STR, AT(cloud), "URL", "keep every context that this cloud offers" },
	{ "attached-only", 0, OPT_FLAG, AT(asked_only), NULL,
	  "of what the cloud offers keep what admins attach (docs/http.md)" },
	{ "max-contexts", 0, OPT_U32, AT(max_contexts), "N",
	  "keep so many; one that an admin attaches takes an older one's place (64)", 1,
	  SHELF_CONTEXTS },
	{ "context", 0, OPT_LIST, AT(contexts), "URL|FILE",
	  "keep this context; may be given again" },
	{ "contexts", 0, OPT_STR, AT(context_file), "FILE",
	  "keep those that it names too, one on each line; read anew at a reload" },
	{ "courier", 0, OPT_STR, AT(courier), "SOCKET",
	  "serve engines there (/run/lslm/courier, or below $XDG_RUNTIME_DIR)" },
	{ "socket-group", 0, OPT_STR, AT(group), "GROUP",
	  "which may use it too (only this user may)" },
	{ "trust", 0, OPT_STR, AT(trust), "KEY|FILE",
	  "publishers to believe (default: this machine's own)" },
	{ "cacert", 0, OPT_STR, AT(cacert), "FILE", "CA of the cloud's certificate (PEM)" },
	{ "token-file", 0, OPT_STR, AT(token_file), "FILE", "bearer token for the cloud" },
	{ "cert", 0, OPT_STR, AT(cert), "FILE", "client certificate (PEM)" },
	{ "key", 0, OPT_STR, AT(key), "FILE", "client key (PEM)" },
	{ "peer", 0, OPT_LIST, AT(peers), "URL",
	  "another gateway that may have contexts too; may be given again" },
	{ "peer-listen", 0, OPT_STR, AT(peer_listen), "ADDR",
	  "serve what is here to other gateways, by TLS" },
	{ "peer-cert", 0, OPT_STR, AT(peer_cert), "FILE", "certificate to serve them with (PEM)" },
	{ "peer-key", 0, OPT_STR, AT(peer_key), "FILE", "its key (PEM)" },
	{ "peer-token-file", 0, OPT_STR, AT(peer_token_file), "FILE",
	  "bearer token of all gateways, to show and to ask for" },
	{ "peer-cacert", 0, OPT_STR, AT(peer_cacert), "FILE",
	  "CA of their certificates (PEM; that of --cacert)" },
	{ "peer-client-ca", 0, OPT_STR, AT(peer_client_ca), "FILE",
	  "they must show a certificate of this CA (PEM); this gateway shows --cert" },
	{ "peer-tenants", 0, OPT_STR, AT(peer_tenants), "FILE",
	  "tokens of gateways that see the contexts of one salt only, in place of the one to ask for" },
	{ "peer-url", 0, OPT_STR, AT(peer_url), "URL",
	  "where they reach this one (https:// and --peer-listen's address)" },
	{ "nats", 0, OPT_STR, AT(nats), "URL",
	  "find them by a directory in NATS JetStream: nats://HOST[:PORT] or tls://..." },
	{ "nats-creds", 0, OPT_STR, AT(nats_creds), "FILE", "this gateway's credentials there" },
	{ "nats-cacert", 0, OPT_STR, AT(nats_cacert), "FILE", "CA of its certificate (PEM)" },
	{ "connect-timeout", 0, OPT_U32, AT(connect_ms), "MS", "give up connecting after", 1,
	  3600000 },
	{ "stall-timeout", 0, OPT_U32, AT(stall_ms), "MS", "give up a silent stream after", 1,
	  3600000 },
	{ "backend", 0, OPT_CHOICE, AT(backend), "B", "buffer backend", .choices = backend_names },
	{ "transport", 0, OPT_CHOICE, AT(transport), "T",
	  "how the KV comes from a URL (https); auto is udp, and https for what that cannot bring",
	  .choices = transport_names },
	{ "level", 0, OPT_STR, AT(levels), "auto|L[,L...]",
	  "levels that may come: f16, q8, q4, e, p; of several the finest that meets the deadline (auto: all)" },
	{ "calibration", 0, OPT_LIST, AT(calibrations), "FILE",
	  "a model's (lslm calibrate), without which level p cannot come; may be given again" },
	{ "deadline", 0, OPT_F32, AT(deadline_s), "S",
	  "seconds in which a URL's context is to be here whole (5)", 1e-3, 1e9 },
	{ "store", 0, OPT_STR, AT(store), "DIR|off",
	  "keep verified stripes over restarts (~/.cache/lslm/stripes)" },
	{ "store-key", 0, OPT_STR, AT(store_key), "FILE",
	  "encrypt them with this key (64 hexadecimal digits, mode 600)" },
	{ "store-mib", 0, OPT_U32, AT(store_mib), "N", "of them at most (4096)", 1, 1 << 30 },
	{ "store-days", 0, OPT_U32, AT(store_days), "N", "since they were last used (30)", 1,
	  36500 },
	{ "steer", 0, OPT_STR, AT(steer), "IFACE[,MODE]",
	  "steer datagrams in BPF: auto, xdp, xdpgeneric, tc, clsact" },
	{ "steer-limit", 0, OPT_STR, AT(steer_limit), "RATE[,BURST]",
	  "bytes per second of any sender, and bytes at once (RATE / 8)" },
	{ "model", 'm', OPT_LIST, AT(models), "FILE",
	  "answer with this GGUF model too, in engines of their own; may be given again" },
	{ "load", 0, OPT_CHOICE, AT(load), "L",
	  "packed weights: read by the courier for all engines, or mapped by each; pack: from the model, at start (auto)",
	  .choices = load_names },
	{ "listen", 0, OPT_STR, AT(listen), "ADDR", "where engines answer (127.0.0.1:8080)" },
	{ "engines", 0, OPT_U32, AT(engines), "N", "processes that answer (1)", 1,
	  SUPERVISOR_ENGINES },
	{ "threads", 't', OPT_U32, AT(threads), "N",
	  "threads of each engine (all allowed processors)", 0, 256 },
	{ "ctx-size", 'c', OPT_U32, AT(n_ctx), "N", "positions per request (as trained)", 0,
	  1 << 24 },
	{ "kv-mib", 0, OPT_U32, AT(kv_mib), "N",
	  "of private KV in each engine (a quarter of free memory in all)", 0, 1 << 30 },
	{ "no-reuse", 0, OPT_FLAG, AT(no_reuse), NULL,
	  "find no private KV of earlier requests again (to measure what that is worth)" },
	{ "attend-apart", 0, OPT_FLAG, AT(attend_apart), NULL,
	  "read what requests share for each by itself (to measure what reading it once is worth)" },
	{ "tls-cert", 0, OPT_STR, AT(tls_cert), "FILE",
	  "answer by TLS, with this certificate (PEM)" },
	{ "tls-key", 0, OPT_STR, AT(tls_key), "FILE", "its key (PEM)" },
	{ "tokens", 0, OPT_STR, AT(tokens), "FILE",
	  "tenants, their bearer tokens and salts; without, only this machine is answered" },
	{ "salt", 0, OPT_STR, AT(salt), "HEX",
	  "salt of the contexts of who names none in --tokens" },
	{ "engine-user", 0, OPT_STR, AT(engine_user), "NAME",
	  "that engines become when this is root (lslm-engine, or nobody)" },
	{ "require-confinement", 0, OPT_FLAG, AT(require), NULL,
	  "end where engines cannot be confined as a whole" },
	{ "drain", 0, OPT_U32, AT(drain_s), "S",
	  "at the end, time for answers that have begun (30)", 0, 3600 },
	{ "channel", 0, OPT_U32, AT(channel), "FD", "of the supervisor that starts this", 3,
	  1 << 20 },
	{ "quiet", 'q', OPT_FLAG, AT(quiet), NULL, "no line per event" },
	{ NULL },
};

static void defaults(void *values)
{
	*(struct values *)values = (struct values){ .engines = 1, .drain_s = 30 };
}

static int parse_limit(const char *text, uint64_t *rate, uint64_t *burst, struct lslm_error *err)
{
	unsigned long long r, b;
	char *end;

	errno = 0;
	r = strtoull(text, &end, 10);
	b = r / 8;
	if (*end == ',')
		b = strtoull(end + 1, &end, 10);
	if (errno || *end || *text < '0' || *text > '9' || !r || !b)
		return error_set(err, -EINVAL, "--steer-limit: '%s' is not RATE[,BURST] in bytes",
				 text);
	*rate = r;
	*burst = b;
	return 0;
}

static int check(const struct values *v, struct edge_opts *o, struct lslm_error *err)
{
	if (!v->cloud && !v->contexts.n && !v->context_file && !v->models.n && !v->channel)
		return error_set(
			err, -EINVAL,
			"nothing to keep: give --cloud, --context, --contexts, or several of them");
	if (v->listen && !v->models.n)
		return error_set(err, -EINVAL, "--listen needs a model: give -m");
	if (v->steer_limit && !v->steer)
		return error_set(err, -EINVAL, "--steer-limit needs --steer");
	if (v->levels && strcmp(v->levels, "auto") &&
	    kv_levels_parse(v->levels, &o->courier.levels, err))
		return error_prefix(err, -EINVAL, "--level");
	if (!v->peer_listen &&
	    (v->peer_cert || v->peer_key || v->peer_client_ca || v->peer_tenants))
		return error_set(err, -EINVAL, "nobody is served: give --peer-listen");
	return v->steer_limit ? parse_limit(v->steer_limit, &o->steer_rate, &o->steer_burst, err) :
				0;
}

static void log_line(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

/* ---- what the courier reads ---- */

enum { MAX_CONTEXT_FILE = 1 << 20 };

/* All of it, and what options that name it point to. */
struct files {
	struct opt_list contexts;
	char *text; /* of contexts: its lines */
	char *token, *peer_token, *site;
	uint8_t store_key[STRIPE_STORE_KEY];
	struct publisher_trust trust;
	struct calibrations calibrations;
	struct stripe_store_opts store;
	struct directory_opts directory;
	struct peers_opts peers;
	struct peer_service_opts service;
};

/* The lines become the list's words, and live as long as *text. */
static int add_contexts(const char *path, struct opt_list *list, char **text,
			struct lslm_error *err)
{
	char *line, *rest;
	size_t size;
	int rc;

	*text = NULL;
	if (!path)
		return 0;
	rc = file_read(path, MAX_CONTEXT_FILE, text, &size, err);
	if (rc)
		return rc;
	rest = *text;
	while ((line = strsep(&rest, "\n"))) {
		line += strspn(line, " \t");
		line[strcspn(line, " \t\r")] = 0;
		if (!*line || *line == '#')
			continue;
		if (list->n == OPTS_MAX_LIST)
			return error_set(err, -E2BIG, "%s: more than %d contexts", path,
					 OPTS_MAX_LIST);
		list->v[list->n++] = line;
	}
	return 0;
}

/* Where peers reach this gateway; NULL, and no error: they do not, or nobody asks. */
static int peer_site(const struct values *v, char **site, struct lslm_error *err)
{
	const char *at = v->peer_listen;

	*site = NULL;
	if (!v->nats || !at)
		return 0;
	if (!v->peer_url && (*at == ':' || !strncmp(at, "0.0.0.0:", 8) || !strncmp(at, "[::]:", 5)))
		return error_set(err, -EINVAL,
				 "--peer-listen %s is no address to be reached at; give --peer-url",
				 at);
	if (asprintf(site, "%s%s", v->peer_url ? "" : "https://", v->peer_url ? v->peer_url : at) <
	    0)
		*site = NULL;
	return *site ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int read_files(const struct values *v, struct files *f, struct lslm_error *err)
{
	int rc = add_contexts(v->context_file, &f->contexts, &f->text, err);

	if (!rc && v->store_key)
		rc = stripe_store_read_key(v->store_key, f->store_key, err);
	if (!rc)
		rc = token_read(v->token_file, false, &f->token, err);
	if (!rc)
		rc = publisher_trust_load(&f->trust, v->trust, err);
	if (!rc)
		rc = calibrations_open(&f->calibrations, v->calibrations.v, v->calibrations.n, err);
	if (!rc)
		rc = token_read(v->peer_token_file, false, &f->peer_token, err);
	return rc ? rc : peer_site(v, &f->site, err);
}

/* Gateways that this one asks, and that ask it. */
static void name_peers(const struct values *v, struct files *f, struct edge_opts *o)
{
	f->directory = (struct directory_opts){
		.url = v->nats,
		.creds = v->nats_creds,
		.cacert = v->nats_cacert,
		.self = f->site,
	};
	f->peers = (struct peers_opts){
		.urls = v->peers.v,
		.n_urls = v->peers.n,
		.cacert = v->peer_cacert ? v->peer_cacert : v->cacert,
		.token = f->peer_token,
		.cert = v->cert,
		.key = v->key,
		.directory = v->nats ? &f->directory : NULL,
	};
	f->service = (struct peer_service_opts){
		.listen = v->peer_listen,
		.cert = v->peer_cert,
		.key = v->peer_key,
		.client_ca = v->peer_client_ca,
		.token = f->peer_token,
		.tenants = v->peer_tenants,
	};
	o->peers = v->peers.n || v->nats ? &f->peers : NULL;
	o->peer_service = v->peer_listen ? &f->service : NULL;
}

static void name_files(const struct values *v, struct files *f, struct edge_opts *o)
{
	f->store = (struct stripe_store_opts){
		.dir = v->store,
		.max_bytes = (uint64_t)v->store_mib << 20,
		.max_age_s = v->store_days * 86400ull,
		.key = v->store_key ? f->store_key : NULL,
	};
	o->store = v->store && !strcmp(v->store, "off") ? NULL : &f->store;
	o->contexts = f->contexts.v;
	o->n_contexts = f->contexts.n;
	o->courier.calibrations = &f->calibrations;
	o->courier.token = f->token;
	o->courier.trusted = (const uint8_t(*)[MANIFEST_PUBKEY_BYTES])f->trust.keys;
	o->courier.n_trusted = f->trust.n;
	name_peers(v, f, o);
}

/* What it reads goes into *o; close_files() follows, whatever comes of it. */
static int open_files(const struct values *v, struct files *f, struct edge_opts *o,
		      struct lslm_error *err)
{
	int rc;

	*f = (struct files){ .contexts = v->contexts };
	rc = read_files(v, f, err);
	if (!rc)
		name_files(v, f, o);
	return rc;
}

static void close_files(struct files *f)
{
	publisher_trust_free(&f->trust);
	calibrations_free(&f->calibrations);
	token_free(f->token);
	token_free(f->peer_token);
	free(f->site);
	free(f->text);
	explicit_bzero(f->store_key, sizeof(f->store_key));
}

/* ---- the courier ---- */

/* Blocked before any thread starts, so that only this wait takes them. */
static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int serve(struct edge_opts *o, const sigset_t *set, struct lslm_error *err)
{
	struct edge *edge;
	int rc = edge_start(&edge, o, err), sig;

	if (rc)
		return rc;
	if (!o->channel) {
		printf("courier %s\n", o->socket);
		fflush(stdout);
	}
	sigwait(set, &sig);
	edge_stop(edge);
	return 0;
}

static int run_courier(const struct values *v, struct edge_opts *o, struct lslm_error *err)
{
	struct files f;
	sigset_t set;
	int rc;

	block_signals(&set);
	rc = open_files(v, &f, o, err);
	if (!rc)
		rc = serve(o, &set, err);
	close_files(&f);
	return rc;
}

/* ---- with engines ---- */

struct supervised {
	const char *socket;
	const struct values *values;
	const struct edge_opts *courier; /* but for what it reads */
};

static void tell_ready(void *arg, int port)
{
	const struct supervised *s = arg;

	printf("courier %s\nlistening on port %d\n", s->socket, port);
	fflush(stdout);
}

/* A courier that could not start again for a slip in one of its files would bring nothing to anybody. */
static int check_files(void *arg, struct lslm_error *err)
{
	const struct supervised *s = arg;
	struct edge_opts o = *s->courier;
	struct files f;
	int rc = open_files(s->values, &f, &o, err);

	if (!rc)
		rc = edge_check(&o, err);
	close_files(&f);
	return rc;
}

/* The same, without what is the engines'. */
static char **courier_argv(const struct values *v, const char *socket)
{
	struct values c = *v, plain;

	defaults(&plain);
	c.courier = socket;
	c.listen = c.engine_user = c.salt = c.tls_cert = c.tls_key = NULL;
	c.engines = plain.engines;
	c.threads = plain.threads;
	c.n_ctx = plain.n_ctx;
	c.kv_mib = plain.kv_mib;
	c.drain_s = plain.drain_s;
	c.require = c.no_reuse = c.attend_apart = false;
	c.channel = CHANNEL_FD;
	return opts_format(&command_edge, &c);
}

static char **engine_argv(const struct values *v, const char *socket)
{
	const struct engine_values e = {
		.models = v->models,
		.user = v->engine_user,
		.trust = v->trust,
		.salt = v->salt,
		.channel = CHANNEL_FD,
		.courier = socket,
		.load = v->load,
		.threads = v->threads,
		.n_ctx = v->n_ctx,
		.kv_mib = v->kv_mib,
		.no_reuse = v->no_reuse,
		.attend_apart = v->attend_apart,
		.engines = v->engines,
		.cert = v->tls_cert,
		.key = v->tls_key,
		.tokens = v->tokens,
		.drain_s = v->drain_s,
		.require = v->require,
		.quiet = v->quiet,
	};

	return opts_format(&command_engine, &e);
}

static int supervise(const struct values *v, const struct edge_opts *edge, struct lslm_error *err)
{
	const char *socket = edge->socket;
	char **courier = courier_argv(v, socket), **engine = engine_argv(v, socket);
	struct supervised arg = { socket, v, edge };
	const struct supervisor_opts o = {
		.listen = v->listen ? v->listen : "127.0.0.1:8080",
		.courier_socket = socket,
		.engines = v->engines,
		.courier_argv = courier,
		.engine_argv = engine,
		.require_confinement = v->require,
		.drain_s = v->drain_s,
		.log = v->quiet ? NULL : log_line,
		.ready = tell_ready,
		.check = check_files,
		.arg = &arg,
	};
	int rc = courier && engine ? supervisor_run(&o, err) :
				     error_set(err, -ENOMEM, "out of memory");

	opts_free_argv(courier);
	opts_free_argv(engine);
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	struct edge_opts o = {
		.group = v->group,
		.cloud = v->cloud,
		.asked_only = v->asked_only,
		.max_contexts = v->max_contexts,
		.tenants = v->tokens,
		.courier = {
			.backend = (enum buffer_backend)v->backend,
			.cacert = v->cacert,
			.cert = v->cert,
			.key = v->key,
			.connect_timeout_ms = (int)v->connect_ms,
			.stall_timeout_ms = (int)v->stall_ms,
			.transport = (enum courier_transport)v->transport,
			.deadline_s = (double)v->deadline_s,
		},
		.steer = v->steer,
		.channel = (int)v->channel,
		.models = v->models.v,
		.n_models = v->models.n,
		.load = (enum matrices_load)v->load,
		.log = v->quiet ? NULL : log_line,
	};
	char *socket;
	int rc;

	if (check(v, &o, err))
		return EXIT_USAGE;
	socket = v->courier ? strdup(v->courier) : default_socket();
	o.socket = socket;
	if (!socket)
		rc = error_set(err, -ENOMEM, "out of memory");
	else
		rc = v->models.n && !v->channel ? supervise(v, &o, err) : run_courier(v, &o, err);
	free(socket);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_edge = {
	.name = "edge",
	.summary = "keep contexts on this gateway, and answer with models after them",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
	.notes =
		"Without a model it is the courier alone, for engines that are `lslm generate --courier "
		"SOCKET`. `lslm stat` shows what is kept and how it comes.",
	.lean = true,
};
