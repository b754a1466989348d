// SPDX-License-Identifier: MIT
#include "serve/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/cell.h"
#include "serve/channel.h"
#include "serve/child.h"
#include "serve/clouds.h"
#include "serve/confine.h"
#include "serve/errands.h"
#include "serve/holdings.h"
#include "serve/syscalls.h"

enum {
	RESTART_FIRST_MS = 100,
	RESTART_LAST_MS = 10000,
	RESTART_OVER_S = 10, /* of life: the waits begin anew */
	KILL_AFTER_S = 5, /* beyond what it was given to end */
	/* Connections to the courier that an engine may ask for in so many seconds; it needs one for each courier. */
	CONNECTS = 20,
	CONNECTS_S = 10,
	FIGURES_MS = 1000, /* between two looks at what is reported */
	MAX_POLL = 2 + 2 * (SUPERVISOR_ENGINES + 1),
};

/* One that is kept alive. */
struct kept {
	struct child child;
	char name[16];
	double start_at; /* while there is none; 0: not to be started */
	double kill_at; /* it was told to end; 0: it was not */
	int wait_ms;
};

struct engine {
	struct kept kept;
	int notifier; /* -1: none */
	bool stale; /* to be replaced */
	uint64_t refused;
	uint32_t connects;
	double connects_since;
	struct errand_count errands;
	struct tally_source tally;
};

struct supervisor {
	const struct supervisor_opts *opts;
	char **engine_argv;
	struct cell *cell;
	struct holdings *holdings;
	struct board *board;
	int board_fd; /* read-only, for children; -1 */
	struct errands *errands;
	struct board_figures figures;
	struct clouds clouds;
	struct tally past; /* what engines have counted that are no more */
	int signals;
	struct kept courier;
	struct engine engines[SUPERVISOR_ENGINES + 1]; /* [n]: one that replaces, or is replaced */
	uint32_t n;
	bool told; /* ready() was called */
	bool ending;
	struct lslm_error failure; /* code 0: none */
};

__attribute__((format(printf, 2, 3))) static void say(struct supervisor *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_tell(s->opts->log, s->opts->arg, NULL, fmt, ap);
	va_end(ap);
}

/* The end of it all, for this reason; the first one counts. */
static void fail(struct supervisor *s, const struct lslm_error *why)
{
	if (!s->failure.code)
		s->failure = *why;
	s->ending = true;
}

/* ---- starting and ending ---- */

static void tell_to_end(struct kept *k, double seconds)
{
	k->start_at = 0;
	if (!k->child.pid || k->kill_at > 0)
		return;
	child_signal(&k->child, SIGTERM);
	k->kill_at = clock_seconds() + seconds + KILL_AFTER_S;
}

static void start_later(struct supervisor *s, struct kept *k)
{
	k->start_at = clock_seconds() + k->wait_ms * 1e-3;
	k->wait_ms = k->wait_ms < RESTART_LAST_MS / 2 ? 2 * k->wait_ms : RESTART_LAST_MS;
}

static bool start(struct supervisor *s, struct kept *k, char *const argv[])
{
	struct lslm_error why;

	k->start_at = k->kill_at = 0;
	if (!child_start(&k->child, argv, &why))
		return true;
	say(s, "%s: %s", k->name, why.text);
	start_later(s, k);
	return false;
}

static void start_courier(struct supervisor *s)
{
	struct kept *k = &s->courier;
	int ret;

	s->figures.courier_starts++;
	clouds_begin(&s->clouds);
	if (!start(s, k, s->opts->courier_argv))
		return;
	ret = holdings_offer(s->holdings, k->child.channel, s->board_fd);
	if (ret) {
		say(s, "%s: cannot be told what was kept: %s", k->name, strerror(-ret));
		child_signal(&k->child, SIGKILL);
	}
}

static void give_tally(struct supervisor *s, struct engine *e)
{
	struct channel_message m = { .op = CHANNEL_TALLY };
	struct lslm_error why;
	int fd = tally_page_create(&e->tally.page, &why);

	if (fd < 0) {
		say(s, "%s: %s", e->kept.name, why.text);
		child_signal(&e->kept.child, SIGKILL);
		return;
	}
	channel_send(e->kept.child.channel, &m, &fd, 1);
	close(fd);
}

static void start_engine(struct supervisor *s, struct engine *e)
{
	struct channel_message m = { .op = CHANNEL_LISTENER };
	const int fds[CHANNEL_FDS] = { cell_listener(s->cell), s->board_fd };

	e->stale = false;
	e->refused = 0;
	s->figures.engine_starts++;
	if (!start(s, &e->kept, s->engine_argv))
		return;
	give_tally(s, e);
	channel_send(e->kept.child.channel, &m, fds, CHANNEL_FDS);
}

/*
 * What is said of one that has ended by itself. One that was never ready has a line of its own on standard error,
 * and would say the same the next time.
 */
static void ended_by_itself(struct supervisor *s, struct kept *k, bool was_ready, double lived,
			    const struct lslm_error *how)
{
	struct lslm_error why;

	if (!was_ready && !s->told) {
		error_set(&why, -ECHILD, "%s could not be started (%s)", k->name, how->text);
		fail(s, &why);
		return;
	}
	if (lived >= RESTART_OVER_S)
		k->wait_ms = RESTART_FIRST_MS;
	say(s, "%s: ended by %s; again in %.1f s", k->name, how->text, k->wait_ms * 1e-3);
	start_later(s, k);
}

/* Whether it has ended; how it did, and what becomes of that, is settled. */
static bool look_after(struct supervisor *s, struct kept *k)
{
	const double lived = clock_seconds() - k->child.started;
	const bool was_ready = k->child.ready, told = k->kill_at > 0;
	struct lslm_error how;

	if (!child_ended(&k->child, &how))
		return false;
	k->kill_at = 0;
	if (told || s->ending)
		say(s, "%s: ended", k->name);
	else
		ended_by_itself(s, k, was_ready, lived, &how);
	return true;
}

static void tell_engine(struct supervisor *s, pid_t pid, struct channel_message *m)
{
	for (uint32_t i = 0; i <= s->n; i++) {
		const struct child *c = &s->engines[i].kept.child;

		if (c->pid == pid && c->channel >= 0 && channel_send(c->channel, m, NULL, 0))
			child_signal(c, SIGKILL);
	}
}

static void end_errands(struct supervisor *s, bool lost)
{
	struct channel_message m;
	pid_t engine;

	while (errands_overdue(s->errands, lost, &m, &engine))
		tell_engine(s, engine, &m);
}

static void courier_has_ended(struct supervisor *s, double started, bool told)
{
	end_errands(s, true);
	holdings_settle(s->holdings, clock_seconds() - started);
	/* It was replaced: its successor may come at once. */
	if (told && !s->ending)
		s->courier.start_at = clock_seconds();
}

static void drop_notifier(struct engine *e)
{
	if (e->notifier >= 0)
		close(e->notifier);
	e->notifier = -1;
}

/* A replacement that never came to answer: what there is stays. */
static void give_up_replacing(struct supervisor *s)
{
	s->engines[s->n].kept.start_at = 0;
	for (uint32_t i = 0; i < s->n; i++)
		s->engines[i].stale = false;
	say(s, "engines stay as they are: their replacement could not be started");
}

static void look_after_all(struct supervisor *s)
{
	const double started = s->courier.child.started;
	const bool told = s->courier.kill_at > 0;

	if (look_after(s, &s->courier))
		courier_has_ended(s, started, told);
	for (uint32_t i = 0; i <= s->n; i++) {
		const bool was_ready = s->engines[i].kept.child.ready;
		const bool was_told = s->engines[i].kept.kill_at > 0;

		if (!look_after(s, &s->engines[i].kept))
			continue;
		tally_source_end(&s->engines[i].tally, &s->past);
		drop_notifier(&s->engines[i]);
		if (i == s->n && !was_ready && !was_told && !s->ending)
			give_up_replacing(s);
	}
}

/* ---- what children say ---- */

static void tell_ready(struct supervisor *s)
{
	bool all = s->courier.child.ready;

	for (uint32_t i = 0; i < s->n; i++)
		all &= s->engines[i].kept.child.ready;
	if (!all || s->told)
		return;
	s->told = true;
	s->opts->ready(s->opts->arg, cell_port(s->cell));
}

static int take_answer(struct supervisor *s, struct channel_message *m)
{
	pid_t engine;
	const int ret = errands_answer(s->errands, m, s->courier.child.channel, &engine);

	if (ret > 0)
		tell_engine(s, engine, m);
	return ret < 0 ? ret : 0;
}

static void hear_courier(struct supervisor *s)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n;
	int ret = channel_receive(s->courier.child.channel, &m, fds, &n);

	if (!ret && m.op == CHANNEL_READY && !n) {
		s->courier.child.ready = true;
		say(s, "courier: ready, process %d, %u contexts of before", s->courier.child.pid,
		    holdings_count(s->holdings));
		tell_ready(s);
		return;
	}
	if (!ret && m.op == CHANNEL_CHANGED && !n)
		ret = take_answer(s, &m);
	else if (!ret && m.op == CHANNEL_CLOUD && !n)
		ret = clouds_take(&s->clouds, s->figures.clouds, &m);
	else if (!ret)
		ret = holdings_take(s->holdings, &m, fds, n);
	if (ret == -EPROTO) {
		say(s, "courier: says what it should not");
		child_signal(&s->courier.child, SIGKILL);
	}
	if (ret)
		child_hang_up(&s->courier.child);
}

/* A connection for one that cannot make any. */
static int connect_courier(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (fd < 0)
		return -errno;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	ret = connect(fd, (struct sockaddr *)&at, sizeof(at)) ? -errno : 0;
	/* The flag is the connection's, and its user waits. */
	if (!ret && fcntl(fd, F_SETFL, 0))
		ret = -errno;
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

static void hand_connection(struct supervisor *s, struct engine *e)
{
	struct channel_message m = { .op = CHANNEL_CONNECTED };
	const double now = clock_seconds();
	int fd;

	if (now - e->connects_since > CONNECTS_S) {
		e->connects_since = now;
		e->connects = 0;
	}
	fd = ++e->connects > CONNECTS ? -EDQUOT : connect_courier(s->opts->courier_socket);
	m.code = fd < 0 ? fd : 0;
	if (channel_send(e->kept.child.channel, &m, &fd, fd >= 0))
		child_signal(&e->kept.child, SIGKILL);
	if (fd >= 0)
		close(fd);
}

static void tell_confinement(struct supervisor *s, const struct engine *e,
			     const struct channel_message *m)
{
	char on[128] = "";
	size_t at = 0;

	for (int i = 0; i < CONFINE_PARTS; i++)
		if (m->value >> i & 1)
			at += (size_t)snprintf(on + at, sizeof(on) - at, "%s%s", at ? ", " : "",
					       confine_part_name(i));
	say(s, "%s: ready, process %d, confined: %s%s%s", e->kept.name, e->kept.child.pid,
	    at ? on : "not", *m->text ? "; off: " : "", m->text);
}

/* The new one is there: it takes the place of one that is stale, which ends what it has begun. */
static void replace_one(struct supervisor *s)
{
	struct engine *spare = &s->engines[s->n], old;
	char name[sizeof(old.kept.name)];
	uint32_t i = 0;

	while (i < s->n && !s->engines[i].stale)
		i++;
	/* Whoever was stale has died meanwhile, and its successor is as new. */
	if (i == s->n) {
		tell_to_end(&spare->kept, s->opts->drain_s);
		return;
	}
	old = s->engines[i];
	memcpy(name, old.kept.name, sizeof(name));
	s->engines[i] = *spare;
	*spare = old;
	memcpy(spare->kept.name, s->engines[i].kept.name, sizeof(name));
	memcpy(s->engines[i].kept.name, name, sizeof(name));
	spare->stale = false;
	tell_to_end(&spare->kept, s->opts->drain_s);
}

static void engine_is_ready(struct supervisor *s, struct engine *e, const struct channel_message *m)
{
	e->kept.child.ready = true;
	tell_confinement(s, e, m);
	/* It may have been told to end before it was ready. */
	if (e == &s->engines[s->n] && e->kept.kill_at <= 0)
		replace_one(s);
	tell_ready(s);
}

/* m becomes the answer. */
static int run_errand(struct supervisor *s, struct engine *e, struct channel_message *m)
{
	const struct child *c = &e->kept.child;
	const int ret = errands_take(s->errands, c->pid, &e->errands, m, s->courier.child.channel);

	if (ret > 0)
		tell_engine(s, c->pid, m);
	return ret < 0 ? ret : 0;
}

/* -EPROTO: it says what it should not. Descriptors are taken or closed. */
static int obey(struct supervisor *s, struct engine *e, struct channel_message *m, const int *fds,
		int n)
{
	if (m->op == CHANNEL_NOTIFIER && n == 1 && e->notifier < 0 && !e->kept.child.ready) {
		e->notifier = fds[0];
		return 0;
	}
	channel_close_fds(fds, n);
	if (n)
		return -EPROTO;
	if (m->op == CHANNEL_CONNECT)
		hand_connection(s, e);
	else if (m->op == CHANNEL_READY && !e->kept.child.ready)
		engine_is_ready(s, e, m);
	else if (m->op == CHANNEL_CHANGE)
		return run_errand(s, e, m);
	else
		return -EPROTO;
	return 0;
}

static void hear_engine(struct supervisor *s, struct engine *e)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n;
	int ret = channel_receive(e->kept.child.channel, &m, fds, &n);

	if (!ret)
		ret = obey(s, e, &m, fds, n);
	if (ret == -EPROTO) {
		say(s, "%s: says what it should not", e->kept.name);
		child_signal(&e->kept.child, SIGKILL);
	}
	if (ret)
		child_hang_up(&e->kept.child);
}

static void refuse_call(struct supervisor *s, struct engine *e)
{
	struct syscalls_refusal r;
	int ret = syscalls_refuse(e->notifier, &r);

	if (ret == -EPIPE)
		drop_notifier(e);
	if (ret)
		return;
	s->figures.refused_calls++;
	/* The first ones are told, then those at powers of two: a line for each could fill a disk. */
	if (++e->refused < 8 || !(e->refused & (e->refused - 1)))
		say(s, "%s: refused %s() of thread %d, %llu so far", e->kept.name, r.name, r.thread,
		    (unsigned long long)e->refused);
}

/* ---- signals ---- */

static void end(struct supervisor *s)
{
	s->ending = true;
	for (uint32_t i = 0; i <= s->n; i++)
		tell_to_end(&s->engines[i].kept, s->opts->drain_s);
}

/* At once: whoever asks twice does not want to wait. */
static void end_now(struct supervisor *s)
{
	for (uint32_t i = 0; i <= s->n; i++)
		child_signal(&s->engines[i].kept.child, SIGKILL);
	child_signal(&s->courier.child, SIGKILL);
}

static void reload(struct supervisor *s)
{
	struct kept *spare = &s->engines[s->n].kept;
	struct lslm_error why;

	if (s->opts->check && s->opts->check(s->opts->arg, &why)) {
		say(s, "not reloaded, and everything stays as it is: %s", why.text);
		return;
	}
	say(s, "reloading");
	/* One that waits to be started will read everything anew by itself. */
	if (s->courier.child.pid)
		tell_to_end(&s->courier, 0);
	/* Of the reload before, and may have read what is old by now. */
	if (spare->child.pid)
		tell_to_end(spare, 0);
	for (uint32_t i = 0; i < s->n; i++)
		s->engines[i].stale = s->engines[i].kept.child.pid;
}

static void take_signal(struct supervisor *s)
{
	struct signalfd_siginfo info;

	if (read(s->signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD)
		look_after_all(s);
	else if (s->ending)
		end_now(s);
	else if (info.ssi_signo == SIGHUP)
		reload(s);
	else
		end(s);
}

/* ---- time ---- */

/* What is due is done; returns when the next thing is, 0 for never. */
static double see_to(struct supervisor *s, struct kept *k, double now, bool *due)
{
	*due = k->start_at > 0 && now >= k->start_at && !k->child.pid;
	if (k->kill_at > 0 && now >= k->kill_at) {
		say(s, "%s: does not end, and is killed", k->name);
		child_signal(&k->child, SIGKILL);
		k->kill_at = now + KILL_AFTER_S;
	}
	return k->kill_at > 0 ? k->kill_at : *due ? 0 : k->start_at;
}

static void earlier(double *next, double at)
{
	if (at > 0 && (*next <= 0 || at < *next))
		*next = at;
}

static double see_to_all(struct supervisor *s)
{
	const double now = clock_seconds();
	double next = 0;
	bool due, any = false;

	for (uint32_t i = 0; i <= s->n; i++) {
		struct engine *e = &s->engines[i];

		earlier(&next, see_to(s, &e->kept, now, &due));
		if (due)
			start_engine(s, e);
		any |= e->kept.child.pid || e->kept.start_at > 0;
		/* One at a time: the spare place is free when the last one has gone. */
		if (e->stale && !s->ending && !s->engines[s->n].kept.child.pid)
			start_engine(s, &s->engines[s->n]);
	}
	earlier(&next, see_to(s, &s->courier, now, &due));
	if (due)
		start_courier(s);
	end_errands(s, false);
	earlier(&next, errands_next(s->errands));
	/* Until the last engine has ended it is of use. */
	if (s->ending && !any)
		tell_to_end(&s->courier, 0);
	earlier(&next, s->courier.kill_at);
	return next;
}

static bool is_over(const struct supervisor *s)
{
	bool any = s->courier.child.pid;

	for (uint32_t i = 0; i <= s->n; i++)
		any |= s->engines[i].kept.child.pid > 0;
	return s->ending && !any;
}

static int timeout_until(double at)
{
	const double left = at - clock_seconds();

	return at <= 0 ? -1 : left <= 0 ? 0 : (int)(left * 1000) + 1;
}

static void report(struct supervisor *s)
{
	struct board_figures *f = &s->figures;

	f->guarded = cell_guarded(s->cell, NULL);
	cell_guard_stats(s->cell, f->guard);
	f->engines_ready = 0;
	f->serving = (struct tally_page){ .counts = s->past };
	for (uint32_t i = 0; i <= s->n; i++) {
		tally_source_add(&s->engines[i].tally, &f->serving);
		f->engines_ready += s->engines[i].kept.child.pid && s->engines[i].kept.child.ready;
	}
	board_put_figures(s->board, f);
}

static void turn(struct supervisor *s)
{
	struct pollfd p[MAX_POLL];
	double next = see_to_all(s);
	nfds_t n = 0;

	report(s);
	earlier(&next, clock_seconds() + FIGURES_MS * 1e-3);
	/* Negative descriptors are not looked at. */
	p[n++] = (struct pollfd){ .fd = s->signals, .events = POLLIN };
	p[n++] = (struct pollfd){ .fd = s->courier.child.channel, .events = POLLIN };
	for (uint32_t i = 0; i <= s->n; i++) {
		p[n++] =
			(struct pollfd){ .fd = s->engines[i].kept.child.channel, .events = POLLIN };
		p[n++] = (struct pollfd){ .fd = s->engines[i].notifier, .events = POLLIN };
	}
	if (is_over(s) || poll(p, n, timeout_until(next)) < 0)
		return;
	/* By the places of before: signals, which may start and move children, come last. */
	if (p[1].revents)
		hear_courier(s);
	for (uint32_t i = 0; i <= s->n; i++) {
		struct engine *e = &s->engines[i];

		/* It would wait where there is nothing to read. */
		if (p[3 + 2 * i].revents && e->notifier == p[3 + 2 * i].fd) {
			if (p[3 + 2 * i].revents & POLLIN)
				refuse_call(s, e);
			else
				drop_notifier(e);
		}
		if (p[2 + 2 * i].revents && e->kept.child.channel == p[2 + 2 * i].fd)
			hear_engine(s, e);
	}
	if (p[0].revents)
		take_signal(s);
}

/* ---- the supervisor ---- */

static void init_kept(struct kept *k)
{
	*k = (struct kept){ .child.channel = -1, .wait_ms = RESTART_FIRST_MS };
}

static void init_children(struct supervisor *s)
{
	init_kept(&s->courier);
	snprintf(s->courier.name, sizeof(s->courier.name), "courier");
	for (uint32_t i = 0; i <= s->n; i++) {
		struct engine *e = &s->engines[i];

		init_kept(&e->kept);
		snprintf(e->kept.name, sizeof(e->kept.name), "engine %u", i + 1);
		e->notifier = -1;
	}
}

static int block_signals(struct supervisor *s, struct lslm_error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? error_sys(err, -errno, "signals") : 0;
}

/* The strings stay the caller's, and the cell's. */
static int make_engine_argv(struct supervisor *s, struct lslm_error *err)
{
	size_t n = 0;

	while (s->opts->engine_argv[n])
		n++;
	s->engine_argv = calloc(n + 3, sizeof(*s->engine_argv));
	if (!s->engine_argv)
		return error_sys(err, -ENOMEM, "engines");
	memcpy(s->engine_argv, s->opts->engine_argv, n * sizeof(*s->engine_argv));
	if (cell_cgroup(s->cell)) {
		s->engine_argv[n] = (char *)"--cgroup";
		s->engine_argv[n + 1] = (char *)cell_cgroup(s->cell);
	}
	return 0;
}

static int check_guard(struct supervisor *s, struct lslm_error *err)
{
	struct lslm_error why;

	if (cell_guarded(s->cell, &why))
		return 0;
	if (s->opts->require_confinement)
		return error_set(err, -EPERM, "engines have no egress guard: %s", why.text);
	say(s, "engines have no egress guard: %s", why.text);
	return 0;
}

static int open_all(struct supervisor *s, struct lslm_error *err)
{
	int ret;

	if (strlen(s->opts->courier_socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return error_set(err, -ENAMETOOLONG, "%s: longer than a socket's name can be",
				 s->opts->courier_socket);
	ret = holdings_create(&s->holdings, err);
	if (!ret)
		ret = board_create(&s->board, err);
	if (!ret)
		s->board_fd = board_ro_fd(s->board, err);
	if (!ret && s->board_fd < 0)
		ret = s->board_fd;
	if (!ret)
		ret = errands_create(&s->errands, s->board, s->holdings, s->opts->log, s->opts->arg,
				     err);
	if (!ret)
		ret = block_signals(s, err);
	if (!ret)
		ret = cell_open(&s->cell, s->opts->listen, err);
	if (!ret)
		ret = check_guard(s, err);
	return ret ? ret : make_engine_argv(s, err);
}

static void close_all(struct supervisor *s)
{
	child_kill(&s->courier.child);
	for (uint32_t i = 0; i <= s->n; i++) {
		child_kill(&s->engines[i].kept.child);
		tally_page_unmap(s->engines[i].tally.page);
		drop_notifier(&s->engines[i]);
	}
	cell_close(s->cell);
	errands_destroy(s->errands);
	holdings_destroy(s->holdings);
	board_close(s->board);
	if (s->board_fd >= 0)
		close(s->board_fd);
	if (s->signals >= 0)
		close(s->signals);
	free(s->engine_argv);
	free(s);
}

static int run(struct supervisor *s, struct lslm_error *err)
{
	int ret = open_all(s, err);

	if (ret)
		return ret;
	start_courier(s);
	for (uint32_t i = 0; i < s->n; i++)
		start_engine(s, &s->engines[i]);
	while (!is_over(s)) {
		turn(s);
		if (s->failure.code)
			end(s);
	}
	return s->failure.code ? error_set(err, s->failure.code, "%s", s->failure.text) : 0;
}

int supervisor_run(const struct supervisor_opts *opts, struct lslm_error *err)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return error_sys(err, -ENOMEM, "supervisor");
	s->opts = opts;
	s->n = opts->engines < SUPERVISOR_ENGINES ? opts->engines : SUPERVISOR_ENGINES;
	s->signals = s->board_fd = -1;
	init_children(s);
	ret = run(s, err);
	close_all(s);
	return ret;
}
