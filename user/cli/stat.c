// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/stat_serving.h"
#include "net/breaker.h"
#include "net/courier.h"
#include "net/courier_client.h"
#include "net/session.h"
#include "net/steer.h"
#include "serve/guard.h"

struct values {
	const char *courier;
	bool json;
};

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "courier", 0, OPT_STR, AT(courier), "SOCKET",
	  "of the courier (/run/lslm/courier, or below $XDG_RUNTIME_DIR)" },
	{ "json", 0, OPT_FLAG, AT(json), NULL, "one object, once" },
	{ NULL },
};

static const char *const states[] = {
	[COURIER_WAITING] = "waiting",
	[COURIER_RECEIVING] = "receiving",
	[COURIER_FAILING] = "failing",
	[COURIER_COMPLETE] = "complete",
};

static const char *const sources[] = {
	[CONTROL_FROM_NONE] = "none", [CONTROL_FROM_CLOUD] = "cloud",
	[CONTROL_FROM_FILE] = "file", [CONTROL_FROM_COMPUTE] = "compute",
	[CONTROL_FROM_DISK] = "disk", [CONTROL_FROM_PEER] = "peer",
};

enum { N_SOURCES = sizeof(sources) / sizeof(sources[0]) };

static void defaults(void *values)
{
	memset(values, 0, sizeof(struct values));
}

static void key_text(const struct courier_entry *e, char hex[KV_HASH_TEXT])
{
	struct kv_hash key;

	memcpy(key.b, e->key, sizeof(key.b));
	kv_hash_format(&key, hex);
	if (!e->has_key)
		strcpy(hex, "-");
}

/* From this number on; one may be dropped while it is asked for. As courier_client_list(). */
static int next_context(struct courier_client *c, uint32_t *number, struct courier_entry *e,
			struct courier_status *s, struct lslm_error *err)
{
	int rc;

	for (;; ++*number) {
		rc = courier_client_list(c, *number, e, err);
		if (rc)
			return rc;
		*number = e->index;
		rc = courier_client_status(c, *number, s, err);
		if (rc != -ENOENT)
			return rc;
	}
}

/* ---- for people ---- */

static void print_blocks(const struct courier_status *s)
{
	const char *comma = " (";

	printf("  blocks       %u of %u", s->blocks_ready, s->blocks_total);
	for (int i = 0; i < N_SOURCES; i++)
		if (s->blocks_from[i]) {
			printf("%s%u %s", comma, s->blocks_from[i], sources[i]);
			comma = ", ";
		}
	puts(*comma == ',' ? ")" : "");
}

static void print_levels(const struct courier_status *s)
{
	uint64_t at[KV_LEVELS];
	char text[96];

	for (int i = 0; i < KV_LEVELS; i++)
		at[i] = s->blocks_at[i];
	courier_levels_text(at, text, sizeof(text));
	printf("  levels       %s\n", text);
}

/* Drop 0 is none; those that never happened are left out. */
static void print_placement(const struct courier_placement *p)
{
	const char *before = "  dropped      ";

	printf("  placement    %s, %u sessions, %u bytes a datagram, round trip %.1f ms\n",
	       p->reason, p->sessions, p->chunk, (double)p->rtt_ns / 1e6);
	printf("  datagrams    %" PRIu64 " received (encap %" PRIu64 ", tc %" PRIu64
	       ", xdp %" PRIu64 ", ring %" PRIu64 "), %" PRIu64 " placed\n",
	       p->received, p->by_encap, p->by_tc, p->by_xdp, p->by_ring, p->placed);
	printf("  control      %" PRIu64 " reports, %" PRIu64 " hellos, %" PRIu64
	       " probes, %" PRIu64 " ignored, %" PRIu64 " changes of keys\n",
	       p->reports, p->hellos, p->probes, p->ignored, p->key_changes);
	for (int i = 1; i < LSLM_DROP_COUNT; i++)
		if (p->drops[i]) {
			printf("%s%s %" PRIu64, before, session_drop_name((enum lslm_drop)i),
			       p->drops[i]);
			before = ", ";
		}
	if (*before == ',')
		putchar('\n');
}

static void print_context(const struct courier_entry *e, const struct courier_status *s)
{
	char hex[KV_HASH_TEXT];

	key_text(e, hex);
	printf("context %.12s  %s  %s\n", hex, states[e->state], e->title);
	if (*e->why)
		printf("  why          %s\n", e->why);
	if (e->state == COURIER_WAITING)
		return;
	printf("  tokens       %u\n", e->n_tokens);
	print_blocks(s);
	print_levels(s);
	printf("  received     %" PRIu64 " bytes in %.1f s\n", s->bytes_received, s->seconds);
	printf("  path         %s\n  buffer       %s\n", s->path, s->backend);
	if (s->udp.sessions)
		print_placement(&s->udp);
	printf("  engines      %u, the head computed by them up to stripe %u\n", s->engines,
	       s->computed);
}

static void print_courier(const struct courier_stat *s, const char *path)
{
	printf("courier %s  process %u, %.0f s, %u connections, %u contexts\n", path, s->pid,
	       s->uptime_s, s->clients, s->n_contexts);
	printf("  buffers      %s\n  steering     %s\n", s->buffers, s->steer);
	if (s->has_steer) {
		fputs("  frames      ", stdout);
		for (int i = 0; i < STEER_COUNTERS; i++)
			printf(" %s %" PRIu64, steer_verdict_name((enum steer_verdict)i),
			       s->steer_frames[i]);
		putchar('\n');
	}
	printf("  store        %s\n", s->store);
	if (s->has_store)
		printf("  stripes      %" PRIu64 " loaded, %" PRIu64 " saved, %" PRIu64
		       " wrong, %" PRIu64 " evicted\n",
		       s->store_loaded, s->store_saved, s->store_wrong, s->store_evicted);
}

static void print_engines(const struct courier_stat *s)
{
	if (!s->has_engines)
		return;
	printf("engines %u ready  %" PRIu64 " started, and %" PRIu64 " couriers; %" PRIu64
	       " calls refused\n",
	       s->engines_ready, s->engine_starts, s->courier_starts, s->refused_calls);
	fputs(s->guarded ? "  guard       " : "  guard        off", stdout);
	for (int i = 0; i < GUARD_COUNTERS && s->guarded; i++)
		printf(" %s %" PRIu64, guard_reason_name((enum guard_reason)i), s->guard[i]);
	putchar('\n');
}

static int print_clouds(struct courier_client *c, struct lslm_error *err)
{
	struct courier_cloud s;
	int rc;

	for (uint32_t i = 0; !(rc = courier_client_cloud(c, i, &s, err)); i++) {
		printf("cloud %s  %s, opened %" PRIu64 " times, %" PRIu64 " probes", s.name,
		       breaker_state_name(s.state), s.opened, s.probes);
		if (s.state == BREAKER_OPEN)
			printf(", the next one in %.1f s", s.next_s);
		putchar('\n');
		if (*s.why)
			printf("  why          %s\n", s.why);
	}
	return rc == -ENOENT ? 0 : rc;
}

/* last: of a terminal; NULL: once. */
static int print_all(struct courier_client *c, const char *path, struct stat_serving *last,
		     struct lslm_error *err)
{
	struct courier_status s;
	struct courier_entry e;
	struct courier_stat stat;
	int rc = courier_client_stat(c, &stat, err);

	if (rc)
		return rc;
	print_courier(&stat, path);
	print_engines(&stat);
	rc = stat_serving_print(c, last, err);
	if (!rc)
		rc = print_clouds(c, err);
	if (rc)
		return rc;
	for (uint32_t i = 0; !(rc = next_context(c, &i, &e, &s, err)); i++)
		print_context(&e, &s);
	return courier_list_has_ended(rc) ? 0 : rc;
}

/* ---- for programs ---- */

/* null where there was no session. */
static json_t *placement_object(const struct courier_placement *p)
{
	json_t *drops;

	if (!p->sessions)
		return json_null();
	drops = json_object();
	for (int i = 1; i < LSLM_DROP_COUNT; i++)
		json_object_set_new(drops, session_drop_name((enum lslm_drop)i),
				    json_integer((json_int_t)p->drops[i]));
	return json_pack(
		"{s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I,"
		" s:{s:I, s:I, s:I, s:I}, s:o}",
		"sessions", (json_int_t)p->sessions, "backend", p->backend, "reason", p->reason,
		"chunk", (json_int_t)p->chunk, "rtt_ns", (json_int_t)p->rtt_ns, "hellos",
		(json_int_t)p->hellos, "reports", (json_int_t)p->reports, "probes",
		(json_int_t)p->probes, "ignored", (json_int_t)p->ignored, "key_changes",
		(json_int_t)p->key_changes, "chunk_changes", (json_int_t)p->chunk_changes,
		"received", (json_int_t)p->received, "placed", (json_int_t)p->placed,
		"placed_bytes", (json_int_t)p->placed_bytes, "units", (json_int_t)p->units,
		"overflows", (json_int_t)p->overflows, "by", "encap", (json_int_t)p->by_encap, "tc",
		(json_int_t)p->by_tc, "xdp", (json_int_t)p->by_xdp, "ring", (json_int_t)p->by_ring,
		"drops", drops);
}

static json_t *context_object(const struct courier_entry *e, const struct courier_status *s)
{
	json_t *from = json_object(), *at = json_object();
	char hex[KV_HASH_TEXT];

	key_text(e, hex);
	for (int i = 1; i < N_SOURCES; i++)
		json_object_set_new(from, sources[i], json_integer(s->blocks_from[i]));
	for (int i = 0; i < KV_LEVELS; i++)
		json_object_set_new(at, kv_level_name(i), json_integer(s->blocks_at[i]));
	return json_pack(
		"{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:I, s:f, s:s, s:s, s:I, s:I, s:o}",
		"key", hex, "title", e->title, "state", states[e->state], "why", e->why, "tokens",
		(json_int_t)e->n_tokens, "blocks_ready", (json_int_t)s->blocks_ready,
		"blocks_total", (json_int_t)s->blocks_total, "blocks_from", from, "blocks_at", at,
		"bytes_received", (json_int_t)s->bytes_received, "seconds", s->seconds, "path",
		s->path, "backend", s->backend, "engines", (json_int_t)s->engines,
		"computed_stripes", (json_int_t)s->computed, "udp", placement_object(&s->udp));
}

static json_t *courier_object(const struct courier_stat *s)
{
	json_t *frames = json_object();

	for (int i = 0; s->has_steer && i < STEER_COUNTERS; i++)
		json_object_set_new(frames, steer_verdict_name((enum steer_verdict)i),
				    json_integer((json_int_t)s->steer_frames[i]));
	return json_pack(
		"{s:I, s:f, s:I, s:s, s:{s:b, s:s, s:o}, s:{s:b, s:s, s:I, s:I, s:I, s:I}}", "pid",
		(json_int_t)s->pid, "uptime_s", s->uptime_s, "connections", (json_int_t)s->clients,
		"buffers", s->buffers, "steer", "on", (int)s->has_steer, "text", s->steer, "frames",
		frames, "store", "on", (int)s->has_store, "text", s->store, "loaded",
		(json_int_t)s->store_loaded, "saved", (json_int_t)s->store_saved, "wrong",
		(json_int_t)s->store_wrong, "evicted", (json_int_t)s->store_evicted);
}

/* null where there is no supervisor. */
static json_t *engines_object(const struct courier_stat *s)
{
	json_t *guard = json_object();

	for (int i = 0; i < GUARD_COUNTERS && s->guarded; i++)
		json_object_set_new(guard, guard_reason_name((enum guard_reason)i),
				    json_integer((json_int_t)s->guard[i]));
	if (s->has_engines)
		return json_pack("{s:I, s:I, s:I, s:I, s:o}", "ready", (json_int_t)s->engines_ready,
				 "started", (json_int_t)s->engine_starts, "couriers_started",
				 (json_int_t)s->courier_starts, "refused_calls",
				 (json_int_t)s->refused_calls, "guard", guard);
	json_decref(guard);
	return json_null();
}

/* Appended to the array. */
static int cloud_objects(struct courier_client *c, json_t *clouds, struct lslm_error *err)
{
	struct courier_cloud s;
	int rc;

	for (uint32_t i = 0; !(rc = courier_client_cloud(c, i, &s, err)); i++)
		json_array_append_new(
			clouds, json_pack("{s:s, s:s, s:I, s:I, s:f, s:s}", "name", s.name, "state",
					  breaker_state_name(s.state), "opened",
					  (json_int_t)s.opened, "probes", (json_int_t)s.probes,
					  "next_probe_s", s.next_s, "why", s.why));
	return rc == -ENOENT ? 0 : rc;
}

static int no_json(struct lslm_error *err)
{
	return error_set(err, -ENOMEM, "what the courier says cannot be written as JSON");
}

static int print_json(struct courier_client *c, struct lslm_error *err)
{
	json_t *all, *contexts = json_array(), *clouds = json_array(), *serving = NULL;
	struct courier_status s;
	struct courier_entry e;
	struct courier_stat stat;
	int rc = courier_client_stat(c, &stat, err);

	if (!rc)
		rc = cloud_objects(c, clouds, err);
	if (!rc) {
		serving = stat_serving_object(c, err);
		rc = serving ? 0 : err->code;
	}
	for (uint32_t i = 0; !rc && !(rc = next_context(c, &i, &e, &s, err)); i++)
		if (json_array_append_new(contexts, context_object(&e, &s)))
			rc = no_json(err);
	if (courier_list_has_ended(rc))
		rc = 0;
	all = rc ? NULL : courier_object(&stat);
	if (!rc &&
	    (json_object_set_new(all, "engines", engines_object(&stat)) ||
	     json_object_set(all, "serving", serving) || json_object_set(all, "clouds", clouds) ||
	     json_object_set(all, "contexts", contexts) || json_dumpf(all, stdout, JSON_COMPACT)))
		rc = no_json(err);
	if (!rc)
		putchar('\n');
	json_decref(all);
	json_decref(contexts);
	json_decref(clouds);
	json_decref(serving);
	return rc;
}

/* ---- */

static int show(const struct values *v, const char *path, struct lslm_error *err)
{
	const bool live = !v->json && isatty(STDOUT_FILENO);
	struct stat_serving last = { 0 };
	struct courier_client *c;
	int rc = courier_client_open(&c, path, 0, err);

	if (rc)
		return rc;
	do {
		if (live)
			fputs("\033[H\033[2J", stdout);
		rc = v->json ? print_json(c, err) : print_all(c, path, live ? &last : NULL, err);
		if (!rc && (fflush(stdout) || ferror(stdout)))
			rc = error_sys(err, -EIO, "standard output");
	} while (!rc && live && !sleep(1));
	courier_client_close(c);
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	char *path = v->courier ? strdup(v->courier) : default_socket();
	int rc = path ? show(v, path, err) : error_set(err, -ENOMEM, "out of memory");

	free(path);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_stat = {
	.name = "stat",
	.summary = "show what the courier keeps and how it comes",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
	.notes = "In a terminal it is shown anew each second; elsewhere once.",
};
