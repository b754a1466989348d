// SPDX-License-Identifier: MIT
#include "serve/engine_process.h"

#include <jansson.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/batch.h"
#include "net/courier_link.h"
#include "serve/board.h"
#include "serve/channel.h"
#include "serve/confine.h"
#include "serve/front.h"
#include "serve/guard.h"
#include "serve/metrics.h"
#include "serve/roster.h"
#include "serve/salts.h"

/* An admin who attaches a context sees it attached, if that is so soon. */
enum { ATTACH_MS = 5000 };

/* For the courier, which starts at the same time, and has to reach its cloud. */
enum { SETTLE_MS = 5000 };

/* In the time after SIGTERM in which what comes on open connections is answered like before. */
enum { GRACE_MS = 500, POLL_MS = 20 };

_Static_assert((int)ENGINE_MODELS == (int)TALLY_MODELS, "a row for each");

/* How often what runs and waits is told to the supervisor. */
enum { TELL_MS = 250 };

/* Of malloc(): threads that answer, compute and bring contexts. */
enum { ARENAS = 16, HEAP_PIECES = 64, HEAP_PIECE = 100000 };

/* One model, and all that answers with it. */
struct unit {
	char *name;
	struct model *model;
	struct engine *engine;
	struct batch *batch;
	struct attached *contexts;
};

struct process {
	const struct engine_process_opts *opts;
	struct confine_report report;
	struct kv_hash
		salts[1 + RIGHTS_MAX]; /* that contexts may have: the usual one, and tenants' */
	uint32_t n_salts;
	struct unit units[ENGINE_MODELS];
	struct engine *engines[ENGINE_MODELS]; /* of them, for the roster */
	pthread_mutex_t channel; /* one question at a time */
	struct board *board;
	struct tally_page *tally;
	struct courier_link *link;
	struct roster *roster;
	struct front *front;
};

__attribute__((format(printf, 2, 3))) static void say(struct process *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_tell(p->opts->log, p->opts->arg, NULL, fmt, ap);
	va_end(ap);
}

/* ---- models ---- */

/* "models/small.gguf" is asked for as "small". */
static char *name_of(const char *path)
{
	static const char suffix[] = ".gguf";
	const char *slash = strrchr(path, '/');
	char *name = strdup(slash ? slash + 1 : path);
	size_t len = name ? strlen(name) : 0;

	if (len > strlen(suffix) && !strcmp(name + len - strlen(suffix), suffix))
		name[len - strlen(suffix)] = 0;
	return name;
}

/* Who asks for the weights of the model with this number. */
struct asker {
	struct process *p;
	uint32_t index;
	bool bad; /* the courier could not load them: nobody may use that file */
};

/* It starts at the same time. */
static int reach_courier(const struct process *p, struct courier_client **c, struct lslm_error *err)
{
	const struct timespec tick = { .tv_nsec = POLL_MS * 1000000L };
	const double until = clock_seconds() + SETTLE_MS * 1e-3;
	int ret;

	while ((ret = courier_client_open(c, p->opts->courier, 0, err)) &&
	       (ret == -ENOENT || ret == -ECONNREFUSED) && clock_seconds() < until)
		nanosleep(&tick, NULL);
	return ret;
}

/* Before confinement, which leaves no way to make a connection. */
static int find_weights(void *arg, const struct kv_hash *key, int *memory, int *page,
			struct lslm_error *err)
{
	struct asker *a = arg;
	struct courier_client *c;
	struct courier_weights w;
	int fds[COURIER_WIRE_WEIGHTS_FDS];
	int ret;

	/* Not -ENOENT, which is a packed file's that is not there. */
	if (reach_courier(a->p, &c, err))
		return -ENOTCONN;
	ret = courier_client_weights(c, a->index, &w, fds, err);
	courier_client_close(c);
	a->bad = ret == -EBADMSG;
	if (ret)
		return ret;
	if (memcmp(w.key, key->b, sizeof(w.key))) {
		channel_close_fds(fds, COURIER_WIRE_WEIGHTS_FDS);
		return error_set(err, -ESTALE, "the courier has read another packed file");
	}
	*memory = fds[0];
	*page = fds[1];
	return 0;
}

/*
 * 0: the unit has an engine, or is to get one in another way, with a line where that is worth one. -EBADMSG: the courier
 * found the file damaged, which mapping it would not.
 */
static int open_shared(struct process *p, struct unit *u, const char *path, struct lslm_error *err)
{
	struct asker asker = { .p = p, .index = (uint32_t)(u - p->units) };
	const struct matrices_share share = { .find = find_weights, .arg = &asker };
	const struct matrices_opts shared = { .load = MATRICES_SHARED, .share = &share };
	const enum matrices_load load = p->opts->load;
	int ret;

	if (!p->opts->courier || (load != MATRICES_READ && load != MATRICES_AUTO))
		return 0;
	ret = engine_create_with(&u->engine, u->model, p->opts->threads, &shared, err);
	if (asker.bad)
		return ret;
	/* Then there is nothing to map either, and a line says so; or the courier found that mapping suits. */
	if (ret && ret != -EALREADY && (load == MATRICES_READ || ret != -ENOENT))
		say(p, "%s: weights are not shared: %s", path, err->text);
	return 0;
}

/* Never read here: a ring of io_uring has no place in an engine. */
static int open_engine(struct process *p, struct unit *u, const char *path, struct lslm_error *err)
{
	const struct matrices_opts mapped = { .load = MATRICES_MAP };
	const struct matrices_opts packed = { .load = MATRICES_PACK };
	struct lslm_error why = { .text = "as asked" };

	const int ret = open_shared(p, u, path, err);

	if (ret || u->engine)
		return ret;
	if (p->opts->load != MATRICES_PACK &&
	    !engine_create_with(&u->engine, u->model, p->opts->threads, &mapped, &why))
		return 0;
	say(p, "%s: packed at start, by this engine alone: %s", path, why.text);
	return engine_create_with(&u->engine, u->model, p->opts->threads, &packed, err);
}

static uint64_t kv_share(const struct process *p)
{
	const uint64_t all = p->opts->kv_bytes ? p->opts->kv_bytes :
						 memory_available() / 4 /
							 (p->opts->engines ? p->opts->engines : 1);

	return all / p->opts->n_models;
}

static int open_unit(struct process *p, struct unit *u, const char *path, struct lslm_error *err)
{
	const struct batch_opts batch = {
		.n_ctx = p->opts->n_ctx,
		.kv_bytes = kv_share(p),
		.no_reuse = p->opts->no_reuse,
		.share_queue = p->opts->tokens,
	};
	struct kv_identity id;
	int ret;

	u->name = name_of(path);
	if (!u->name)
		return error_sys(err, -ENOMEM, "%s", path);
	ret = model_open(&u->model, path, err);
	if (!ret)
		ret = open_engine(p, u, path, err);
	if (!ret)
		u->engine->attend_apart = p->opts->attend_apart;
	/* Settled now: later no file can be opened. */
	if (!ret)
		ret = engine_identity(u->engine, &id, err);
	if (!ret)
		ret = batch_create(&u->batch, u->engine, &batch, err);
	return ret ? ret : attached_open(&u->contexts, err);
}

static int open_models(struct process *p, struct lslm_error *err)
{
	int ret = 0;

	for (uint32_t i = 0; i < p->opts->n_models && !ret; i++) {
		ret = open_unit(p, &p->units[i], p->opts->models[i], err);
		p->engines[i] = p->units[i].engine;
	}
	return ret;
}

/* ---- confinement ---- */

static int find_user(struct process *p, uid_t *uid, gid_t *gid, struct lslm_error *err)
{
	*uid = *gid = 0;
	if (geteuid())
		return 0;
	if (p->opts->user)
		return confine_find_user(p->opts->user, uid, gid, err);
	if (!confine_find_user("lslm-engine", uid, gid, NULL))
		return 0;
	say(p, "engines run as nobody, for want of a user lslm-engine");
	return confine_find_user("nobody", uid, gid, err);
}

/* The first part that is off, with the reason; 0: none is, or it is not required. */
static int check_confinement(const struct process *p, char *text, size_t size,
			     struct lslm_error *err)
{
	int ret = 0;

	*text = 0;
	for (int i = 0; i < CONFINE_PARTS; i++) {
		const struct lslm_error *why = &p->report.why[i];

		if (p->report.on >> i & 1)
			continue;
		if (why->code && !*text)
			snprintf(text, size, "%s (%s)", confine_part_name(i), why->text);
		if (p->opts->require_confinement && !ret)
			ret = error_set(err, -EPERM, "an engine cannot be confined: no %s%s%s",
					confine_part_name(i), why->code ? ": " : "",
					why->code ? why->text : "");
	}
	return ret;
}

static int hand_notifier(struct process *p, int notifier, struct lslm_error *err)
{
	struct channel_message m = { .op = CHANNEL_NOTIFIER };
	int ret;

	if (notifier < 0)
		return 0;
	ret = channel_send(p->opts->channel, &m, &notifier, 1);
	close(notifier);
	return ret ? error_sys(err, ret, "the supervisor") : 0;
}

static int confine(struct process *p, struct lslm_error *err)
{
	int notifier, ret;
	uid_t uid;
	gid_t gid;

	ret = find_user(p, &uid, &gid, err);
	if (!ret)
		ret = confine_finish(&p->report, uid, gid, &notifier, err);
	return ret ? ret : hand_notifier(p, notifier, err);
}

/* ---- the supervisor ---- */

/* One descriptor of this op, or the code that came instead. */
static int take_fd(struct process *p, enum channel_op op, struct lslm_error *err)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n;
	int ret = channel_receive(p->opts->channel, &m, fds, &n);

	if (!ret && (m.op != op || n != (m.code ? 0 : 1))) {
		channel_close_fds(fds, n);
		ret = -EPROTO;
	}
	if (ret)
		return error_sys(err, ret, "the supervisor");
	return m.code ? error_sys(err, m.code, "no courier") : fds[0];
}

static int connect_courier(void *arg, struct lslm_error *err)
{
	struct channel_message m = { .op = CHANNEL_CONNECT };
	struct process *p = arg;
	int ret;

	pthread_mutex_lock(&p->channel);
	ret = channel_send(p->opts->channel, &m, NULL, 0);
	ret = ret ? error_sys(err, ret, "the supervisor") : take_fd(p, CHANNEL_CONNECTED, err);
	pthread_mutex_unlock(&p->channel);
	return ret;
}

/* The listening socket, which comes with the board. */
static int take_listener(struct process *p, struct lslm_error *err)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n;
	int ret = channel_receive(p->opts->channel, &m, fds, &n);

	if (!ret && (m.op != CHANNEL_LISTENER || n != CHANNEL_FDS)) {
		channel_close_fds(fds, n);
		ret = -EPROTO;
	}
	if (ret)
		return error_sys(err, ret, "the supervisor");
	ret = board_open(&p->board, fds[1], err);
	if (!ret)
		return fds[0];
	channel_close_fds(fds, n);
	return ret;
}

static int take_tally(struct process *p, struct lslm_error *err)
{
	int fd = take_fd(p, CHANNEL_TALLY, err), ret;

	if (fd < 0)
		return fd;
	ret = tally_page_map(&p->tally, fd, err);
	close(fd);
	return ret;
}

/* What an admin wants: m becomes the answer. */
static int ask_supervisor(struct process *p, struct channel_message *m, struct lslm_error *err)
{
	const uint32_t verb = m->value;
	int fds[CHANNEL_FDS], n, ret;

	m->op = CHANNEL_CHANGE;
	pthread_mutex_lock(&p->channel);
	ret = channel_send(p->opts->channel, m, NULL, 0);
	if (!ret)
		ret = channel_receive(p->opts->channel, m, fds, &n);
	pthread_mutex_unlock(&p->channel);
	if (!ret && (m->op != CHANNEL_CHANGED || m->value != verb || n)) {
		channel_close_fds(fds, n);
		ret = -EPROTO;
	}
	if (ret)
		return error_sys(err, ret, "the supervisor");
	return m->code ? error_set(err, m->code, "%s", m->text) : 0;
}

/* Weights of the courier's that turn out to be damaged are no reason to begin. */
static int await_weights(struct process *p, struct lslm_error *err)
{
	int ret = 0;

	for (uint32_t i = 0; i < p->opts->n_models && !ret; i++)
		ret = engine_await(p->units[i].engine, err);
	return ret;
}

static int tell_ready(struct process *p, struct lslm_error *err)
{
	struct channel_message m = { .op = CHANNEL_READY, .value = p->report.on };
	int ret = check_confinement(p, m.text, sizeof(m.text), err);

	if (!ret)
		ret = await_weights(p, err);
	if (ret)
		return ret;
	pthread_mutex_lock(&p->channel);
	ret = channel_send(p->opts->channel, &m, NULL, 0);
	pthread_mutex_unlock(&p->channel);
	return ret ? error_sys(err, ret, "the supervisor") : 0;
}

/* ---- contexts ---- */

static int keep_context(void *arg, uint32_t engine, struct context *c, struct lslm_error *err)
{
	const struct process *p = arg;

	return attached_add(p->units[engine].contexts, c, err);
}

static void log_context(void *arg, const char *line)
{
	say(arg, "%s", line);
}

static void drop_context(void *arg, uint32_t engine, const struct kv_hash *key)
{
	const struct process *p = arg;

	/* Whoever was asked to drop it has done that already. */
	attached_remove(p->units[engine].contexts, key, NULL);
}

static void pin_context(void *arg, uint32_t engine, const struct kv_hash *key, bool pinned)
{
	const struct process *p = arg;

	attached_pin(p->units[engine].contexts, key, pinned, NULL);
}

static void contexts_are_told(void *arg)
{
	const struct process *p = arg;

	for (uint32_t i = 0; i < p->opts->n_models; i++)
		attached_set_told(p->units[i].contexts, true);
}

/* ---- what admins want ---- */

static int attach(void *arg, const char *model, const struct kv_hash *salt, const char *source,
		  struct kv_hash *key, struct lslm_error *err)
{
	struct channel_message m = { .value = CHANNEL_ATTACH };
	struct process *p = arg;
	int ret;

	if (strlen(source) >= sizeof(m.text))
		return error_set(err, -EINVAL, "source: longer than %zu bytes", sizeof(m.text) - 1);
	strcpy(m.text, source);
	if (salt)
		m.digest = rights_salt_name(salt);
	else
		m.flags = CHANNEL_ANY_SALT;
	ret = ask_supervisor(p, &m, err);
	if (ret)
		return ret;
	*key = m.key;
	ret = roster_await(p->roster, key, ATTACH_MS);
	if (ret == -ENOEXEC)
		return error_set(err, ret, "it is for none of the models here");
	return ret && ret != -ETIMEDOUT ? error_sys(err, ret, "it cannot be attached") : 0;
}

static int choose(struct process *p, enum channel_verb verb, const struct kv_hash *key,
		  struct lslm_error *err)
{
	struct channel_message m = { .value = verb, .key = *key };

	return ask_supervisor(p, &m, err);
}

static int pin(void *arg, const char *model, const struct kv_hash *key, bool pinned,
	       struct lslm_error *err)
{
	return choose(arg, pinned ? CHANNEL_PIN : CHANNEL_UNPIN, key, err);
}

static int drop(void *arg, const char *model, const struct kv_hash *key, struct lslm_error *err)
{
	return choose(arg, CHANNEL_DROP, key, err);
}

/* ---- starting with contexts ---- */

static int start_contexts(struct process *p, struct lslm_error *err)
{
	const struct courier_link_opts link = { .connect = connect_courier, .arg = p };
	struct roster_opts roster = {
		.engines = p->engines,
		.n_engines = p->opts->n_models,
		.trusted = p->opts->trusted,
		.n_trusted = p->opts->n_trusted,
		.salts = p->salts,
		.n_salts = p->n_salts,
		.settle_ms = SETTLE_MS,
		.attached = keep_context,
		.board = p->board,
		.dropped = drop_context,
		.pinned = pin_context,
		.told = contexts_are_told,
		.log = log_context,
		.arg = p,
	};
	int ret = courier_link_open(&p->link, &link, err);

	for (uint32_t i = 0; i < p->opts->n_models; i++)
		attached_set_told(p->units[i].contexts, false);
	roster.link = p->link;
	return ret ? ret : roster_start(&p->roster, &roster, err);
}

/* Read once: whoever is to know others is started anew. */
static int read_salts(struct process *p, struct lslm_error *err)
{
	struct rights r;
	int ret = salts_read(&r, p->opts->tokens, false, err);

	p->salts[p->n_salts++] = p->opts->salt;
	for (uint32_t i = 0; !ret && i < r.n; i++)
		p->salts[p->n_salts++] = r.all[i].salt;
	return ret;
}

/* ---- the front ---- */

/* Memory of a thread's own heap, given back: the C library then looks, once, how the kernel overcommits. */
static void *shrink_heap(void *arg)
{
	void *pieces[HEAP_PIECES];

	for (int i = 0; i < HEAP_PIECES; i++)
		pieces[i] = malloc(HEAP_PIECE);
	for (int i = HEAP_PIECES; i-- > 0;)
		free(pieces[i]);
	return arg;
}

/*
 * What libraries would open files for later: the first date in a reply, memory for one more thread and memory given
 * back, and the seed that keeps clients from choosing keys that collide.
 */
static void open_files_now(void)
{
	pthread_t thread;

	tzset();
	mallopt(M_ARENA_MAX, ARENAS);
	if (!pthread_create(&thread, NULL, shrink_heap, NULL))
		pthread_join(thread, NULL);
	json_object_seed(0);
}

/* From front_start(), when it has read its files and would begin to accept. */
static int confine_and_listen(void *arg, struct lslm_error *err)
{
	struct process *p = arg;
	int ret, listener;

	open_files_now();
	ret = confine(p, err);
	if (ret)
		return ret;
	listener = take_listener(p, err);
	if (listener < 0)
		return listener;
	ret = start_contexts(p, err);
	if (ret)
		close(listener);
	return ret ? ret : listener;
}

static void log_front(void *arg, const char *line)
{
	say(arg, "%s", line);
}

/* Whether the courier's clouds are asked. */
static void print_clouds(const struct board_figures *f, FILE *to)
{
	const struct board_cloud *end = f->clouds;

	while (end < f->clouds + BOARD_CLOUDS && *end->name)
		end++;
	metrics_head(to, "lslm_cloud_state", "gauge",
		     "Of its breaker: 0 closed, 1 open, 2 half-open.");
	for (const struct board_cloud *c = f->clouds; c < end; c++)
		metrics_sample(to, "lslm_cloud_state", "cloud", c->name, c->state);
	metrics_head(to, "lslm_cloud_opened_total", "counter", "Times that it opened.");
	for (const struct board_cloud *c = f->clouds; c < end; c++)
		metrics_sample(to, "lslm_cloud_opened_total", "cloud", c->name, (double)c->opened);
	metrics_head(to, "lslm_cloud_probes_total", "counter", "Probes while it was open.");
	for (const struct board_cloud *c = f->clouds; c < end; c++)
		metrics_sample(to, "lslm_cloud_probes_total", "cloud", c->name, (double)c->probes);
}

/* What the supervisor knows of all engines. */
static void print_figures(void *arg, FILE *to)
{
	const struct process *p = arg;
	struct board_figures f;

	if (!board_figures(p->board, &f))
		return;
	metrics_head(
		to, "lslm_guard_total", "counter",
		"Packets and calls of engines by what the egress guard did: answer is what left.");
	for (int i = 0; i < GUARD_COUNTERS && f.guarded; i++)
		metrics_sample(to, "lslm_guard_total", "reason", guard_reason_name(i),
			       (double)f.guard[i]);
	metrics_head(to, "lslm_refused_calls_total", "counter", "System calls of engines refused.");
	metrics_sample(to, "lslm_refused_calls_total", NULL, "", (double)f.refused_calls);
	metrics_head(to, "lslm_process_starts_total", "counter", "Processes started, by kind.");
	metrics_sample(to, "lslm_process_starts_total", "kind", "courier",
		       (double)f.courier_starts);
	metrics_sample(to, "lslm_process_starts_total", "kind", "engine", (double)f.engine_starts);
	metrics_head(to, "lslm_engines_ready", "gauge", "Engines that answer.");
	metrics_sample(to, "lslm_engines_ready", NULL, "", f.engines_ready);
	print_clouds(&f, to);
}

/* Of all engines, as the supervisor adds them up. */
static bool add_up(void *arg, struct tally_page *out)
{
	const struct process *p = arg;
	struct board_figures f;

	if (!board_figures(p->board, &f))
		return false;
	*out = f.serving;
	return true;
}

static int start_front(struct process *p, struct lslm_error *err)
{
	struct front_model models[ENGINE_MODELS];
	const struct front_ops ops = { attach, pin, drop, p };
	const struct front_opts o = {
		.ops = &ops,
		.metrics = print_figures,
		.tally = &p->tally->counts,
		.totals = add_up,
		.listener = confine_and_listen,
		.cert = p->opts->cert,
		.key = p->opts->key,
		.tokens = p->opts->tokens,
		.salt = p->opts->salt,
		.models = models,
		.n_models = p->opts->n_models,
		.log = log_front,
		.arg = p,
	};

	for (uint32_t i = 0; i < o.n_models; i++)
		models[i] = (struct front_model){
			.name = p->units[i].name,
			.model = p->units[i].model,
			.batch = p->units[i].batch,
			.n_ctx = p->opts->n_ctx,
			.contexts = p->units[i].contexts,
		};
	return front_start(&p->front, &o, err);
}

/* What is not counted but looked at. */
static void tell_now(struct process *p)
{
	struct batch_stats st;

	for (uint32_t i = 0; i < p->opts->n_models; i++) {
		batch_stats(p->units[i].batch, &st);
		tally_set(&p->tally->now[i].running, st.running);
		tally_set(&p->tally->now[i].queued, st.queued);
		tally_set(&p->tally->now[i].places, st.max_running);
		tally_set(&p->tally->counts.models[i].refused, st.refused);
	}
}

/* Answers that have begun end, or their time is over; how many have not ended. */
static uint32_t end_answers(struct process *p)
{
	const double end = clock_seconds() + p->opts->drain_s;
	uint32_t left;

	do {
		tell_now(p);
		left = front_drain(p->front, fmin(TELL_MS * 1e-3, end - clock_seconds()));
	} while (left && clock_seconds() < end);
	return left;
}

/* Others accept what comes now. Who has a connection here is answered for a while, then told to come again. */
static void drain(struct process *p)
{
	const struct timespec tick = { .tv_nsec = POLL_MS * 1000000L };
	const double grace = clock_seconds() + GRACE_MS * 1e-3;
	uint32_t left;

	front_quiesce(p->front);
	while (front_connections(p->front) && clock_seconds() < grace) {
		tell_now(p);
		nanosleep(&tick, NULL);
	}
	left = end_answers(p);
	if (left)
		say(p, "%u answers are cut off", left);
}

/* ---- the process ---- */

static int start(struct process *p, struct lslm_error *err)
{
	int ret = confine_begin(&p->report, p->opts->channel, p->opts->cgroup, err);

	if (!ret)
		ret = take_tally(p, err);
	if (!ret)
		ret = read_salts(p, err);
	if (!ret)
		ret = open_models(p, err);
	if (!ret)
		ret = start_front(p, err);
	return ret ? ret : tell_ready(p, err);
}

static void close_unit(struct unit *u)
{
	batch_destroy(u->batch);
	attached_close(u->contexts);
	engine_destroy(u->engine);
	if (u->model)
		model_close(u->model);
	free(u->name);
}

static void stop(struct process *p)
{
	front_stop(p->front);
	roster_stop(p->roster);
	for (uint32_t i = p->opts->n_models; i-- > 0;)
		close_unit(&p->units[i]);
	courier_link_close(p->link);
	board_close(p->board);
	tally_page_unmap(p->tally);
	pthread_mutex_destroy(&p->channel);
}

static void wait_for_end(struct process *p)
{
	const struct timespec tick = { .tv_nsec = TELL_MS * 1000000L };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	do
		tell_now(p);
	while (sigtimedwait(&set, NULL, &tick) < 0);
}

int engine_process_run(const struct engine_process_opts *opts, struct lslm_error *err)
{
	struct process p = { .opts = opts };
	int ret;

	if (opts->n_models > ENGINE_MODELS)
		return error_set(err, -E2BIG, "more than %d models", ENGINE_MODELS);
	pthread_mutex_init(&p.channel, NULL);
	ret = start(&p, err);
	if (!ret) {
		wait_for_end(&p);
		drain(&p);
		tell_now(&p);
	}
	stop(&p);
	return ret;
}
