// SPDX-License-Identifier: MIT
#include "net/http_client.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/sites.h"

enum {
	HTTP_CONNECT_MS = 5000,
	HTTP_STALL_MS = 10000,
	HTTP_TICK_MS = 250, /* how often clocks and *stop are looked at */
	HTTP_AWAY_MS = 1000, /* silence that ends a reply of a site that is away for others */
	HTTP_MAX_HEADER = 64 << 10, /* bytes of all header lines of a reply */
	HTTP_MAX_MESSAGE = 4 << 10, /* bytes kept of an error's body */
};

struct http_client {
	CURLM *multi; /* owns the connection that is kept */
	CURL *easy;
	struct curl_slist *auth;
	int connect_ms;
	int stall_ms;
	const atomic_bool *stop;
	struct site *site;
	char detail[CURL_ERROR_SIZE];
};

/* One request on its way. */
struct transfer {
	struct http_client *h;
	const struct http_request *req;
	struct lslm_error *err;
	int64_t began; /* monotonic ms */
	int64_t heard; /* monotonic ms of the last sign of life; 0 while not connected */
	bool answering; /* the reply has begun */
	size_t header_bytes;
	uint64_t taken; /* bytes of the reply's body */
	uint64_t sent; /* of body_fd */
	int code; /* our own reason to end it */
	char message[HTTP_MAX_MESSAGE + 1]; /* body of an error reply */
	size_t message_size;
};

static int64_t now_ms(void)
{
	return (int64_t)(clock_ns() / 1000000);
}

char *http_printable(const char *source)
{
	const char *host = strstr(source, "://"), *end, *at;
	char *name = strdup(source);

	if (!host || !name)
		return name;
	host += 3;
	end = host + strcspn(host, "/?#");
	at = memrchr(host, '@', end - host);
	if (at)
		memmove(name + (host - source), at + 1, strlen(at + 1) + 1);
	return name;
}

bool http_is_transient(int code)
{
	return code == -EHOSTUNREACH || code == -ECONNREFUSED || code == -EHOSTDOWN ||
	       code == -ECONNRESET || code == -EAGAIN;
}

/* ---- callbacks ---- */

static long status_of(const struct transfer *t)
{
	long status = 0;

	curl_easy_getinfo(t->h->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static bool is_success(long status)
{
	return status >= 200 && status < 300;
}

/* The header is complete: does the server announce what was asked for? */
static int check_announced(struct transfer *t)
{
	const struct http_request *req = t->req;
	curl_off_t announced = -1;

	curl_easy_getinfo(t->h->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
	if (req->exact_size != HTTP_ANY_SIZE && announced < 0)
		return error_set(
			t->err, -EMSGSIZE,
			"the server does not say how much it will send (%llu bytes wanted)",
			(unsigned long long)req->exact_size);
	if (req->exact_size != HTTP_ANY_SIZE && (uint64_t)announced != req->exact_size)
		return error_set(t->err, -EMSGSIZE,
				 "the server wants to send %lld bytes where %llu belong",
				 (long long)announced, (unsigned long long)req->exact_size);
	if (announced > 0 && (uint64_t)announced > req->max_size)
		return error_set(t->err, -EMSGSIZE,
				 "the server wants to send %lld bytes; at most %llu are accepted",
				 (long long)announced, (unsigned long long)req->max_size);
	return 0;
}

static size_t on_header(char *line, size_t one, size_t n, void *arg)
{
	struct transfer *t = arg;

	t->heard = now_ms();
	t->header_bytes += n;
	if (t->header_bytes > HTTP_MAX_HEADER)
		t->code = error_set(t->err, -EPROTO, "the server's reply header is too long");
	else if ((n == 2 && !memcmp(line, "\r\n", 2)) || (n == 1 && *line == '\n')) {
		/* A 1xx header announces nothing. */
		t->answering = status_of(t) >= 200;
		if (t->answering && status_of(t) < 500)
			site_answered(t->h->site);
		if (is_success(status_of(t)))
			t->code = check_announced(t);
	}
	return t->code < 0 ? 0 : n;
}

static size_t on_data(char *data, size_t one, size_t n, void *arg)
{
	struct transfer *t = arg;
	size_t room = HTTP_MAX_MESSAGE - t->message_size;

	t->heard = now_ms();
	if (!is_success(status_of(t))) {
		room = n < room ? n : room;
		memcpy(t->message + t->message_size, data, room);
		t->message_size += room;
		/* An error is told in a few lines; whoever sends more is not listened to. */
		return t->message_size < HTTP_MAX_MESSAGE ? n : 0;
	}
	t->taken += n;
	if (t->taken > t->req->max_size)
		t->code = error_set(t->err, -EMSGSIZE,
				    "the server sends more than the %llu bytes accepted",
				    (unsigned long long)t->req->max_size);
	else if (t->req->data)
		t->code = t->req->data(t->req->arg, (const uint8_t *)data, n, t->err);
	return t->code < 0 ? 0 : n;
}

static size_t on_upload(char *buf, size_t one, size_t n, void *arg)
{
	struct transfer *t = arg;
	ssize_t got;

	t->heard = now_ms();
	got = pread(t->req->body_fd, buf, n, t->sent);
	if (got < 0) {
		t->code = error_sys(t->err, -errno, "cannot read what is to be sent");
		return CURL_READFUNC_ABORT;
	}
	t->sent += got;
	return got;
}

/* curl rewinds when it has to send a body again on a fresh connection. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct transfer *t = arg;

	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	t->sent = offset;
	return CURL_SEEKFUNC_OK;
}

static int on_connected(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct transfer *t = arg;

	t->heard = now_ms();
	return CURL_PREREQFUNC_OK;
}

static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return CURL_SOCKOPT_OK;
}

/* ---- what went wrong ---- */

static int explain_status(struct transfer *t, long status)
{
	const char *message = NULL, *type = "";
	json_t *root;
	int code;

	root = json_loadb(t->message, t->message_size, 0, NULL);
	if (json_unpack(root, "{s:{s:s, s?s}}", "error", "message", &message, "type", &type) < 0)
		message = "no further explanation";
	if (status == 401 || status == 403)
		code = -EACCES;
	else if (status == 404)
		code = strcmp(type, "switched_off") ? -ENOENT : -EOPNOTSUPP;
	else if (status == 429 || status == 503)
		code = -EAGAIN;
	else
		code = status >= 500 ? -EREMOTEIO : -EPROTO;
	error_set(t->err, code, "the server answered %ld: %s", status, message);
	json_decref(root);
	return code;
}

/* curl's own line does not tell these apart. */
static int explain_certificate(struct transfer *t, const char *detail)
{
	long found = 0;

	curl_easy_getinfo(t->h->easy, CURLINFO_SSL_VERIFYRESULT, &found);
	if (found & GNUTLS_CERT_EXPIRED)
		return error_set(t->err, -EKEYREJECTED,
				 "the server's certificate has expired; renew it there, or set "
				 "this machine's clock if that is wrong");
	if (found & GNUTLS_CERT_NOT_ACTIVATED)
		return error_set(t->err, -EKEYREJECTED,
				 "the server's certificate is not valid yet; set this machine's "
				 "clock, or the server's before it makes certificates");
	return error_set(
		t->err, -EKEYREJECTED,
		"the server's certificate is not trusted (%s); name the CA that signed it with --cacert",
		detail);
}

static int explain_tls(struct transfer *t, CURLcode result)
{
	const char *detail = *t->h->detail ? t->h->detail : curl_easy_strerror(result);

	switch (result) {
	case CURLE_PEER_FAILED_VERIFICATION:
		return explain_certificate(t, detail);
	case CURLE_SSL_CACERT_BADFILE:
		return error_set(t->err, -EKEYREJECTED, "the CA file cannot be used (%s)", detail);
	case CURLE_SSL_CERTPROBLEM:
		return error_set(t->err, -EKEYREJECTED,
				 "the client certificate cannot be used (%s)", detail);
	default:
		return error_set(t->err, -ECONNRESET,
				 "the TLS handshake failed (%s); is this an HTTPS server?", detail);
	}
}

static int explain(struct transfer *t, CURLcode result)
{
	const char *detail = *t->h->detail ? t->h->detail : curl_easy_strerror(result);

	switch (result) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return error_set(t->err, -EHOSTUNREACH, "%s; check the name and the resolver",
				 detail);
	case CURLE_COULDNT_CONNECT:
		return error_set(t->err, -ECONNREFUSED, "%s; is the server running?", detail);
	case CURLE_OPERATION_TIMEDOUT:
		return error_set(t->err, -EHOSTDOWN,
				 "no connection within %d ms; is the server reachable?",
				 t->h->connect_ms);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CONNECT_ERROR:
		return explain_tls(t, result);
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return error_set(t->err, -ECONNRESET,
				 "the connection broke after %llu bytes of the reply",
				 (unsigned long long)t->taken);
	case CURLE_UNSUPPORTED_PROTOCOL:
		/* Also what curl calls a reply that is no HTTP. */
		if (t->heard)
			return error_set(t->err, -EPROTO, "the reply makes no sense (%s)", detail);
		/* fall through */
	case CURLE_URL_MALFORMAT:
		return error_set(t->err, -EINVAL, "this is no https:// URL that can be used (%s)",
				 detail);
	case CURLE_OUT_OF_MEMORY:
		return error_sys(t->err, -ENOMEM, "HTTPS");
	default:
		return error_set(t->err, -EPROTO, "the reply makes no sense (%s)", detail);
	}
}

/* ---- requests ---- */

static void set_body(struct transfer *t, const struct http_request *req)
{
	CURL *e = t->h->easy;

	if (req->body) {
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, req->body);
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body_size);
	} else if (req->body_size) {
		curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(e, CURLOPT_READFUNCTION, on_upload);
		curl_easy_setopt(e, CURLOPT_READDATA, t);
		curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(e, CURLOPT_SEEKDATA, t);
		curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body_size);
	} else {
		curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method);
}

static struct curl_slist *headers(const struct http_client *h, const struct http_request *req)
{
	struct curl_slist *list = NULL, *more;
	char line[128];

	if (h->auth)
		list = curl_slist_append(NULL, h->auth->data);
	if (req->content_type) {
		snprintf(line, sizeof(line), "Content-Type: %s", req->content_type);
		more = curl_slist_append(list, line);
		list = more ? more : list;
	}
	return list;
}

static bool stopped(const struct transfer *t)
{
	return (t->req->stop && atomic_load(t->req->stop)) ||
	       (t->h->stop && atomic_load(t->h->stop));
}

/* Others have found that nobody is there, and this request has heard nothing since. */
static bool is_away(const struct transfer *t)
{
	const int64_t since = (int64_t)(site_away_since(t->h->site) * 1000);

	if (!since)
		return false;
	return t->heard ? t->heard < since && now_ms() - t->heard >= HTTP_AWAY_MS :
			  t->began <= since;
}

static int check_clocks(struct transfer *t)
{
	int limit = !t->answering && t->req->reply_timeout_ms ? t->req->reply_timeout_ms :
								t->h->stall_ms;

	if (stopped(t))
		return error_set(t->err, -ECANCELED, "stopped");
	if (is_away(t))
		return site_may_ask(t->h->site, t->err);
	if (t->heard && now_ms() - t->heard >= limit)
		return error_set(t->err, -ETIMEDOUT, "the server is connected but silent for %d ms",
				 limit);
	return 0;
}

/* Until curl is done, or a clock or the caller ends it. */
static int drive(struct transfer *t, CURLcode *result)
{
	CURLM *multi = t->h->multi;
	int running, left, ret;
	CURLMcode mc;
	CURLMsg *msg;

	for (;;) {
		mc = curl_multi_perform(multi, &running);
		if (mc != CURLM_OK)
			return error_set(t->err, -EIO, "HTTPS: %s", curl_multi_strerror(mc));
		if (!running)
			break;
		ret = check_clocks(t);
		if (ret < 0)
			return ret;
		curl_multi_poll(multi, NULL, 0, HTTP_TICK_MS, NULL);
	}
	while ((msg = curl_multi_info_read(multi, &left)))
		if (msg->msg == CURLMSG_DONE)
			*result = msg->data.result;
	return 0;
}

static int perform(struct transfer *t)
{
	const struct http_request *req = t->req;
	struct http_client *h = t->h;
	struct curl_slist *list = headers(h, req);
	CURLcode result = CURLE_OK;
	CURL *e = h->easy;
	int ret;

	*h->detail = 0;
	curl_easy_setopt(e, CURLOPT_URL, req->url);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(e, CURLOPT_FORBID_REUSE, (long)req->last);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(e, CURLOPT_PREREQDATA, t);
	set_body(t, req);
	curl_multi_add_handle(h->multi, e);
	ret = drive(t, &result);
	curl_multi_remove_handle(h->multi, e);
	/* None of these outlives the call. */
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, NULL);
	curl_easy_setopt(e, CURLOPT_POSTFIELDS, NULL);
	curl_slist_free_all(list);
	if (ret < 0)
		return ret;
	if (t->code < 0)
		return t->code;
	if (result != CURLE_OK && t->message_size < HTTP_MAX_MESSAGE)
		return explain(t, result);
	return is_success(status_of(t)) ? 0 : explain_status(t, status_of(t));
}

/* Is it the server's, or the way's, that nothing came of it? Not what whoever took the reply made of it, nor a no. */
static bool is_failure(const struct transfer *t, int ret)
{
	if (t->code < 0 || ret == -ENETDOWN)
		return false;
	return ret == -EREMOTEIO || (http_is_outage(ret) && status_of(t) != 429);
}

int http_perform(struct http_client *h, const struct http_request *req, struct lslm_error *err)
{
	struct lslm_error why = { 0 };
	struct transfer t = { .h = h, .req = req, .err = err ? err : &why, .began = now_ms() };
	int ret = site_may_ask(h->site, err);

	if (ret)
		return ret;
	ret = perform(&t);
	if (is_failure(&t, ret))
		site_failed(h->site, t.err);
	return ret;
}

struct memory {
	uint8_t *data;
	size_t size;
	size_t room;
};

/* Grows with what has arrived, never by what was announced. */
static int collect(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct memory *m = arg;
	size_t room = m->room;
	uint8_t *more;

	while (room < m->size + size + 1)
		room = room ? room * 2 : 16384;
	if (room != m->room) {
		more = realloc(m->data, room);
		if (!more)
			return error_sys(err, -ENOMEM, "the reply");
		m->data = more;
		m->room = room;
	}
	if (size)
		memcpy(m->data + m->size, data, size);
	m->size += size;
	m->data[m->size] = 0;
	return 0;
}

int http_get(struct http_client *h, const char *url, uint64_t max_size, uint8_t **data,
	     size_t *size, struct lslm_error *err)
{
	struct memory m = { 0 };
	struct http_request req = {
		.url = url,
		.exact_size = HTTP_ANY_SIZE,
		.max_size = max_size,
		.data = collect,
		.arg = &m,
	};
	int ret;

	/* An empty reply is a string too. */
	ret = collect(&m, (const uint8_t *)"", 0, err);
	if (!ret)
		ret = http_perform(h, &req, err);
	if (ret < 0) {
		free(m.data);
		return ret;
	}
	*data = m.data;
	*size = m.size;
	return 0;
}

int http_address(const struct http_client *h, char out[HTTP_ADDRESS_BYTES])
{
	char *ip = NULL;

	if (curl_easy_getinfo(h->easy, CURLINFO_PRIMARY_IP, &ip) != CURLE_OK || !ip || !*ip ||
	    strlen(ip) >= HTTP_ADDRESS_BYTES)
		return -ENOTCONN;
	strcpy(out, ip);
	return 0;
}

void http_sleep(struct http_client *h, int ms)
{
	curl_multi_poll(h->multi, NULL, 0, ms, NULL);
}

void http_wake(struct http_client *h)
{
	curl_multi_wakeup(h->multi);
}

/* ---- open and close ---- */

static int check_file(const char *path, const char *what, struct lslm_error *err)
{
	if (path && access(path, R_OK) < 0)
		return error_sys(err, -errno, "%s: cannot read the %s", path, what);
	return 0;
}

static void forget_token(struct http_client *h)
{
	if (h->auth)
		explicit_bzero(h->auth->data, strlen(h->auth->data));
	curl_slist_free_all(h->auth);
	h->auth = NULL;
}

int http_set_token(struct http_client *h, const char *token, struct lslm_error *err)
{
	char *line = NULL;
	const char *p;

	forget_token(h);
	if (!token)
		return 0;
	for (p = token; *p; p++)
		if (*p <= ' ' || *p > '~')
			return error_set(
				err, -EINVAL,
				"the token holds a blank or a control character; it must be one line of printable ASCII");
	if (asprintf(&line, "Authorization: Bearer %s", token) < 0)
		return error_sys(err, -ENOMEM, "HTTPS");
	h->auth = curl_slist_append(NULL, line);
	explicit_bzero(line, strlen(line));
	free(line);
	return h->auth ? 0 : error_sys(err, -ENOMEM, "HTTPS");
}

static void set_fixed_options(struct http_client *h, const struct http_opts *o)
{
	CURL *e = h->easy;

	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	/* What cloud and courier speak; over one connection nothing is gained by HTTP/2. */
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "lslm/" LSLM_VERSION);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, h->detail);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)h->connect_ms);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256L << 10);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, on_socket);
	curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);

	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (o->cacert) {
		curl_easy_setopt(e, CURLOPT_CAINFO, o->cacert);
		/* Otherwise the system's CAs would be trusted besides the one named. */
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	}
	curl_easy_setopt(e, CURLOPT_SSLCERT, o->cert);
	curl_easy_setopt(e, CURLOPT_SSLKEY, o->key);
}

static void init_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

int http_open(struct http_client **out, const struct http_opts *opts, struct lslm_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct http_client *h;
	int ret;

	pthread_once(&once, init_curl);
	h = calloc(1, sizeof(*h));
	if (!h)
		return error_sys(err, -ENOMEM, "HTTPS");
	h->connect_ms = opts->connect_timeout_ms ? opts->connect_timeout_ms : HTTP_CONNECT_MS;
	h->stall_ms = opts->stall_timeout_ms ? opts->stall_timeout_ms : HTTP_STALL_MS;
	h->stop = opts->stop;
	h->site = opts->site;
	h->multi = curl_multi_init();
	h->easy = curl_easy_init();
	ret = h->multi && h->easy ? 0 : error_sys(err, -ENOMEM, "HTTPS");
	if (!ret)
		ret = check_file(opts->cacert, "CA file", err);
	if (!ret)
		ret = check_file(opts->cert, "client certificate", err);
	if (!ret)
		ret = check_file(opts->key, "client key", err);
	if (!ret)
		ret = http_set_token(h, opts->token, err);
	if (ret < 0) {
		http_close(h);
		return ret;
	}
	set_fixed_options(h, opts);
	*out = h;
	return 0;
}

void http_close(struct http_client *h)
{
	if (!h)
		return;
	curl_easy_cleanup(h->easy);
	curl_multi_cleanup(h->multi);
	forget_token(h);
	free(h);
}

bool http_is_outage(int code)
{
	return http_is_transient(code) || code == -ETIMEDOUT || code == -EKEYREJECTED ||
	       code == -ENETDOWN;
}
