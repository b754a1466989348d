// SPDX-License-Identifier: MIT
#include "net/receiver.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "net/cadence.h"
#include "net/keyring.h"
#include "net/pathmtu.h"
#include "net/report.h"
#include "net/sites.h"
#include "net/steer.h"
#include "net/wants.h"

#define MS     1000000ULL
#define SECOND (1000 * MS)

enum {
	ANSWER_MS = 2000,
	STALL_MS = 10000,
	RUN_OVER = 1, /* of a step: nothing is wanted any more */
};

/* No datagram of full size for four round trips, within these: does the path still take them? */
#define SILENCE_LEAST (250 * MS)
#define SILENCE_MOST  SECOND
/* After keys could not be had. */
#define RENEW_AGAIN (2 * SECOND)
/* Of a cloud that is away for others nothing is waited for longer. */
#define AWAY SECOND
/* Between readings of the statistics for others. */
#define SHOW_EVERY (100 * MS)

struct receiver {
	struct receiver_opts opts;
	struct sink *sink;
	struct session *session;
	struct wants *wants;
	struct keyring keys;
	struct pathmtu path;
	uint32_t cloud; /* the session's number there */
	uint64_t answer_ns, stall_ns; /* limits */
	uint64_t socket_bytes; /* of memory, for credit */
	uint16_t port; /* this side's; steering knows it while it is not 0 */

	uint64_t begun_ns;
	struct cadence cadence;
	uint32_t report; /* number of the last REPORT */
	uint64_t placed_ns; /* when something was placed, or could have been for the first time */
	uint64_t full_ns; /* the same of a datagram of full size */
	struct session_progress seen;
	uint64_t counted; /* placed bytes that the sink knows of */
	bool overflow; /* completions were lost */
	struct lslm_error failed; /* within a callback */
	struct receiver_stats stats;

	bool renewing;
	uint64_t renew_ns; /* not before */
	uint64_t shown_ns; /* when the statistics were */
	pthread_mutex_t
		lock; /* of those below: receiver_keys() writes them, receiver_stats() reads */
	bool answered, offered;
	struct grant_keys next;
	struct receiver_stats shown;
};

/* ---- open and close ---- */

static uint64_t socket_memory(const struct receiver *r)
{
	socklen_t len = sizeof(int);
	int bytes = 0;

	if (!strcmp(session_backend_name(r->session), "kernel"))
		return RECEIVER_KERNEL;
	getsockopt(r->opts.socket, SOL_SOCKET, SO_RCVBUF, &bytes, &len);
	/* The kernel's own overhead for each datagram is counted in it. */
	return (uint64_t)bytes / 2;
}

int receiver_open(struct receiver **out, const struct receiver_opts *opts, struct lslm_error *err)
{
	struct receiver *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return error_sys(err, -ENOMEM, "receiver");
	pthread_mutex_init(&r->lock, NULL);
	r->opts = *opts;
	r->sink = opts->sink;
	r->session = opts->session;
	r->cloud = opts->grant->session;
	r->answer_ns = (uint64_t)(opts->answer_timeout_ms ?: ANSWER_MS) * MS;
	r->stall_ns = (uint64_t)(opts->stall_timeout_ms ?: STALL_MS) * MS;
	r->socket_bytes = socket_memory(r);
	cadence_init(&r->cadence);
	keyring_init(&r->keys, &opts->grant->keys, clock_ns());
	ret = session_key(r->session, r->keys.newest, LSLM_CIPHER_CHACHA20POLY1305,
			  opts->grant->keys.to_edge, opts->grant->keys.max_packets,
			  opts->grant->keys.lifetime_s, err);
	if (!ret)
		ret = wants_open(&r->wants, r->sink, r->session, opts->steer, err);
	if (ret < 0) {
		receiver_close(r);
		return ret;
	}
	*out = r;
	return 0;
}

void receiver_close(struct receiver *r)
{
	if (!r)
		return;
	wants_close(r->wants);
	if (r->port)
		steer_port_remove(r->opts.steer, r->port, NULL);
	pthread_mutex_destroy(&r->lock);
	keyring_wipe(&r->keys);
	explicit_bzero(&r->next, sizeof(r->next));
	free(r);
}

void receiver_stats(struct receiver *r, struct receiver_stats *out)
{
	pthread_mutex_lock(&r->lock);
	*out = r->shown;
	pthread_mutex_unlock(&r->lock);
}

static void show_stats(struct receiver *r, uint64_t now)
{
	r->stats.chunk = r->path.chunk;
	r->stats.rtt_ns = r->path.rtt_ns;
	session_stats(r->session, &r->stats.session);
	pthread_mutex_lock(&r->lock);
	r->shown = r->stats;
	pthread_mutex_unlock(&r->lock);
	r->shown_ns = now;
}

/* ---- sending ---- */

/* A datagram that cannot be sent is like one that was lost: what follows from that is the clocks' business. */
static void send_control(struct receiver *r, enum lslm_opcode opcode, uint32_t number,
			 const uint8_t *payload, size_t size)
{
	uint8_t packet[REPORT_ROOM + LSLM_WIRE_OVERHEAD];
	long n;

	n = keyring_seal(&r->keys, opcode, r->cloud, number, payload, size, packet, clock_ns());
	if (n > 0)
		send(r->opts.socket, packet, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static uint32_t credit(const struct receiver *r)
{
	double bytes = (double)r->socket_bytes +
		       (double)RECEIVER_RATE * (double)r->path.rtt_ns / (double)SECOND;

	return bytes < RECEIVER_CREDIT_MAX ? (uint32_t)bytes : RECEIVER_CREDIT_MAX;
}

/*
 * Progress is read before what is missing: the other way round a datagram that comes in between
 * would be missing below the highest counter, and so be sent again.
 */
static int send_report(struct receiver *r, uint16_t flags, struct lslm_error *err)
{
	uint8_t payload[REPORT_ROOM];
	struct session_progress p;
	struct report_writer w;
	struct cadence_list list;
	size_t room = sizeof(payload), size;
	int ret = 0;

	session_progress(r->session, &p);
	const struct report head = {
		.highest = p.last_counter,
		.highest_ns = p.last_ns,
		.now_ns = clock_ns(),
		.received = p.received,
		.credit = credit(r),
		.chunk = (uint16_t)r->path.chunk,
		.flags = flags,
	};

	/* As large as the path is known to take; before that only the head is written. */
	if (r->path.chunk && r->path.chunk < room)
		room = r->path.chunk;
	report_begin(&w, payload, room, &head);
	if (r->path.chunk && !flags) {
		list = cadence_list(&r->cadence, r->path.rtt_ns, head.now_ns);
		report_limit(&w, list.size, list.bytes / r->path.chunk + 1);
		ret = wants_write(r->wants, &w);
	}
	if (ret < 0)
		return error_sys(err, ret, "cannot tell what is missing");
	/* Who asks for nothing, because peers bring what is missing, need not wonder that nothing comes. */
	if (!ret && r->sink->shares)
		r->placed_ns = head.now_ns;
	size = report_end(&w);
	send_control(r, LSLM_OP_REPORT, ++r->report, payload, size);
	cadence_sent(&r->cadence, size, w.n_chunks * r->path.chunk, r->path.rtt_ns, head.now_ns);
	r->stats.reports++;
	return 0;
}

/* ---- what arrives ---- */

static bool is_zero(const uint8_t *p, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (p[i])
			return false;
	return true;
}

static void on_control(void *arg, uint8_t *packet, size_t size)
{
	struct receiver *r = arg;
	uint64_t now = clock_ns();
	struct lslm_header h;
	long n;

	n = keyring_open(&r->keys, &h, session_number(r->session), packet, size, now);
	if (n >= 0)
		r->stats.heard_ns = now;
	if (n >= 0 && h.opcode == LSLM_OP_PROBE && !h.slot && !h.offset &&
	    is_zero(packet + LSLM_WIRE_HEADER, (size_t)n) &&
	    pathmtu_probe(&r->path, h.generation, (uint32_t)size, now))
		r->stats.probes++;
	else
		r->stats.ignored++;
}

static void count_bytes(struct receiver *r)
{
	struct session_progress p;

	session_progress(r->session, &p);
	sink_came(r->sink, p.placed_bytes - r->counted);
	r->counted = p.placed_bytes;
}

/* Whoever waits for the last unit may ask at once how many bytes came. */
static void on_done(void *arg, const struct session_done *done)
{
	struct receiver *r = arg;

	count_bytes(r);
	if (!r->failed.code)
		wants_take(r->wants, done, &r->failed);
}

static void on_overflow(void *arg)
{
	((struct receiver *)arg)->overflow = true;
}

static const struct session_ops ops = {
	.control = on_control,
	.done = on_done,
	.overflow = on_overflow,
};

/* How long the last chunk of a unit is; 0: nothing is ever longer where units are short. */
static uint64_t last_chunk(uint64_t unit, uint32_t chunk)
{
	return unit < chunk ? 0 : unit % chunk;
}

/*
 * Has a datagram of full size come? After the path has become narrower, the short last chunks of
 * blocks still do. As many of those as have come could not have brought so many bytes. Blocks differ in how long
 * their last chunks are: the longest counts, at levels where every block has its own length any does.
 */
static bool full_size_came(const struct receiver *r, uint64_t datagrams, uint64_t bytes)
{
	const struct sink *sink = r->sink;
	const struct manifest_level *lv;
	const struct kv_geometry *geo = &sink->manifest->geo;
	const uint32_t chunk = r->path.chunk;
	uint64_t longest = 0, first, rest;

	for (uint32_t i = 0; chunk && (lv = choice_candidate(sink->choice, i)); i++) {
		rest = chunk - 1;
		if (kv_level_is_plain(lv->level)) {
			first = last_chunk(kv_unit_bytes(geo, lv->level, 0), chunk);
			rest = last_chunk(kv_block_bytes(geo, lv->level), chunk);
			rest = first > rest ? first : rest;
		}
		longest = rest > longest ? rest : longest;
	}
	return bytes > datagrams * longest;
}

static void watch_progress(struct receiver *r, uint64_t now)
{
	struct session_progress p;
	uint64_t bytes, datagrams;

	session_progress(r->session, &p);
	bytes = p.placed_bytes - r->seen.placed_bytes;
	datagrams = p.received - r->seen.received;
	r->seen = p;
	cadence_came(&r->cadence, bytes + datagrams * CADENCE_AROUND);
	if (datagrams)
		r->stats.heard_ns = now;
	if (bytes) {
		count_bytes(r);
		r->placed_ns = now;
	}
	if (full_size_came(r, datagrams, bytes)) {
		r->full_ns = now;
		if (r->path.chunk)
			pathmtu_calm(&r->path);
	}
}

/* ---- keys ---- */

void receiver_keys(struct receiver *r, const struct grant_keys *keys)
{
	pthread_mutex_lock(&r->lock);
	r->answered = true;
	r->offered = keys;
	if (keys)
		r->next = *keys;
	pthread_mutex_unlock(&r->lock);
	session_wake(r->session);
}

/* DATA counters that are used up. */
static uint64_t counters(const struct receiver *r)
{
	return r->seen.received ? r->seen.last_counter + 1 : 0;
}

static int take_keys(struct receiver *r, uint64_t now, struct lslm_error *err)
{
	struct grant_keys keys;
	bool answered, offered;
	int ret = 0;

	pthread_mutex_lock(&r->lock);
	answered = r->answered;
	offered = r->offered;
	keys = r->next;
	explicit_bzero(&r->next, sizeof(r->next));
	r->answered = r->offered = false;
	pthread_mutex_unlock(&r->lock);
	if (answered) {
		r->renewing = false;
		r->renew_ns = now + RENEW_AGAIN;
	}
	/* A pair that makes no sense is as good as none. */
	if (offered && !keyring_add(&r->keys, &keys, counters(r), now)) {
		ret = session_key(r->session, keys.key, LSLM_CIPHER_CHACHA20POLY1305, keys.to_edge,
				  keys.max_packets, keys.lifetime_s, err);
		r->renew_ns = now;
		r->stats.key_changes++;
	}
	explicit_bzero(&keys, sizeof(keys));
	return ret;
}

static int tend_keys(struct receiver *r, uint64_t now, struct lslm_error *err)
{
	uint32_t old = keyring_retire(&r->keys, counters(r), now);
	int ret = 0;

	if (old < LSLM_WIRE_KEYS)
		ret = session_key(r->session, old, LSLM_CIPHER_NONE, NULL, 0, 0, err);
	if (!ret && r->renewing)
		ret = take_keys(r, now, err);
	if (ret < 0 || r->renewing || !r->opts.renew || now < r->renew_ns ||
	    !keyring_is_due(&r->keys, counters(r), now))
		return ret;
	r->renewing = true;
	r->opts.renew(r->opts.arg);
	return 0;
}

/* ---- the path ---- */

static void tell_steer(struct receiver *r)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} self = { 0 };
	socklen_t len = sizeof(self);
	char address[INET6_ADDRSTRLEN];
	const void *ip = &self.v4.sin_addr;

	if (!r->opts.steer || getsockname(r->opts.socket, &self.any, &len) < 0)
		return;
	r->port = ntohs(self.v4.sin_port);
	if (self.any.sa_family == AF_INET6)
		ip = &self.v6.sin6_addr;
	if (!inet_ntop(self.any.sa_family, ip, address, sizeof(address)) ||
	    steer_port(r->opts.steer, r->port, session_number(r->session),
		       r->path.chunk + LSLM_WIRE_OVERHEAD, address, NULL) < 0)
		/* Without it everything comes by the socket, which is slower and as right. */
		r->port = 0;
}

static uint64_t within(uint64_t least, uint64_t ns, uint64_t most)
{
	return ns < least ? least : ns > most ? most : ns;
}

static int tend_path(struct receiver *r, uint64_t now, struct lslm_error *err)
{
	uint32_t before = r->path.chunk, number;
	uint8_t payload[HELLO_BYTES];
	int ret;

	if (before && now - r->full_ns > within(SILENCE_LEAST, 4 * r->path.rtt_ns, SILENCE_MOST))
		pathmtu_ask(&r->path, now);
	if (pathmtu_decide(&r->path, now)) {
		r->full_ns = now;
		cadence_hurry(&r->cadence);
		if (!before)
			r->placed_ns = now;
		if (r->path.chunk != before) {
			r->stats.chunk_changes += before != 0;
			tell_steer(r);
		}
	}
	number = pathmtu_hello(&r->path, now);
	if (!number)
		return 0;
	/* Before it has seen a REPORT the cloud answers with less than a PROBE's size. */
	ret = before ? 0 : send_report(r, 0, err);
	send_control(r, LSLM_OP_HELLO, number, payload, hello_put(payload, r->path.largest));
	r->stats.hellos++;
	return ret;
}

/* ---- the loop ---- */

static int tend_report(struct receiver *r, uint64_t now, struct lslm_error *err)
{
	int ret = 0;

	if (r->overflow) {
		r->overflow = false;
		ret = wants_look(r->wants, err);
	}
	if (ret < 0 || !r->path.chunk || !cadence_due(&r->cadence, r->path.rtt_ns, now))
		return ret;
	ret = wants_bind(r->wants, r->path.chunk, err);
	return ret ?: send_report(r, 0, err);
}

static int check_alive(const struct receiver *r, uint64_t now, struct lslm_error *err)
{
	uint64_t away;

	if (!r->path.chunk && now - r->begun_ns > r->answer_ns)
		return error_set(err, -EHOSTUNREACH, "no answer from %s within %g s", r->opts.peer,
				 (double)r->answer_ns / SECOND);
	away = (uint64_t)(site_away_since(r->opts.site) * SECOND);
	if (r->path.chunk && r->placed_ns < away && now - r->placed_ns > AWAY)
		return site_may_ask(r->opts.site, err);
	if (r->path.chunk && now - r->placed_ns > r->stall_ns)
		return error_set(err, -ETIMEDOUT, "nothing came from %s for %g s", r->opts.peer,
				 (double)r->stall_ns / SECOND);
	return 0;
}

/* Until then there is nothing to do but to receive. */
static uint64_t next_event(const struct receiver *r)
{
	uint64_t due = pathmtu_due(&r->path);
	uint64_t other = r->path.chunk ? cadence_next(&r->cadence) : r->begun_ns + r->answer_ns + 1;

	return due < other ? due : other;
}

static int step(struct receiver *r, struct lslm_error *err)
{
	uint64_t now = clock_ns(), due;
	int ret;

	if (wants_is_done(r->wants))
		return RUN_OVER;
	if (atomic_load(&r->sink->stop))
		return error_set(err, -ECANCELED, "stopped");
	ret = tend_keys(r, now, err);
	if (!ret)
		ret = tend_path(r, now, err);
	if (!ret)
		ret = tend_report(r, now, err);
	if (!ret)
		ret = check_alive(r, now, err);
	if (ret < 0)
		return ret;
	due = next_event(r);
	now = clock_ns();
	ret = session_poll(r->session, due > now ? due - now : 0, &ops, r, err);
	now = clock_ns();
	watch_progress(r, now);
	if (now - r->shown_ns > SHOW_EVERY)
		show_stats(r, now);
	if (!ret && r->failed.code)
		return error_set(err, r->failed.code, "%s", r->failed.text);
	return ret;
}

int receiver_run(struct receiver *r, struct lslm_error *err)
{
	int ret;

	r->begun_ns = clock_ns();
	pathmtu_init(&r->path, r->opts.largest);
	pathmtu_ask(&r->path, r->begun_ns);
	do
		ret = step(r, err);
	while (!ret);
	/* Late datagrams find nothing bound, and the cloud need not guess. */
	wants_close(r->wants);
	r->wants = NULL;
	send_report(r, REPORT_OVER, NULL);
	show_stats(r, clock_ns());
	return ret < 0 ? ret : 0;
}
