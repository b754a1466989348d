/* SPDX-License-Identifier: MIT */
/*
 * What the tests against a cloud share: one over real TLS on loopback, with an HTTP client. The contexts
 * are synthetic: "publishing" a text writes one whose shape follows from the text.
 */
#ifndef LSLM_TESTS_CLOUD_RIG_H
#define LSLM_TESTS_CLOUD_RIG_H

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "net/http_client.h"
#include "serve/cloud.h"
#include "synthetic.h"
#include "unit/tls_dir.h"

static const struct synthetic shape = {
	.n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 6 + 9
};

static char store_dir[64], file[64];

static inline int setup(void **state)
{
	if (tls_dir_make())
		return -1;
	snprintf(store_dir, sizeof(store_dir), "%s/store", dir);
	snprintf(file, sizeof(file), "%s/context.lskv", dir);
	return 0;
}

static inline int teardown(void **state)
{
	return tls_dir_remove();
}

/* ---- a cloud and a client ---- */

static atomic_int computed, computing, computing_most;

static inline int publish(void *arg, const struct pubqueue_text *what, const char *path,
			  const struct pubqueue_work *work, struct kv_hash *out,
			  struct lslm_error *err)
{
	const char *text = what->text;
	struct synthetic x = shape;
	int now = atomic_fetch_add(&computing, 1) + 1;
	int ret;

	if (now > computing_most)
		computing_most = now;
	if (!strncmp(text, "slow", 4))
		usleep(300000);
	if (!strncmp(text, "fail", 4)) {
		ret = error_set(err, -E2BIG, "the text does not fit");
	} else {
		x.seed = (uint8_t)what->len;
		ret = synthetic_write(&x, path, out, err);
	}
	atomic_fetch_add(&computed, 1);
	atomic_fetch_sub(&computing, 1);
	return ret;
}

static struct cloud *cloud;
static struct http_client *http;
static char log_text[16384];
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static inline void log_line(void *arg, const char *line)
{
	size_t n;

	pthread_mutex_lock(&log_lock);
	n = strlen(log_text);
	snprintf(log_text + n, sizeof(log_text) - n, "%s\n", line);
	pthread_mutex_unlock(&log_lock);
}

static inline struct cloud_opts plain_opts(void)
{
	return (struct cloud_opts){
		.listen = "127.0.0.1:0",
		.cert = cert,
		.key = key,
		.token = TOKEN,
		.store = store_dir,
		.publish = publish,
		.log = log_line,
	};
}

static inline struct http_client *client(const char *token, const char *ca)
{
	struct http_opts opts = { .cacert = ca, .token = token };
	struct lslm_error err = { 0 };
	struct http_client *h;

	assert_ok(http_open(&h, &opts, &err), &err);
	return h;
}

static inline void start(const struct cloud_opts *opts)
{
	struct lslm_error err = { 0 };

	log_text[0] = 0;
	assert_ok(cloud_start(&cloud, opts, &err), &err);
	http = client(TOKEN, cacert);
}

static inline void stop(void)
{
	http_close(http);
	cloud_stop(cloud);
	assert_int_equal(remove_tree(store_dir), 0);
}

static inline const char *url_of(const char *path)
{
	static _Thread_local char url[512]; /* clients call from many threads */

	snprintf(url, sizeof(url), "https://127.0.0.1:%d%s", cloud_port(cloud), path);
	return url;
}

struct taken {
	char *data;
	size_t size;
};

static inline int keep(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct taken *b = arg;

	b->data = realloc(b->data, b->size + size + 1);
	memcpy(b->data + b->size, data, size);
	b->size += size;
	b->data[b->size] = 0;
	return 0;
}

static inline int send_with(struct http_client *h, const char *method, const char *path,
			    const void *data, size_t size, struct taken *reply,
			    struct lslm_error *err)
{
	struct http_request req = {
		.method = method,
		.url = url_of(path),
		.body = data,
		.body_size = size,
		.exact_size = HTTP_ANY_SIZE,
		.max_size = 1 << 30,
		.data = reply ? keep : NULL,
		.arg = reply,
	};

	memset(err, 0, sizeof(*err));
	return http_perform(h, &req, err);
}

static inline int send_to(const char *method, const char *path, const char *data,
			  struct lslm_error *err)
{
	return send_with(http, method, path, data, data ? strlen(data) : 0, NULL, err);
}

/* What the server says, or "" when it agreed. */
static inline const char *answer(const char *method, const char *path, const char *data)
{
	static struct lslm_error err;

	return send_to(method, path, data, &err) < 0 ? err.text : "";
}

static inline void assert_says(const char *got, const char *want)
{
	if (!strstr(got, want))
		fail_msg("\"%s\" does not say \"%s\"", got, want);
}

static inline const char *context_path(const struct kv_hash *k, const char *rest)
{
	static char path[160];
	char text[KV_HASH_TEXT];

	kv_hash_format(k, text);
	snprintf(path, sizeof(path), "/v1/contexts/%s%s", text, rest);
	return path;
}

/* Publishes and returns the key out of the reply. */
static inline struct kv_hash publish_text(const char *json)
{
	struct lslm_error err;
	struct taken reply = { 0 };
	struct kv_hash k;
	char *at;

	assert_ok(send_with(http, "POST", "/v1/contexts", json, strlen(json), &reply, &err), &err);
	at = strstr(reply.data, "\"key\":\"");
	assert_non_null(at);
	at[7 + 64] = 0;
	assert_int_equal(kv_hash_parse(&k, at + 7), 0);
	free(reply.data);
	return k;
}

#endif
