// SPDX-License-Identifier: MIT
#include "net/sender.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hex.h"

#define MS     1000000ULL
#define SECOND (1000 * MS)

enum {
	PER_CLIENT = 4,
	KEY_LIFETIME_S = 3600,
	KEY_OVERLAP_MS = 10000,
	IDLE_MS = 60000,
	RETRY_S = 10, /* when somebody else's session may have ended */
	ROUNDS_IN = 4, /* of DGRAM_IN datagrams, before it is time to send again */
	ROUNDS_OUT = 4, /* batches of a session, before it is the next one's turn */
	/* A timer for each datagram of a fast session would cost more than sending it. */
	PACE_NS = 1000000,
};

#define KEY_PACKETS (1ULL << 32)

/* A context on offer, shared by the sessions that send it. */
struct offer {
	struct offer *next;
	struct lskv *file;
	dev_t dev;
	ino_t ino;
	unsigned int users;
};

struct row {
	char id[SENDER_ID_TEXT];
	uint32_t number;
	struct kv_hash owner;
	struct sockaddr_in6 client; /* of either family */
	struct offer *offer;
	struct sender_session session;
};

struct sender {
	struct dgram dgram;
	int epoll, timer, wake;
	pthread_t thread;
	bool running;
	unsigned int max_sessions, max_per_client;
	struct sender_limits limits;

	pthread_mutex_t lock; /* of all below */
	bool stop;
	struct row *rows[SENDER_SESSIONS]; /* by the low byte of the session's number */
	struct offer *offers;
	struct sender_stats stats;

	/* The thread's own. */
	struct dgram_in in[DGRAM_IN];
	struct dgram_out out;
};

const char *sender_drop_name(enum sender_drop drop)
{
	static const char *const names[SENDER_DROP_COUNT] = {
		[SENDER_DROP_NONE] = "none",	   [SENDER_DROP_HEADER] = "header",
		[SENDER_DROP_SESSION] = "session", [SENDER_DROP_KEY] = "key",
		[SENDER_DROP_REPLAY] = "replay",   [SENDER_DROP_FORGED] = "forged",
		[SENDER_DROP_STALE] = "stale",	   [SENDER_DROP_CONTENT] = "content",
	};

	return drop < SENDER_DROP_COUNT ? names[drop] : "?";
}

/* ---- contexts ---- */

/* A file that is the same as one in use is that one: a manifest may be large. Takes over the file. */
static struct offer *offer_get(struct sender *s, struct lskv *file)
{
	struct offer *o;
	struct stat st;

	if (fstat(lskv_fd(file), &st) < 0) {
		lskv_close(file);
		return NULL;
	}
	for (o = s->offers; o; o = o->next) {
		if (o->dev == st.st_dev && o->ino == st.st_ino) {
			lskv_close(file);
			o->users++;
			return o;
		}
	}
	o = calloc(1, sizeof(*o));
	if (!o) {
		lskv_close(file);
		return NULL;
	}
	*o = (struct offer){ s->offers, file, st.st_dev, st.st_ino, 1 };
	s->offers = o;
	return o;
}

static void offer_put(struct sender *s, struct offer *o)
{
	struct offer **at = &s->offers;

	if (--o->users)
		return;
	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	lskv_close(o->file);
	free(o);
}

/* ---- sessions; the lock is held ---- */

static void row_free(struct sender *s, unsigned int i)
{
	struct row *row = s->rows[i];

	s->rows[i] = NULL;
	s->stats.sessions--;
	sender_session_fini(&row->session);
	offer_put(s, row->offer);
	free(row);
}

static struct row *row_of_number(struct sender *s, uint32_t number)
{
	struct row *row = s->rows[number % SENDER_SESSIONS];

	return row && row->number == number ? row : NULL;
}

static int row_of_id(struct sender *s, const char *id, const struct sender_client *who)
{
	int i;

	if (strlen(id) != SENDER_ID_TEXT - 1)
		return -ENOENT;
	for (i = 0; i < SENDER_SESSIONS; i++)
		if (s->rows[i] && !sodium_memcmp(s->rows[i]->id, id, SENDER_ID_TEXT - 1) &&
		    kv_hash_equal(&s->rows[i]->owner, &who->owner))
			return i;
	return -ENOENT;
}

static bool same_context(const struct row *row, const struct kv_hash *key)
{
	return kv_hash_equal(&lskv_manifest(row->offer->file)->key, key);
}

/* A free place, or why there is none for this client. */
static int find_place(struct sender *s, const struct kv_hash *key, const struct sender_client *who,
		      struct lslm_error *err)
{
	unsigned int same = 0, used = 0, i;
	int place = -EBUSY;

	for (i = 0; i < SENDER_SESSIONS; i++) {
		const struct row *row = s->rows[i];

		if (!row) {
			place = place < 0 ? (int)i : place;
			continue;
		}
		used++;
		same += same_context(row, key) &&
			dgram_same_host((const struct sockaddr *)&row->client, who->address);
	}
	if (same >= s->max_per_client)
		return error_set(err, -EUSERS,
				 "this address has %u sessions of this context already; end one",
				 same);
	if (used >= s->max_sessions)
		return error_set(err, -EBUSY, "%u sessions are all there may be; try again later",
				 used);
	return place;
}

static void make_names(struct row *row, unsigned int place)
{
	uint8_t id[(SENDER_ID_TEXT - 1) / 2];

	randombytes_buf(id, sizeof(id));
	hex_format(row->id, id, sizeof(id));
	do
		row->number = randombytes_random() / SENDER_SESSIONS * SENDER_SESSIONS + place;
	while (!row->number);
}

static void fill_grant(struct row *row, struct sender_grant *grant)
{
	memcpy(grant->id, row->id, sizeof(grant->id));
	grant->session = row->number;
}

static void wake(struct sender *s)
{
	uint64_t one = 1;

	/* Full: then it is awake. */
	if (write(s->wake, &one, sizeof(one)) < 0)
		return;
}

static int add_row(struct sender *s, struct lskv *file, uint32_t edge,
		   const struct sender_client *who, struct sender_grant *grant,
		   struct lslm_error *err)
{
	int place = find_place(s, &lskv_manifest(file)->key, who, err);
	uint64_t now = clock_ns(), none;
	struct row *row;

	row = place < 0 ? NULL : calloc(1, sizeof(*row));
	if (!row) {
		lskv_close(file);
		return place < 0 ? place : error_sys(err, -ENOMEM, "a session");
	}
	row->offer = offer_get(s, file);
	if (!row->offer) {
		free(row);
		return error_sys(err, -ENOMEM, "a session");
	}
	make_names(row, (unsigned int)place);
	row->owner = who->owner;
	memcpy(&row->client, who->address,
	       who->address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
						     sizeof(struct sockaddr_in));
	sender_session_init(&row->session, row->offer->file, edge, who->address, &s->limits,
			    &s->stats, now);
	sender_session_pair(&row->session, &grant->pair, now, &none);
	fill_grant(row, grant);
	s->rows[place] = row;
	s->stats.sessions++;
	s->stats.granted++;
	return 0;
}

int sender_open(struct sender *s, struct lskv *file, uint32_t edge, const struct sender_client *who,
		struct sender_grant *grant, unsigned int *wait_s, struct lslm_error *err)
{
	int ret;

	*wait_s = RETRY_S;
	pthread_mutex_lock(&s->lock);
	ret = add_row(s, file, edge, who, grant, err);
	pthread_mutex_unlock(&s->lock);
	wake(s);
	return ret;
}

int sender_renew(struct sender *s, const char *id, const struct sender_client *who,
		 struct sender_grant *grant, unsigned int *wait_s, struct lslm_error *err)
{
	uint64_t wait = 0;
	int i, ret;

	pthread_mutex_lock(&s->lock);
	i = row_of_id(s, id, who);
	ret = i < 0 ? i :
		      sender_session_pair(&s->rows[i]->session, &grant->pair, clock_ns(), &wait);
	if (!ret)
		fill_grant(s->rows[i], grant);
	pthread_mutex_unlock(&s->lock);
	*wait_s = (unsigned int)(wait / SECOND + 1);
	if (ret == -EAGAIN)
		return error_set(err, ret, "two pairs of keys are in use; the older ends soon");
	return ret < 0 ? error_set(err, ret, "there is no such session") : 0;
}

int sender_end(struct sender *s, const char *id, const struct sender_client *who,
	       struct lslm_error *err)
{
	int i;

	pthread_mutex_lock(&s->lock);
	i = row_of_id(s, id, who);
	if (i >= 0)
		row_free(s, (unsigned int)i);
	pthread_mutex_unlock(&s->lock);
	return i < 0 ? error_set(err, i, "there is no such session") : 0;
}

void sender_forget(struct sender *s, const struct kv_hash *key)
{
	unsigned int i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < SENDER_SESSIONS; i++)
		if (s->rows[i] && same_context(s->rows[i], key))
			row_free(s, i);
	pthread_mutex_unlock(&s->lock);
}

void sender_stats(struct sender *s, struct sender_stats *out)
{
	pthread_mutex_lock(&s->lock);
	*out = s->stats;
	out->refused = s->dgram.refused;
	pthread_mutex_unlock(&s->lock);
}

/* ---- the thread ---- */

static enum sender_drop receive_one(struct sender *s, struct dgram_in *in, uint64_t now)
{
	struct lslm_header h;
	struct row *row;

	if (in->size < LSLM_WIRE_OVERHEAD || in->size > sizeof(in->data))
		return SENDER_DROP_HEADER;
	lslm_header_get(&h, in->data);
	if ((h.opcode != LSLM_OP_HELLO && h.opcode != LSLM_OP_REPORT) ||
	    h.version != LSLM_WIRE_VERSION || h.flags || h.key >= LSLM_WIRE_KEYS ||
	    !(h.counter & LSLM_COUNTER_CONTROL))
		return SENDER_DROP_HEADER;
	row = row_of_number(s, h.session);
	if (!row)
		return SENDER_DROP_SESSION;
	return sender_session_receive(&row->session, &h, in->data, in->size, &in->from, now);
}

static void receive_all(struct sender *s)
{
	unsigned int round, n = DGRAM_IN, i;

	for (round = 0; round < ROUNDS_IN && n == DGRAM_IN; round++) {
		n = dgram_receive(&s->dgram, s->in);
		s->stats.received += n;
		for (i = 0; i < n; i++)
			s->stats.drops[receive_one(s, &s->in[i], clock_ns())]++;
	}
}

static void send_some(struct sender *s, struct row *row)
{
	uint64_t now = clock_ns();
	unsigned int round;

	for (round = 0; round < ROUNDS_OUT && sender_session_due(&row->session, now) <= now;
	     round++) {
		sender_session_send(&row->session, &s->out, now);
		dgram_send(&s->dgram, &s->out, &row->session.at);
		now = clock_ns();
	}
}

/* Some batches of each session that may send. Returns when there is more to do. */
static uint64_t send_all(struct sender *s)
{
	uint64_t next = CONGESTION_NEVER, now, due;
	unsigned int i;

	for (i = 0; i < SENDER_SESSIONS; i++) {
		struct row *row = s->rows[i];

		if (!row)
			continue;
		send_some(s, row);
		now = clock_ns();
		if (sender_session_ended(&row->session, now)) {
			s->stats.expired += !row->session.over;
			row_free(s, i);
			continue;
		}
		due = sender_session_due(&row->session, now);
		next = due < next ? due : next;
	}
	/* Keys and sessions end, too. */
	if (s->stats.sessions && next > clock_ns() + SECOND)
		next = clock_ns() + SECOND;
	return next;
}

static void arm(struct sender *s, uint64_t next)
{
	struct itimerspec at = { 0 };
	uint64_t now = clock_ns();

	/* What is due already was only interrupted. */
	if (next > now && next < now + PACE_NS)
		next = now + PACE_NS;
	if (next != CONGESTION_NEVER) {
		at.it_value.tv_sec = (time_t)(next / SECOND);
		at.it_value.tv_nsec = (long)(next % SECOND);
	}
	timerfd_settime(s->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void *work(void *arg)
{
	struct sender *s = arg;
	struct epoll_event e[3];
	uint64_t count, next;
	bool stop;

	do {
		if (epoll_wait(s->epoll, e, 3, -1) < 0 && errno != EINTR)
			break;
		/* Whichever it was; neither blocks. */
		if (read(s->timer, &count, sizeof(count)) < 0)
			count = 0;
		if (read(s->wake, &count, sizeof(count)) < 0)
			count = 0;
		pthread_mutex_lock(&s->lock);
		receive_all(s);
		next = send_all(s);
		stop = s->stop;
		pthread_mutex_unlock(&s->lock);
		arm(s, next);
	} while (!stop);
	return NULL;
}

/* ---- start and stop ---- */

static int watch(struct sender *s, int fd)
{
	struct epoll_event e = { .events = EPOLLIN };

	return fd < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static int start_thread(struct sender *s, struct lslm_error *err)
{
	int ret;

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	s->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ret = s->epoll < 0 ? -errno : 0;
	ret = ret ?: watch(s, s->timer) ?: watch(s, s->wake) ?: watch(s, s->dgram.fd);
	if (!ret)
		ret = -pthread_create(&s->thread, NULL, work, s);
	if (ret)
		return error_sys(err, ret, "the sender's thread");
	s->running = true;
	return 0;
}

int sender_start(struct sender **out, const struct sender_opts *opts, struct lslm_error *err)
{
	struct sender *s = calloc(1, sizeof(*s));
	unsigned int most = opts->max_sessions ? opts->max_sessions : SENDER_SESSIONS;
	int ret;

	if (!s)
		return error_sys(err, -ENOMEM, "the sender");
	s->epoll = s->timer = s->wake = s->dgram.fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	s->max_sessions = most < SENDER_SESSIONS ? most : SENDER_SESSIONS;
	s->max_per_client = opts->max_per_client ? opts->max_per_client : PER_CLIENT;
	s->limits = (struct sender_limits){
		.key_packets = opts->key_packets ? opts->key_packets : KEY_PACKETS,
		.key_lifetime_s = opts->key_lifetime_s ? opts->key_lifetime_s : KEY_LIFETIME_S,
		.overlap_ns = (opts->key_overlap_ms ? opts->key_overlap_ms : KEY_OVERLAP_MS) * MS,
		.idle_ns = (opts->idle_ms ? opts->idle_ms : IDLE_MS) * MS,
	};
	ret = sodium_init() < 0 ? error_set(err, -EIO, "libsodium does not start") :
				  dgram_open(&s->dgram, opts->address, opts->address_len, err);
	if (!ret)
		ret = start_thread(s, err);
	if (ret < 0) {
		sender_stop(s);
		return ret;
	}
	*out = s;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void sender_stop(struct sender *s)
{
	unsigned int i;

	if (!s)
		return;
	if (s->running) {
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_mutex_unlock(&s->lock);
		wake(s);
		pthread_join(s->thread, NULL);
	}
	for (i = 0; i < SENDER_SESSIONS; i++)
		if (s->rows[i])
			row_free(s, i);
	dgram_close(&s->dgram);
	close_fd(s->epoll);
	close_fd(s->timer);
	close_fd(s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int sender_port(const struct sender *s)
{
	return dgram_port(&s->dgram);
}

const char *sender_path(struct sender *s)
{
	const char *path;

	pthread_mutex_lock(&s->lock);
	path = dgram_path(&s->dgram);
	pthread_mutex_unlock(&s->lock);
	return path;
}
