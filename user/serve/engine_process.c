// SPDX-License-Identifier: MIT
#include "serve/engine_process.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/context.h"
#include "engine/engine.h"
#include "net/courier_link.h"
#include "serve/channel.h"
#include "serve/confine.h"
#include "serve/roster.h"

struct process {
	const struct engine_process_opts *opts;
	struct confine_report report;
	struct model *models[ENGINE_MODELS];
	struct engine *engines[ENGINE_MODELS];
	pthread_mutex_t channel; /* one question at a time */
	int listener;
	struct courier_link *link;
	struct roster *roster;
	struct context *contexts[LINK_CONTEXTS * 4];
	uint32_t n_contexts;
};

__attribute__((format(printf, 2, 3))) static void say(struct process *p, const char *fmt, ...)
{
	struct lslm_error line;
	va_list ap;

	if (!p->opts->log)
		return;
	va_start(ap, fmt);
	vsnprintf(line.text, sizeof(line.text), fmt, ap);
	va_end(ap);
	p->opts->log(p->opts->arg, line.text);
}

/* ---- models ---- */

static int open_engine(struct process *p, uint32_t i, struct lslm_error *err)
{
	const struct matrices_opts mapped = { .load = MATRICES_MAP };
	const struct matrices_opts packed = { .load = MATRICES_PACK };
	struct lslm_error why;
	struct kv_identity id;
	int ret;

	ret = model_open(&p->models[i], p->opts->models[i], err);
	if (ret)
		return ret;
	/* Never read: a ring of io_uring has no place in an engine. */
	ret = engine_create_with(&p->engines[i], p->models[i], p->opts->threads, &mapped, &why);
	if (ret) {
		say(p, "%s: packed at start, by this engine alone: %s", p->opts->models[i],
		    why.text);
		ret = engine_create_with(&p->engines[i], p->models[i], p->opts->threads, &packed,
					 err);
	}
	/* Settled now: later no file can be opened. */
	return ret ? ret : engine_identity(p->engines[i], &id, err);
}

static int open_models(struct process *p, struct lslm_error *err)
{
	int ret = 0;

	for (uint32_t i = 0; i < p->opts->n_models && !ret; i++)
		ret = open_engine(p, i, err);
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

static int tell_ready(struct process *p, struct lslm_error *err)
{
	struct channel_message m = { .op = CHANNEL_READY, .value = p->report.on };
	int ret = check_confinement(p, m.text, sizeof(m.text), err);

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
	struct process *p = arg;

	if (p->n_contexts == sizeof(p->contexts) / sizeof(p->contexts[0]))
		return error_set(err, -ENOSPC, "there is no room for another context");
	p->contexts[p->n_contexts++] = c;
	return 0;
}

static void log_context(void *arg, const char *line)
{
	say(arg, "%s", line);
}

static int start_contexts(struct process *p, struct lslm_error *err)
{
	const struct courier_link_opts link = { .connect = connect_courier, .arg = p };
	struct roster_opts roster = {
		.engines = p->engines,
		.n_engines = p->opts->n_models,
		.trusted = p->opts->trusted,
		.n_trusted = p->opts->n_trusted,
		.salt = p->opts->salt,
		.attached = keep_context,
		.log = log_context,
		.arg = p,
	};
	int ret = courier_link_open(&p->link, &link, err);

	roster.link = p->link;
	return ret ? ret : roster_start(&p->roster, &roster, err);
}

/* ---- the process ---- */

static int start(struct process *p, struct lslm_error *err)
{
	int ret = confine_begin(&p->report, p->opts->channel, p->opts->cgroup, err);

	if (!ret)
		ret = open_models(p, err);
	if (!ret)
		ret = confine(p, err);
	if (ret)
		return ret;
	p->listener = take_fd(p, CHANNEL_LISTENER, err);
	if (p->listener < 0)
		return p->listener;
	ret = start_contexts(p, err);
	return ret ? ret : tell_ready(p, err);
}

static void stop(struct process *p)
{
	roster_stop(p->roster);
	while (p->n_contexts)
		context_close(p->contexts[--p->n_contexts]);
	courier_link_close(p->link);
	for (uint32_t i = p->opts->n_models; i-- > 0;) {
		engine_destroy(p->engines[i]);
		if (p->models[i])
			model_close(p->models[i]);
	}
	if (p->listener >= 0)
		close(p->listener);
	pthread_mutex_destroy(&p->channel);
}

static void wait_for_end(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigwait(&set, &sig);
}

int engine_process_run(const struct engine_process_opts *opts, struct lslm_error *err)
{
	struct process p = { .opts = opts, .listener = -1 };
	int ret;

	if (opts->n_models > ENGINE_MODELS)
		return error_set(err, -E2BIG, "more than %d models", ENGINE_MODELS);
	pthread_mutex_init(&p.channel, NULL);
	ret = start(&p, err);
	if (!ret)
		wait_for_end();
	stop(&p);
	return ret;
}
