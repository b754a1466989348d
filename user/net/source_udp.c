// SPDX-License-Identifier: MIT
/*
 * Placement over UDP, standing on an HTTPS source: that one brings the manifest, its connection the
 * grant and further keys, and its stream what UDP could not.
 *
 * Threads. receive() runs in the courier's. While it does, and keys are due, one thread more asks for them over
 * the HTTPS connection, which nobody else uses meanwhile; it is joined before anybody does.
 */
#include "net/source.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/allow.h"
#include "net/courier.h"
#include "net/grant.h"
#include "net/receiver.h"
#include "net/sites.h"
#include "net/udp.h"
#include "net/wants.h"

/* Who was heard within this time will answer, so the last word can be waited for. */
#define ALIVE_NS 1000000000ULL

enum {
	ADDRESS_URL = 2048,
	ADDRESS_REPLY = 65536,
};

struct source_udp {
	struct source source;
	struct source *https;
	struct http_client *http; /* its connection */
	enum courier_transport transport;
	struct steer *steer;
	struct allow *allow;
	int stall_timeout_ms;

	struct grant grant;
	bool granted; /* and not ended yet */
	uint64_t heard_ns; /* when the cloud was, over UDP, last; 0: never in this session */
	uint64_t came; /* blocks, by the session that ran last */

	pthread_t renewer;
	bool renewing; /* the thread exists and was not joined */
	atomic_bool renew_stop;

	pthread_mutex_t lock; /* of those below: wake() and udp() come at any time */
	struct session *session;
	struct receiver *receiver; /* while it runs */
	struct courier_udp past; /* its sessions before */

	char address[HTTP_ADDRESS_BYTES]; /* that HTTPS was answered from last; "": none yet */
	char peer[HTTP_ADDRESS_BYTES + 16];
};

static struct source_udp *of(struct source *s)
{
	return (struct source_udp *)s;
}

/* ---- the cloud's address ---- */

/* After a request that was answered: one that was not leaves the connection without an address. */
static void note_address(struct source_udp *u)
{
	char address[HTTP_ADDRESS_BYTES];

	if (!http_address(u->http, address))
		strcpy(u->address, address);
}

/* A request for its own sake, where none was answered yet: the manifest came from the cache. */
static int find_address(struct source_udp *u, const atomic_bool *stop, struct lslm_error *err)
{
	char url[ADDRESS_URL];
	const struct http_request req = {
		.url = url,
		.exact_size = HTTP_ANY_SIZE,
		.max_size = ADDRESS_REPLY,
		.stop = stop,
	};
	int ret;

	if (*u->address)
		return 0;
	if (snprintf(url, sizeof(url), "%s/health", source_https_site(u->https)) >=
	    (int)sizeof(url))
		return error_set(err, -EINVAL, "the URL is too long");
	ret = http_perform(u->http, &req, err);
	if (ret < 0)
		return ret;
	note_address(u);
	return *u->address ? 0 : error_set(err, -ENOTCONN, "the server's address is not known");
}

static int udp_manifest(struct source *s, uint8_t **data, size_t *size, struct lslm_error *err)
{
	struct source_udp *u = of(s);
	int ret = u->https->ops->manifest(u->https, data, size, err);

	if (!ret)
		note_address(u);
	return ret;
}

static void udp_salt(struct source *s, const struct kv_hash *salt)
{
	struct source_udp *u = of(s);

	u->https->ops->salt(u->https, salt);
}

/* ---- keys ---- */

static void *ask_for_keys(void *arg)
{
	struct source_udp *u = arg;
	struct grant_keys keys;
	int ret;

	ret = grant_renew(u->http, source_https_site(u->https), &u->grant, &u->renew_stop, &keys,
			  NULL);
	receiver_keys(u->receiver, ret < 0 ? NULL : &keys);
	explicit_bzero(&keys, sizeof(keys));
	return NULL;
}

static void join_renewer(struct source_udp *u)
{
	if (u->renewing)
		pthread_join(u->renewer, NULL);
	u->renewing = false;
}

static void renew(void *arg)
{
	struct source_udp *u = arg;

	/* It has given its answer already. */
	join_renewer(u);
	u->renewing = !pthread_create(&u->renewer, NULL, ask_for_keys, u);
	if (!u->renewing)
		receiver_keys(u->receiver, NULL);
}

/* ---- a session ---- */

static void set_session(struct source_udp *u, struct session *s)
{
	pthread_mutex_lock(&u->lock);
	u->session = s;
	pthread_mutex_unlock(&u->lock);
}

static int open_session(struct source_udp *u, struct sink *sink, int fd, struct lslm_error *err)
{
	struct buffer_info info;
	struct session *s;
	int ret;

	ret = buffer_query(sink->buffer, &info, err);
	if (!ret)
		ret = session_open(&s, SESSION_AUTO, info.backend, fd, wants_slots(sink), err);
	if (!ret)
		set_session(u, s);
	return ret;
}

static void close_session(struct source_udp *u)
{
	struct session *s = u->session;

	set_session(u, NULL);
	session_close(s);
}

/* ---- what others may know of it ---- */

static void add_session(struct session_stats *sum, const struct session_stats *x)
{
	sum->received += x->received;
	sum->placed += x->placed;
	sum->placed_bytes += x->placed_bytes;
	sum->units += x->units;
	sum->overflows += x->overflows;
	sum->by_encap += x->by_encap;
	sum->by_tc += x->by_tc;
	sum->by_xdp += x->by_xdp;
	sum->by_ring += x->by_ring;
	for (int i = 0; i < LSLM_DROP_COUNT; i++)
		sum->drops[i] += x->drops[i];
}

static void add_receiver(struct receiver_stats *sum, const struct receiver_stats *x)
{
	sum->hellos += x->hellos;
	sum->reports += x->reports;
	sum->probes += x->probes;
	sum->ignored += x->ignored;
	sum->key_changes += x->key_changes;
	sum->chunk_changes += x->chunk_changes;
	sum->chunk = x->chunk;
	sum->rtt_ns = x->rtt_ns;
	sum->heard_ns = x->heard_ns;
	add_session(&sum->session, &x->session);
}

static void begin_receiver(struct source_udp *u, struct receiver *r)
{
	pthread_mutex_lock(&u->lock);
	u->receiver = r;
	u->past.sessions++;
	snprintf(u->past.backend, sizeof(u->past.backend), "%s", session_backend_name(u->session));
	snprintf(u->past.reason, sizeof(u->past.reason), "%s", session_backend_reason(u->session));
	pthread_mutex_unlock(&u->lock);
}

static void end_receiver(struct source_udp *u, struct receiver_stats *stats)
{
	struct receiver *r = u->receiver;

	receiver_stats(r, stats);
	pthread_mutex_lock(&u->lock);
	u->receiver = NULL;
	add_receiver(&u->past.sum, stats);
	pthread_mutex_unlock(&u->lock);
	receiver_close(r);
}

static bool udp_stats(struct source *s, struct courier_udp *out)
{
	struct source_udp *u = of(s);
	struct receiver_stats now;

	pthread_mutex_lock(&u->lock);
	*out = u->past;
	if (u->receiver) {
		receiver_stats(u->receiver, &now);
		add_receiver(&out->sum, &now);
	}
	pthread_mutex_unlock(&u->lock);
	return out->sessions;
}

/* "udp (kernel)", "udp (twin, io_uring)": the twin's reason says what it receives with. */
static void say_path(struct source_udp *u)
{
	static const char mark[] = "receives with ";
	const char *with = strstr(session_backend_reason(u->session), mark);

	source_set_path(&u->source, "udp (%s%s%s)", session_backend_name(u->session),
			with ? ", " : "", with ? with + strlen(mark) : "");
}

static int run(struct source_udp *u, struct sink *sink, int fd, struct lslm_error *err)
{
	const uint64_t before = atomic_load(&sink->ready);
	const struct receiver_opts opts = {
		.socket = fd,
		.session = u->session,
		.sink = sink,
		.grant = &u->grant,
		.peer = u->peer,
		.largest = udp_largest(fd),
		.stall_timeout_ms = u->stall_timeout_ms,
		.renew = renew,
		.arg = u,
		.steer = u->steer,
		.site = source_https_breaker(u->https),
	};
	struct receiver_stats stats;
	struct receiver *r;
	int ret;

	/* A session before this one has set it. */
	atomic_store(&u->renew_stop, false);
	ret = receiver_open(&r, &opts, err);
	if (ret < 0)
		return ret;
	begin_receiver(u, r);
	say_path(u);
	ret = receiver_run(r, err);
	u->came = atomic_load(&sink->ready) - before;
	atomic_store(&u->renew_stop, true);
	http_wake(u->http);
	join_renewer(u);
	end_receiver(u, &stats);
	u->heard_ns = stats.heard_ns;
	return ret;
}

/* The UDP port is at the address that the grant came from, whatever the name says by now. */
static int ask_and_run(struct source_udp *u, struct sink *sink, int fd, struct lslm_error *err)
{
	int ret;

	ret = grant_ask(u->http, source_https_site(u->https), u->source.key,
			session_number(u->session), &sink->stop, &u->grant, err);
	if (ret == -EOPNOTSUPP && u->transport == COURIER_UDP)
		return error_prefix(err, ret, "UDP is off there, use --transport https");
	if (ret < 0)
		return ret;
	u->granted = true;
	note_address(u);
	ret = udp_connect(fd, u->address, u->grant.port, err);
	if (!ret)
		ret = allow_add(u->allow, u->address, err);
	if (ret < 0)
		return ret;
	snprintf(u->peer, sizeof(u->peer), strchr(u->address, ':') ? "[%s]:%u" : "%s:%u",
		 u->address, u->grant.port);
	ret = run(u, sink, fd, err);
	/* Of those that end otherwise the cloud was there until then; the next grant is asked for in any case. */
	if (ret == -ETIMEDOUT)
		site_failed(source_https_breaker(u->https), err);
	allow_remove(u->allow, u->address);
	return ret;
}

static int receive_udp(struct source_udp *u, struct sink *sink, struct lslm_error *err)
{
	int fd, ret;

	u->came = u->heard_ns = 0;
	ret = find_address(u, &sink->stop, err);
	if (ret < 0)
		return ret;
	fd = udp_open(u->address, err);
	if (fd < 0)
		return fd;
	ret = open_session(u, sink, fd, err);
	if (!ret) {
		ret = ask_and_run(u, sink, fd, err);
		close_session(u);
	}
	close(fd);
	return ret;
}

/* ---- the source ---- */

/*
 * The edge's last REPORT may be lost, and a cloud has only so many sessions. But a user who leaves does
 * not wait for a cloud that is away; it forgets by itself.
 */
static void end_grant(struct source_udp *u, int why)
{
	bool alive = u->heard_ns && clock_ns() - u->heard_ns < ALIVE_NS;

	if (u->granted && (alive || (why < 0 && why != -ECANCELED)))
		grant_end(u->http, source_https_site(u->https), &u->grant, NULL);
	u->granted = false;
	explicit_bzero(&u->grant, sizeof(u->grant));
}

/* What is missing by now comes by HTTPS, and the path says why. */
static int fall_back(struct source_udp *u, struct sink *sink, bool came,
		     const struct lslm_error *why, struct lslm_error *err)
{
	source_set_path(&u->source, "%shttps (udp: %s)", came ? "udp, then " : "", why->text);
	return u->https->ops->receive(u->https, sink, err);
}

static int udp_receive(struct source *s, struct sink *sink, struct lslm_error *err)
{
	struct source_udp *u = of(s);
	struct lslm_error why = { 0 };
	bool came = false;
	int ret;

	do {
		ret = receive_udp(u, sink, &why);
		came |= u->came > 0;
		end_grant(u, ret);
		/* A cloud that was started anew, or has forgotten the session, grants another one. */
	} while (ret == -ETIMEDOUT && u->came);
	/* The same bytes would come from the same server. */
	if (ret < 0 && ret != -ECANCELED && ret != -EBADMSG && u->transport != COURIER_UDP)
		return fall_back(u, sink, came, &why, err);
	return ret < 0 ? error_set(err, ret, "%s", why.text) : 0;
}

static void udp_wake(struct source *s)
{
	struct source_udp *u = of(s);

	pthread_mutex_lock(&u->lock);
	if (u->session)
		session_wake(u->session);
	pthread_mutex_unlock(&u->lock);
	u->https->ops->wake(u->https);
}

static void udp_close(struct source *s)
{
	struct source_udp *u = of(s);

	if (u->https)
		u->https->ops->close(u->https);
	pthread_mutex_destroy(&u->lock);
	source_fini(s);
	free(u);
}

static const struct source_ops udp_ops = {
	.manifest = udp_manifest,
	.salt = udp_salt,
	.receive = udp_receive,
	.wake = udp_wake,
	.udp = udp_stats,
	.close = udp_close,
};

int source_udp_open(struct source **out, const struct courier_opts *opts, struct lslm_error *err)
{
	struct source_udp *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return error_sys(err, -ENOMEM, "source");
	pthread_mutex_init(&u->lock, NULL);
	source_init(&u->source, &udp_ops, CONTROL_FROM_CLOUD, "udp");
	u->transport = opts->transport;
	u->steer = opts->steer;
	u->allow = opts->allow;
	u->stall_timeout_ms = opts->stall_timeout_ms;
	ret = source_https_open(&u->https, opts, err);
	if (ret < 0) {
		udp_close(&u->source);
		return ret;
	}
	u->http = source_https_client(u->https);
	u->source.key = u->https->key;
	*out = &u->source;
	return 0;
}
