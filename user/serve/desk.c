// SPDX-License-Identifier: MIT
#include "serve/desk.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "kv/memfd.h"
#include "net/sites.h"
#include "net/steer.h"
#include "serve/local_socket.h"
#include "serve/serving.h"
#include "serve/weights_share.h"

_Static_assert((int)STEER_COUNTERS <= (int)COURIER_WIRE_VERDICTS, "room for every verdict");
_Static_assert((int)GUARD_COUNTERS <= (int)COURIER_WIRE_REASONS, "room for every reason");
_Static_assert((int)LSLM_DROP_COUNT <= (int)COURIER_WIRE_DROPS, "room for every drop");
_Static_assert(SHELF_CONTEXTS == 64, "a word has a bit for every context");

enum {
	DESK_PAUSE_MS = 500, /* after which what had to be put off is tried again */
	/* A hint about the order is followed once in so many seconds: see courier_set_order(). */
	DESK_ORDER_S = 10,
};

struct client {
	int fd;
	struct ucred who;
	bool greeted;
	uint64_t attached; /* bits of contexts, by their places on the shelf */
	uint64_t by_layer; /* of those, where layers in order suit it */
	uint32_t computed[SHELF_CONTEXTS]; /* as told by HEAD */
};

struct desk {
	struct desk_opts opts;
	struct local_socket *socket;
	double started;
	pthread_t thread;
	bool running;
	int end; /* eventfd */
	struct client *clients[DESK_CLIENTS]; /* without gaps */
	uint32_t n;
	/* By place, as what clients have: whose it is, which is settled before any of it is looked at. */
	uint32_t number[SHELF_CONTEXTS];
	double ordered[SHELF_CONTEXTS]; /* when the order was last settled */
	uint64_t unsettled; /* bits of contexts whose engines may want another order */
};

/* An answer on its way, with the descriptors that go along. */
struct outgoing {
	union courier_message m;
	int fds[COURIER_WIRE_FDS];
	int n_fds;
};

__attribute__((format(printf, 3, 4))) static void say(struct desk *d, const struct client *c,
						      const char *fmt, ...)
{
	char prefix[64];
	va_list ap;

	snprintf(prefix, sizeof(prefix), "engine of process %d, user %u", c->who.pid, c->who.uid);
	va_start(ap, fmt);
	error_tell(d->opts.log, d->opts.arg, prefix, fmt, ap);
	va_end(ap);
}

/* Of a text whose field is shorter the beginning. File names need not be UTF-8, clients rely on it. */
static void put_text(char *to, size_t size, const char *text)
{
	snprintf(to, size, "%s", text);
	utf8_clean(to);
}

/* ---- answers ---- */

static void refuse(struct outgoing *out, int code, const char *why)
{
	out->m.head.size = sizeof(out->m.refusal);
	out->m.head.code = code;
	put_text(out->m.refusal.why, sizeof(out->m.refusal.why), why);
}

static void answer_hello(struct desk *d, struct outgoing *out)
{
	out->m.head.size = sizeof(out->m.hello);
	out->m.hello.pid = (uint32_t)getpid();
	out->m.hello.n_contexts = shelf_count(d->opts.shelf);
}

static void answer_list(const struct shelf_context *x, struct outgoing *out)
{
	struct courier_entry *e = &out->m.entry;
	const struct manifest *m;

	e->head.size = sizeof(*e);
	e->state = x->state;
	e->has_key = x->has_key;
	e->index = x->number;
	memcpy(e->key, x->key.b, sizeof(e->key));
	if (x->why.code)
		put_text(e->why, sizeof(e->why), x->why.text);
	if (!x->courier)
		return;
	m = courier_manifest(x->courier);
	e->n_tokens = m->n_tokens;
	put_text(e->title, sizeof(e->title), m->title);
}

/* Descriptors of the client's own: holds belong to an open file description. */
static int open_fds(const struct shelf_context *x, struct outgoing *out, struct lslm_error *err)
{
	const bool all = courier_manifest(x->courier)->n_stripes;
	int fd = -1;

	for (int i = 0; i < (all ? COURIER_WIRE_FDS : 1); i++) {
		if (i == 0)
			fd = memfd_reopen_ro(x->manifest, err);
		else
			fd = i == 1 ? courier_buffer_fd(x->courier, err) :
				      courier_control_fd(x->courier, err);
		if (fd < 0)
			break;
		out->fds[out->n_fds++] = fd;
	}
	return fd < 0 ? fd : 0;
}

static void close_fds(struct outgoing *out)
{
	for (int i = 0; i < out->n_fds; i++)
		close(out->fds[i]);
	out->n_fds = 0;
}

static void answer_attach(const struct shelf_context *x, struct outgoing *out)
{
	struct courier_attached *a = &out->m.attached;
	const struct manifest *m;
	struct lslm_error why;
	size_t size;
	int ret;

	if (!x->courier) {
		refuse(out, -EAGAIN, x->why.code ? x->why.text : "its manifest is not here yet");
		return;
	}
	ret = open_fds(x, out, &why);
	if (ret < 0) {
		close_fds(out);
		refuse(out, ret, why.text);
		return;
	}
	m = courier_manifest(x->courier);
	courier_manifest_data(x->courier, &size);
	a->head.size = sizeof(*a);
	a->manifest_bytes = size;
	a->n_stripes = m->n_stripes;
	a->pitch = courier_pitch(x->courier);
	a->buffer_bytes = m->n_stripes * a->pitch;
}

static void put_placement(struct courier *c, struct courier_placement *p)
{
	struct courier_udp u;
	const struct receiver_stats *r = &u.sum;
	const struct session_stats *s = &r->session;

	if (!courier_udp(c, &u))
		return;
	*p = (struct courier_placement){
		.sessions = u.sessions,
		.chunk = r->chunk,
		.rtt_ns = r->rtt_ns,
		.hellos = r->hellos,
		.reports = r->reports,
		.probes = r->probes,
		.ignored = r->ignored,
		.key_changes = r->key_changes,
		.chunk_changes = r->chunk_changes,
		.received = s->received,
		.placed = s->placed,
		.placed_bytes = s->placed_bytes,
		.units = s->units,
		.overflows = s->overflows,
		.by_encap = s->by_encap,
		.by_tc = s->by_tc,
		.by_xdp = s->by_xdp,
		.by_ring = s->by_ring,
	};
	memcpy(p->drops, s->drops, sizeof(s->drops));
	put_text(p->backend, sizeof(p->backend), u.backend);
	put_text(p->reason, sizeof(p->reason), u.reason);
}

static void answer_status(struct desk *d, const struct shelf_context *x, struct outgoing *out)
{
	const uint32_t place = x->place;
	struct courier_status *s = &out->m.status;
	struct courier_stats st;

	s->head.size = sizeof(*s);
	s->state = x->state;
	if (x->why.code)
		put_text(s->why, sizeof(s->why), x->why.text);
	for (uint32_t i = 0; i < d->n; i++) {
		const struct client *c = d->clients[i];

		s->engines += c->attached >> place & 1;
		if (c->computed[place] > s->computed)
			s->computed = c->computed[place];
	}
	if (!x->courier)
		return;
	courier_stats(x->courier, &st);
	s->blocks_total = (uint32_t)st.blocks_total;
	s->blocks_ready = (uint32_t)st.blocks_ready;
	s->blocks_from[CONTROL_FROM_DISK] = (uint32_t)st.blocks_from_disk;
	s->blocks_from[CONTROL_FROM_PEER] = (uint32_t)st.blocks_from_peers;
	s->blocks_from[st.from] =
		(uint32_t)(st.blocks_ready - st.blocks_from_disk - st.blocks_from_peers);
	for (int i = 0; i < KV_LEVELS; i++)
		s->blocks_at[i] = (uint32_t)st.blocks_at[i];
	s->bytes_received = st.bytes_received;
	s->seconds = st.seconds;
	put_text(s->path, sizeof(s->path), st.path);
	put_text(s->backend, sizeof(s->backend), st.backend ? st.backend : "");
	put_placement(x->courier, &s->udp);
}

/* With the first reason why it did not take something. */
static void put_store_text(struct desk *d, struct courier_stat *s)
{
	struct shelf_context x;
	struct lslm_error why;

	put_text(s->store, sizeof(s->store), d->opts.store_text);
	for (uint32_t i = 0; !shelf_look(d->opts.shelf, i, &x); i = x.number + 1)
		if (x.courier && courier_keeps_badly(x.courier, &why)) {
			snprintf(s->store, sizeof(s->store), "%s; %s", d->opts.store_text,
				 why.text);
			utf8_clean(s->store);
			return;
		}
}

static void put_engines(const struct desk *d, struct courier_stat *s)
{
	struct board_figures f;

	if (!board_figures(d->opts.board, &f))
		return;
	s->has_engines = 1;
	s->engines_ready = f.engines_ready;
	memcpy(s->guard, f.guard, sizeof(f.guard));
	s->guarded = f.guarded;
	s->refused_calls = f.refused_calls;
	s->engine_starts = f.engine_starts;
	s->courier_starts = f.courier_starts;
}

static void answer_stat(struct desk *d, struct outgoing *out)
{
	struct steer_counter counters[STEER_COUNTERS];
	struct courier_stat *s = &out->m.stat;
	struct stripe_store_stats st = { 0 };

	s->head.size = sizeof(*s);
	s->pid = (uint32_t)getpid();
	s->n_contexts = shelf_count(d->opts.shelf);
	s->clients = d->n;
	s->uptime_s = clock_seconds() - d->started;
	s->has_store = d->opts.store != NULL;
	if (d->opts.store)
		stripe_store_stats(d->opts.store, &st);
	s->store_loaded = st.loaded;
	s->store_saved = st.saved;
	s->store_wrong = st.wrong;
	s->store_evicted = st.evicted;
	put_store_text(d, s);
	s->has_steer = d->opts.steer != NULL;
	put_text(s->steer, sizeof(s->steer),
		 d->opts.steer ? steer_describe(d->opts.steer) : d->opts.steer_text);
	if (d->opts.steer && !steer_stats(d->opts.steer, counters, NULL))
		for (int i = 0; i < STEER_COUNTERS; i++)
			s->steer_frames[i] = counters[i].frames;
	put_text(s->buffers, sizeof(s->buffers), buffer_backend_reason());
	put_engines(d, s);
}

static void answer_weights(struct desk *d, uint32_t index, struct outgoing *out)
{
	struct courier_weights *w = &out->m.weights;
	struct lslm_error why;
	struct kv_hash key;
	int ret;

	if (index >= d->opts.n_weights) {
		refuse(out, -ENOENT, "there is no such model");
		return;
	}
	ret = weights_share_open_fds(d->opts.weights[index], &key, out->fds, &why);
	if (ret < 0) {
		refuse(out, ret, why.text);
		return;
	}
	out->n_fds = COURIER_WIRE_WEIGHTS_FDS;
	w->head.size = sizeof(*w);
	memcpy(w->key, key.b, sizeof(w->key));
}

/* The supervisor has counted for longer. */
static void answer_cloud(struct desk *d, uint32_t index, struct outgoing *out)
{
	struct courier_cloud *a = &out->m.cloud;
	struct board_cloud all;
	struct site_stats s;

	if (sites_look(d->opts.sites, index, &s)) {
		refuse(out, -ENOENT, "there is no such cloud");
		return;
	}
	a->head.size = sizeof(*a);
	a->state = s.state;
	a->opened = s.opened;
	a->probes = s.probes;
	a->next_s = s.next_s;
	put_text(a->name, sizeof(a->name), s.name);
	put_text(a->why, sizeof(a->why), s.why);
	if (!board_cloud(d->opts.board, s.name, &all))
		return;
	a->opened = all.opened;
	a->probes = all.probes;
}

static void answer_serving(const struct desk *d, struct outgoing *out)
{
	struct board_figures f;

	if (!board_figures(d->opts.board, &f)) {
		refuse(out, -ENOENT, "there is no supervisor, and so no engine of its own");
		return;
	}
	out->m.head.size = sizeof(out->m.serving);
	serving_fill(&f.serving, &out->m.serving);
}

/* ---- requests ---- */

/* The order that suits all who have it attached; with different wishes, or with none, the tail first. */
static void follow_hints(struct desk *d, uint32_t place)
{
	const uint64_t bit = 1ull << place;
	bool by_layer = false, by_tail = false;
	struct shelf_context x;

	if (clock_seconds() - d->ordered[place] < DESK_ORDER_S)
		return;
	if (shelf_look(d->opts.shelf, d->number[place], &x) || x.number != d->number[place]) {
		d->unsettled &= ~bit; /* it was dropped */
		return;
	}
	/* What is not received just now will be: the wish is kept until then, or until nothing is missing. */
	if (x.state == COURIER_WAITING || x.state == COURIER_FAILING)
		return;
	d->unsettled &= ~bit;
	if (x.state == COURIER_COMPLETE)
		return;
	for (uint32_t i = 0; i < d->n; i++) {
		by_layer |= d->clients[i]->attached & d->clients[i]->by_layer & bit;
		by_tail |= d->clients[i]->attached & ~d->clients[i]->by_layer & bit;
	}
	d->ordered[place] = clock_seconds();
	courier_set_order(x.courier, by_layer && !by_tail ? ORDER_LAYER : ORDER_TAIL);
}

/* The first wish of a client counts. */
static void note_attached(struct desk *d, struct client *c, const struct courier_request *req,
			  const struct shelf_context *x)
{
	const uint64_t bit = 1ull << x->place;

	if (!x->courier || (c->attached & bit))
		return;
	c->attached |= bit;
	if (req->value == ORDER_LAYER)
		c->by_layer |= bit;
	d->unsettled |= bit;
}

/* Is it one? `why` is for the log. */
static bool check_request(const struct client *c, const struct courier_request *req, ssize_t size,
			  const char **why)
{
	*why = "what it sends is no request";
	if (size != sizeof(*req) || req->size != sizeof(*req))
		return false;
	if (req->version != COURIER_WIRE_VERSION)
		return true; /* is told, not cut off */
	if (req->op < COURIER_HELLO || req->op >= COURIER_OPS ||
	    (req->op == COURIER_ATTACH && req->value > ORDER_TAIL) ||
	    (req->op != COURIER_ATTACH && req->op != COURIER_HEAD && req->value) ||
	    ((req->op == COURIER_HELLO || req->op == COURIER_STAT || req->op == COURIER_SERVING) &&
	     req->index))
		return false;
	*why = "it did not say hello";
	return c->greeted != (req->op == COURIER_HELLO);
}

static int take_head(struct client *c, const struct courier_request *req,
		     const struct shelf_context *x)
{
	if (!x->courier || req->value > courier_manifest(x->courier)->n_stripes)
		return -EPROTO;
	if (req->value > c->computed[x->place])
		c->computed[x->place] = req->value;
	return 0;
}

static void answer_about(struct desk *d, struct client *c, const struct courier_request *req,
			 const struct shelf_context *x, struct outgoing *out)
{
	switch (req->op) {
	case COURIER_LIST:
		answer_list(x, out);
		return;
	case COURIER_ATTACH:
		note_attached(d, c, req, x);
		answer_attach(x, out);
		return;
	default:
		answer_status(d, x, out);
	}
}

/* What was known of a place is not of the context that has it now. */
static void settle_place(struct desk *d, const struct shelf_context *x)
{
	const uint64_t bit = 1ull << x->place;

	if (d->number[x->place] == x->number)
		return;
	d->number[x->place] = x->number;
	d->ordered[x->place] = 0;
	d->unsettled &= ~bit;
	for (uint32_t i = 0; i < d->n; i++) {
		d->clients[i]->attached &= ~bit;
		d->clients[i]->by_layer &= ~bit;
		d->clients[i]->computed[x->place] = 0;
	}
}

/* LIST's may be the next one. A hint about one that was dropped means nothing. */
static int look_up(struct desk *d, const struct courier_request *req, struct shelf_context *x)
{
	/* In this order: who has added the last one says so afterwards. */
	const bool more = req->op == COURIER_LIST && shelf_expects(d->opts.shelf);
	int ret = shelf_look(d->opts.shelf, req->index, x);

	if (!ret && req->op != COURIER_LIST && x->number != req->index)
		ret = -ENOENT;
	if (ret == -ENOENT && more)
		return -EAGAIN;
	if (!ret)
		settle_place(d, x);
	return ret;
}

/* 1: there is an answer; 0: there is none; -errno: cut it off. */
static int answer(struct desk *d, struct client *c, const struct courier_request *req,
		  struct outgoing *out)
{
	struct shelf_context x;
	int known;

	memset(out, 0, sizeof(*out));
	out->m.head.version = COURIER_WIRE_VERSION;
	out->m.head.op = req->op;
	if (req->version != COURIER_WIRE_VERSION) {
		refuse(out, -EPROTONOSUPPORT, "the courier speaks version 7");
		return 1;
	}
	switch (req->op) {
	case COURIER_HELLO:
		c->greeted = true;
		answer_hello(d, out);
		return 1;
	case COURIER_STAT:
		answer_stat(d, out);
		return 1;
	case COURIER_WEIGHTS:
		answer_weights(d, req->index, out);
		return 1;
	case COURIER_SERVING:
		answer_serving(d, out);
		return 1;
	case COURIER_CLOUD:
		answer_cloud(d, req->index, out);
		return 1;
	}
	known = look_up(d, req, &x);
	if (req->op == COURIER_HEAD && known < 0)
		return shelf_is_past(d->opts.shelf, req->index) ? 0 : known;
	if (req->op == COURIER_HEAD)
		return take_head(c, req, &x);
	if (known < 0)
		refuse(out, known,
		       req->op != COURIER_LIST && shelf_is_past(d->opts.shelf, req->index) ?
			       "this context was dropped here, and what is missing of it will not come" :
			       "there is no such context");
	else
		answer_about(d, c, req, &x, out);
	return 1;
}

static int send_answer(const struct client *c, struct outgoing *out)
{
	union {
		char room[CMSG_SPACE(COURIER_WIRE_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { &out->m, out->m.head.size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (out->n_fds) {
		const size_t size = (size_t)out->n_fds * sizeof(int);

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(size);
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), out->fds, size);
	}
	do {
		n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* One request, if there is a whole one; false: the client is to be cut off. */
static bool serve(struct desk *d, struct client *c)
{
	struct courier_request req = { 0 };
	struct outgoing out;
	const char *why;
	ssize_t n;
	int ret;

	/* Descriptors that are sent along find no room, and the kernel closes them. */
	n = recv(c->fd, &req, sizeof(req), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!n)
		return false;
	if (!check_request(c, &req, n, &why)) {
		say(d, c, "cut off: %s", why);
		return false;
	}
	shelf_begin_use(d->opts.shelf);
	ret = answer(d, c, &req, &out);
	shelf_end_use(d->opts.shelf);
	if (ret > 0)
		ret = send_answer(c, &out);
	close_fds(&out);
	if (ret < 0)
		say(d, c, "cut off: %s", strerror(-ret));
	return ret >= 0;
}

/* ---- clients ---- */

static void drop(struct desk *d, uint32_t i)
{
	say(d, d->clients[i], "gone");
	d->unsettled |= d->clients[i]->attached;
	close(d->clients[i]->fd);
	free(d->clients[i]);
	d->clients[i] = d->clients[--d->n];
}

/* -EAGAIN: nobody is waiting any more. */
static int admit(struct desk *d)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->fd = local_socket_accept(d->socket, &c->who);
	if (c->fd < 0) {
		const int ret = c->fd;

		free(c);
		return ret;
	}
	d->clients[d->n++] = c;
	say(d, c, "connected");
	return 0;
}

static void *run(void *arg)
{
	struct desk *d = arg;
	struct pollfd p[2 + DESK_CLIENTS];
	bool paused = false;
	uint32_t n;

	for (;;) {
		n = d->n;
		p[0] = (struct pollfd){ .fd = d->end, .events = POLLIN };
		/* A negative descriptor is not looked at. */
		p[1].fd = n < DESK_CLIENTS && !paused ? local_socket_fd(d->socket) : -1;
		p[1].events = POLLIN;
		for (uint32_t i = 0; i < n; i++)
			p[2 + i] = (struct pollfd){ .fd = d->clients[i]->fd, .events = POLLIN };
		if (poll(p, 2 + n, paused || d->unsettled ? DESK_PAUSE_MS : -1) < 0)
			continue;
		if (p[0].revents)
			return NULL;
		/* From the last one: dropping moves the last one down. */
		for (uint32_t i = n; i-- > 0;)
			if (p[2 + i].revents && !serve(d, d->clients[i]))
				drop(d, i);
		paused = false;
		if (p[1].revents) {
			const int ret = admit(d);

			paused = ret == -EMFILE || ret == -ENFILE || ret == -ENOMEM;
		}
		shelf_begin_use(d->opts.shelf);
		for (uint64_t bits = d->unsettled; bits; bits &= bits - 1)
			follow_hints(d, (uint32_t)__builtin_ctzll(bits));
		shelf_end_use(d->opts.shelf);
	}
}

int desk_open(struct desk **out, const struct desk_opts *opts, struct lslm_error *err)
{
	struct desk *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return error_sys(err, -ENOMEM, "%s", opts->socket);
	d->opts = *opts;
	d->started = clock_seconds();
	d->end = eventfd(0, EFD_CLOEXEC);
	ret = d->end < 0 ? error_sys(err, -errno, "eventfd") : 0;
	if (!ret)
		ret = local_socket_open(&d->socket, opts->socket, opts->group, err);
	if (!ret) {
		ret = -pthread_create(&d->thread, NULL, run, d);
		d->running = !ret;
		if (ret)
			error_sys(err, ret, "cannot start the desk's thread");
	}
	if (ret < 0) {
		desk_close(d);
		return ret;
	}
	*out = d;
	return 0;
}

void desk_close(struct desk *d)
{
	if (!d)
		return;
	if (d->running) {
		eventfd_write(d->end, 1);
		pthread_join(d->thread, NULL);
	}
	/* The name first: who comes now finds nobody, instead of a queue that is not served. */
	local_socket_close(d->socket);
	while (d->n)
		drop(d, d->n - 1);
	if (d->end >= 0)
		close(d->end);
	free(d);
}
