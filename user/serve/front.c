// SPDX-License-Identifier: MIT
#include "serve/front.h"

#include <netinet/in.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/daemon.h"
#include "serve/listener.h"
#include "serve/visit.h"

enum {
	FRONT_MAX_BODY = 4 << 20,
	FRONT_MAX_PREDICT = 1024,
	FRONT_DEADLINE_S = 600,
	FRONT_MAX_CONNECTIONS = 256,
	FRONT_MAX_PER_ADDRESS = 128,
	FRONT_HEADER_S = 20,
	FRONT_BODY_S = 60,
	FRONT_THREADS = 4, /* serve connections */
	FRONT_READERS = 2, /* make long texts into tokens */
	FRONT_CHANGERS = 2, /* attach, pin and drop contexts */
	/* Connections beyond the limit that are accepted to be told so; further ones wait unaccepted. */
	FRONT_SPARE = 16,
	FRONT_POLL_MS = 10,
};

/* ---- preparing ---- */

static int copy_models(struct front *f, const struct front_opts *o, struct lslm_error *err)
{
	if (!o->n_models)
		return error_set(err, -EINVAL, "the front has no model to serve");
	f->models = calloc(o->n_models, sizeof(*f->models));
	f->model_names = calloc(o->n_models, sizeof(*f->model_names));
	if (!f->models || !f->model_names)
		return error_sys(err, -ENOMEM, "front");
	for (; f->n_models < o->n_models; f->n_models++) {
		struct front_model *m = &f->models[f->n_models];

		*m = o->models[f->n_models];
		m->name = f->model_names[f->n_models] = strdup(m->name);
		if (!m->name)
			return error_sys(err, -ENOMEM, "front");
		if (!m->n_ctx)
			m->n_ctx = m->model->params.n_ctx_train;
	}
	return 0;
}

static void set_limits(struct front *f, const struct front_opts *o)
{
	f->max_body = o->max_body ? o->max_body : FRONT_MAX_BODY;
	f->max_predict = o->max_predict ? o->max_predict : FRONT_MAX_PREDICT;
	f->more_metrics = o->metrics;
	f->deadline_s = o->deadline_s > 0 ? o->deadline_s : FRONT_DEADLINE_S;
	f->max_connections = o->max_connections ? o->max_connections : FRONT_MAX_CONNECTIONS;
	f->started = time(NULL);
	f->salt = o->salt;
	f->log = o->log;
	f->totals = o->totals;
	f->arg = o->arg;
	if (o->ops)
		f->ops = *o->ops;
}

static void wake(void *arg)
{
	const struct front *f = arg;

	watch_wake(f->watch);
}

static void ended(void *arg, uint32_t model, const struct batch_result *r, bool by_stop_string)
{
	const struct front *f = arg;

	metrics_choice(f->metrics, model, r, by_stop_string);
}

static void sweep(void *arg)
{
	const struct front *f = arg;

	answers_sweep(f->answers);
}

static int prepare(struct front *f, const struct front_opts *o, struct lslm_error *err)
{
	const struct answers_opts answers = { wake, ended, f };
	const struct watch_opts watch = {
		.headers_s = o->header_timeout_s ? o->header_timeout_s : FRONT_HEADER_S,
		.body_s = o->body_timeout_s ? o->body_timeout_s : FRONT_BODY_S,
		.sweep = sweep,
		.arg = f,
	};
	int rc;

	if (sodium_init() < 0)
		return error_set(err, -EIO, "libsodium does not start");
	if (!o->cert != !o->key)
		return error_set(err, -EINVAL, "TLS needs a certificate and its key");
	set_limits(f, o);
	rc = copy_models(f, o, err);
	if (!rc && o->cert)
		rc = tls_load(&f->tls, o->cert, o->key, NULL, err);
	f->has_tls = !rc && o->cert;
	if (!rc)
		rc = tenants_open(&f->tenants, o->tokens, err);
	if (!rc)
		rc = metrics_open(&f->metrics, f->model_names, f->n_models, route_names, N_ROUTES,
				  o->tally, err);
	if (!rc)
		rc = answers_open(&f->answers, &answers, err);
	if (!rc)
		rc = workers_open(&f->readers, FRONT_READERS, err);
	if (!rc && o->ops)
		rc = workers_open(&f->changers, FRONT_CHANGERS, err);
	if (!rc)
		rc = watch_open(&f->watch, &watch, err);
	return rc;
}

/* ---- listening ---- */

static bool is_loopback(int fd)
{
	struct sockaddr_storage at = { 0 };
	socklen_t len = sizeof(at);

	if (getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		return false;
	if (at.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&at)->sin_addr.s_addr) >> 24 == 127;
	return at.ss_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&at)->sin6_addr);
}

static int start_daemon(struct front *f, const struct front_opts *o, int fd, struct lslm_error *err)
{
	const unsigned int silence = 60 + (o->body_timeout_s ? o->body_timeout_s : FRONT_BODY_S);
	const unsigned int flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
				   MHD_USE_ITC | MHD_USE_ERROR_LOG | (f->has_tls ? MHD_USE_TLS : 0);
	struct MHD_OptionItem tls[DAEMON_TLS_ITEMS];

	if (f->has_tls)
		daemon_tls(&f->tls, tls);
	f->daemon = MHD_start_daemon(
		flags, 0, NULL, NULL, visit_handle, f, MHD_OPTION_EXTERNAL_LOGGER, daemon_silence,
		NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, FRONT_THREADS,
		MHD_OPTION_CONNECTION_LIMIT, f->max_connections + FRONT_SPARE,
		MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		o->max_per_address ? o->max_per_address : FRONT_MAX_PER_ADDRESS,
		MHD_OPTION_CONNECTION_TIMEOUT, silence, MHD_OPTION_NOTIFY_COMPLETED,
		visit_completed, f, MHD_OPTION_NOTIFY_CONNECTION, visit_connection, f,
		f->has_tls ? MHD_OPTION_ARRAY : MHD_OPTION_END, tls, MHD_OPTION_END);
	return f->daemon ? 0 : error_set(err, -EIO, "the HTTP server does not start");
}

static int serve(struct front *f, const struct front_opts *o, struct lslm_error *err)
{
	int fd, rc = 0;

	if (o->listen)
		fd = listener_open(o->listen, err);
	else
		fd = o->listener ? o->listener(o->arg, err) : o->listen_fd;
	if (fd < 0)
		return fd;
	f->port = listener_port(fd);
	if (tenants_are_open(f->tenants) && !is_loopback(fd))
		rc = error_set(
			err, -EACCES,
			"%s: without tokens everybody there could ask; give --tokens FILE, or "
			"listen on 127.0.0.1",
			o->listen ? o->listen : "the listening socket");
	if (!rc)
		rc = start_daemon(f, o, fd, err);
	if (rc)
		close(fd);
	return rc;
}

int front_start(struct front **out, const struct front_opts *opts, struct lslm_error *err)
{
	struct front *f = calloc(1, sizeof(*f));
	int rc;

	if (f)
		f->quiesced = -1;
	rc = f ? prepare(f, opts, err) : error_sys(err, -ENOMEM, "front");
	if (!rc)
		rc = serve(f, opts, err);
	else if (!opts->listen && !opts->listener)
		close(opts->listen_fd);
	if (rc) {
		front_stop(f);
		return rc;
	}
	*out = f;
	return 0;
}

int front_port(const struct front *f)
{
	return f->port;
}

int front_reload(struct front *f, struct lslm_error *err)
{
	return tenants_reload(f->tenants, err);
}

void front_quiesce(struct front *f)
{
	f->quiesced = MHD_quiesce_daemon(f->daemon);
}

uint32_t front_connections(struct front *f)
{
	return watch_count(f->watch);
}

uint32_t front_drain(struct front *f, double seconds)
{
	const struct timespec poll = { 0, FRONT_POLL_MS * 1000000 };
	const double end = clock_seconds() + seconds;
	uint32_t n;

	atomic_store(&f->draining, true);
	while ((n = answers_count(f->answers)) && clock_seconds() < end)
		nanosleep(&poll, NULL);
	return n;
}

static void wait_for(struct front *f, bool (*is_so)(struct front *f))
{
	const struct timespec poll = { 0, FRONT_POLL_MS * 1000000 };

	while (!is_so(f))
		nanosleep(&poll, NULL);
}

static bool has_no_work(struct front *f)
{
	return !atomic_load(&f->reading) && !atomic_load(&f->changing);
}

static bool has_no_answers(struct front *f)
{
	return !answers_count(f->answers);
}

/*
 * The library must not be stopped while a connection sleeps: work ends by itself, and no new one begins; answers are woken, and do
 * not sleep again. Their choices may end later than their connections.
 */
static void stop_daemon(struct front *f)
{
	int fd = f->quiesced >= 0 ? f->quiesced : MHD_quiesce_daemon(f->daemon);

	atomic_store(&f->draining, true);
	answers_stop(f->answers);
	wait_for(f, has_no_work);
	MHD_stop_daemon(f->daemon);
	wait_for(f, has_no_answers);
	if (fd >= 0)
		close(fd);
}

void front_stop(struct front *f)
{
	if (!f)
		return;
	if (f->daemon)
		stop_daemon(f);
	workers_close(f->readers);
	workers_close(f->changers);
	watch_close(f->watch);
	answers_close(f->answers);
	metrics_close(f->metrics);
	tenants_close(f->tenants);
	tls_free(&f->tls);
	for (uint32_t i = 0; i < f->n_models; i++)
		free((char *)f->models[i].name);
	free(f->models);
	free(f->model_names);
	free(f);
}
