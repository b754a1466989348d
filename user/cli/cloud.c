// SPDX-License-Identifier: MIT
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/token.h"
#include "cli/cloud_models.h"
#include "cli/commands.h"
#include "codec/calibration.h"
#include "kv/publisher.h"
#include "serve/cloud.h"

struct values {
	struct opt_list models, maps, calibrations;
	const char *listen, *store, *cert, *key, *client_ca, *token_file, *tenants, *trust;
	const char *publisher_key, *salt, *udp, *levels;
	uint32_t threads, n_ctx, store_mib, ttl_days;
	bool quiet;
};

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_LIST, AT(models), "FILE",
	  "GGUF model to compute contexts with; of several the first is the usual one" },
	{ "map", 0, OPT_LIST, AT(maps), "FILE",
	  "map between two of the models (lslm align), for contexts of the smaller one; may be given again" },
	{ "listen", 0, OPT_STR, AT(listen), "ADDR", "HOST:PORT or [V6]:PORT (127.0.0.1:8443)" },
	{ "udp", 0, OPT_STR, AT(udp), "PORT|off", "UDP port of placement (that of --listen)" },
	{ "store", 0, OPT_STR, AT(store), "DIR", "where contexts are kept", .required = true },
	{ "cert", 0, OPT_STR, AT(cert), "FILE", "server certificate (PEM)", .required = true },
	{ "key", 0, OPT_STR, AT(key), "FILE", "its key (PEM)", .required = true },
	{ "client-ca", 0, OPT_STR, AT(client_ca), "FILE", "clients show a certificate of this CA" },
	{ "token-file", 0, OPT_STR, AT(token_file), "FILE", "clients show this bearer token" },
	{ "tenants", 0, OPT_STR, AT(tenants), "FILE",
	  "clients show a token of this file, and see what is theirs; read again on SIGHUP" },
	{ "store-mib", 0, OPT_U32, AT(store_mib), "N",
	  "what contexts may take; those not used for the longest time go first (no limit)", 1,
	  UINT32_MAX },
	{ "ttl-days", 0, OPT_U32, AT(ttl_days), "N",
	  "remove contexts that were not used for so long, pinned ones aside (never)", 1, 36500 },
	{ "trust", 0, OPT_STR, AT(trust), "KEY|FILE", "publishers whose uploads are taken" },
	{ "publisher-key", 0, OPT_STR, AT(publisher_key), "FILE",
	  "sign with this key, made if missing (~/.config/lslm/publisher.key)" },
	{ "salt", 0, OPT_STR, AT(salt), "HEX", "tenant salt of computed contexts" },
	{ "level", 0, OPT_STR, AT(levels), "L[,L...]",
	  "at which computed contexts are on offer: f16 (alone), q8, q4, e, p" },
	{ "calibration", 0, OPT_LIST, AT(calibrations), "FILE",
	  "for level p: of a model (lslm calibrate); may be given again" },
	{ "ctx-size", 'c', OPT_U32, AT(n_ctx), "N", "positions at most (as trained)", 0, 1 << 24 },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "quiet", 'q', OPT_FLAG, AT(quiet), NULL, "no line per request" },
	{ NULL },
};

/* What the server calls back into; lives as long as the server. */
struct service {
	struct cloud_models models;
	struct calibrations calibrations;
	struct publish_opts publish;
};

static void defaults(void *values)
{
	*(struct values *)values = (struct values){ .listen = "127.0.0.1:8443" };
}

static int compute(void *arg, const struct pubqueue_text *what, const char *path,
		   const struct pubqueue_work *work, struct kv_hash *key, struct lslm_error *err)
{
	const struct service *s = arg;
	struct publish_opts o = s->publish;
	struct engine *e = cloud_models_find(&s->models, what->model, what->map, &o);

	o.salt = what->salt;
	o.raw = what->raw;
	o.title = what->title;
	o.progress = work->progress;
	o.have = work->have;
	o.arg = work->arg;
	return publish_file(e, what->text, what->len, &o, path, key, err);
}

static void log_line(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

/* -EINVAL: neither a port nor "off". */
static int parse_udp(const char *text, int *port)
{
	size_t digits = text ? strspn(text, "0123456789") : 0;

	*port = 0;
	if (!text)
		return 0;
	if (!strcmp(text, "off")) {
		*port = CLOUD_UDP_OFF;
		return 0;
	}
	if (!digits || digits > 5 || text[digits])
		return -EINVAL;
	*port = atoi(text);
	return *port < 1 || *port > 65535 ? -EINVAL : 0;
}

static void tell_udp(struct cloud *cloud)
{
	struct lslm_error why = { 0 };
	int port = cloud_udp_port(cloud, &why);

	if (port < 0)
		printf("udp off: %s\n", why.text);
	else
		printf("udp port %d\n", port);
}

/* Blocked before any thread starts, so that only this wait takes them. */
static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
	sigprocmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Until it is told to end. */
static void wait_for_the_end(struct cloud *cloud, const sigset_t *set)
{
	struct lslm_error why = { 0 };
	int sig;

	while (!sigwait(set, &sig) && sig == SIGHUP)
		fprintf(stderr, "lslm cloud: %s\n",
			cloud_reload(cloud, &why) ? why.text :
						    "tenants, certificate and key were read again");
}

static int serve(const struct values *v, struct service *s, const char *pub, int udp,
		 const sigset_t *set, struct lslm_error *err)
{
	struct publisher_trust trust = { 0 };
	struct cloud_opts o = {
		.listen = v->listen,
		.cert = v->cert,
		.key = v->key,
		.client_ca = v->client_ca,
		.tenants = v->tenants,
		.store = v->store,
		.store_bytes = (uint64_t)v->store_mib << 20,
		.ttl_s = v->ttl_days * 86400u,
		.models = s->models.names,
		.n_models = s->models.n,
		.maps = s->models.map_names,
		.n_maps = s->models.n_maps,
		.salt = s->publish.salt,
		.udp_port = udp,
		.publish = compute,
		.log = v->quiet ? NULL : log_line,
		.arg = s,
	};
	struct cloud *cloud = NULL;
	char *token;
	int rc;

	rc = token_read(v->token_file, false, &token, err);
	if (!rc && v->trust)
		rc = publisher_trust_add(&trust, v->trust, err);
	o.token = token;
	o.trusted = (const uint8_t(*)[MANIFEST_PUBKEY_BYTES])trust.keys;
	o.n_trusted = trust.n;
	if (!rc)
		rc = cloud_start(&cloud, &o, err);
	if (!rc) {
		printf("listening on port %d\n", cloud_port(cloud));
		tell_udp(cloud);
		printf("publisher %s\n", pub);
		fflush(stdout);
		wait_for_the_end(cloud, set);
		cloud_stop(cloud);
	}
	publisher_trust_free(&trust);
	token_free(token);
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	struct service s = { .publish = { .n_ctx = v->n_ctx } };
	struct publisher who = { 0 };
	char pub[PUBLISHER_TEXT];
	sigset_t set;
	int rc, udp;

	if (!v->models.n) {
		error_set(err, -EINVAL, "-m MODEL is missing");
		return EXIT_USAGE;
	}
	if (!v->token_file && !v->client_ca && !v->tenants) {
		error_set(
			err, -EINVAL,
			"clients must be known: give --token-file or --tenants, --client-ca, or both");
		return EXIT_USAGE;
	}
	if (v->salt && kv_hash_parse(&s.publish.salt, v->salt)) {
		error_set(err, -EINVAL, "--salt: not 64 hexadecimal digits");
		return EXIT_USAGE;
	}
	if (v->levels && kv_levels_parse(v->levels, &s.publish.levels, err)) {
		error_prefix(err, -EINVAL, "--level");
		return EXIT_USAGE;
	}
	if (parse_udp(v->udp, &udp) < 0) {
		error_set(err, -EINVAL, "--udp: '%s' is neither a port nor off", v->udp);
		return EXIT_USAGE;
	}
	block_signals(&set);
	rc = publisher_open(&who, v->publisher_key, err);
	if (!rc)
		rc = calibrations_open(&s.calibrations, v->calibrations.v, v->calibrations.n, err);
	s.publish.calibrations = &s.calibrations;
	if (!rc)
		rc = cloud_models_open(&s.models, &v->models, &v->maps, v->threads, &s.publish,
				       err);
	s.publish.seckey = who.seckey;
	publisher_key_text(who.pubkey, pub);
	if (!rc)
		rc = serve(v, &s, pub, udp, &set, err);
	publisher_wipe(&who);
	cloud_models_close(&s.models);
	calibrations_free(&s.calibrations);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_cloud = {
	.name = "cloud",
	.summary = "compute contexts, keep them, and serve them over HTTPS and UDP",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
	.notes = "scripts/certs DIR makes a self-signed pair. There is no mode without TLS.",
};
