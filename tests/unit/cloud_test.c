// SPDX-License-Identifier: MIT
/*
 * The cloud's API through the HTTP client, over real TLS on loopback, and a courier against it. The
 * contexts are synthetic: "publishing" a text writes one whose shape follows from the text.
 */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/lskv.h"
#include "net/courier.h"
#include "net/http_client.h"
#include "net/order.h"
#include "serve/cloud.h"
#include "serve/store.h"
#include "sink.h"
#include "synthetic.h"

#define TOKEN "correct-horse"

static const struct synthetic shape = {
	.n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 6 + 9
};

static char dir[] = "/tmp/lslm-cloud-XXXXXX";
static char store_dir[64], cacert[64], cert[64], key[64], client_cert[64], client_key[64], file[64];

static int setup(void **state)
{
	char command[128];

	if (!mkdtemp(dir))
		return -1;
	snprintf(store_dir, sizeof(store_dir), "%s/store", dir);
	snprintf(cacert, sizeof(cacert), "%s/ca.pem", dir);
	snprintf(cert, sizeof(cert), "%s/server.pem", dir);
	snprintf(key, sizeof(key), "%s/server.key", dir);
	snprintf(client_cert, sizeof(client_cert), "%s/client.pem", dir);
	snprintf(client_key, sizeof(client_key), "%s/client.key", dir);
	snprintf(file, sizeof(file), "%s/context.lskv", dir);
	snprintf(command, sizeof(command), "scripts/certs %s", dir);
	return system(command);
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* ---- a cloud and a client ---- */

static atomic_int computed, computing, computing_most;

static int publish(void *arg, const struct pubqueue_text *what, const char *path,
		   const struct pubqueue_work *work, struct kv_hash *out, struct lslm_error *err)
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

static void log_line(void *arg, const char *line)
{
	pthread_mutex_lock(&log_lock);
	strncat(log_text, line, sizeof(log_text) - strlen(log_text) - 2);
	strcat(log_text, "\n");
	pthread_mutex_unlock(&log_lock);
}

static struct cloud_opts plain_opts(void)
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

static struct http_client *client(const char *token, const char *ca)
{
	struct http_opts opts = { .cacert = ca, .token = token };
	struct lslm_error err = { 0 };
	struct http_client *h;

	assert_ok(http_open(&h, &opts, &err), &err);
	return h;
}

static void start(const struct cloud_opts *opts)
{
	struct lslm_error err = { 0 };

	log_text[0] = 0;
	assert_ok(cloud_start(&cloud, opts, &err), &err);
	http = client(TOKEN, cacert);
}

static void stop(void)
{
	char command[128];

	http_close(http);
	cloud_stop(cloud);
	snprintf(command, sizeof(command), "rm -rf %s", store_dir);
	assert_int_equal(system(command), 0);
}

static const char *url_of(const char *path)
{
	static _Thread_local char url[512]; /* clients call from many threads */

	snprintf(url, sizeof(url), "https://127.0.0.1:%d%s", cloud_port(cloud), path);
	return url;
}

struct taken {
	char *data;
	size_t size;
};

static int keep(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct taken *b = arg;

	b->data = realloc(b->data, b->size + size + 1);
	memcpy(b->data + b->size, data, size);
	b->size += size;
	b->data[b->size] = 0;
	return 0;
}

static int send_with(struct http_client *h, const char *method, const char *path, const void *data,
		     size_t size, struct taken *reply, struct lslm_error *err)
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

static int send_to(const char *method, const char *path, const char *data, struct lslm_error *err)
{
	return send_with(http, method, path, data, data ? strlen(data) : 0, NULL, err);
}

/* What the server says, or "" when it agreed. */
static const char *answer(const char *method, const char *path, const char *data)
{
	static struct lslm_error err;

	return send_to(method, path, data, &err) < 0 ? err.text : "";
}

static void assert_says(const char *got, const char *want)
{
	if (!strstr(got, want))
		fail_msg("\"%s\" does not say \"%s\"", got, want);
}

static const char *context_path(const struct kv_hash *k, const char *rest)
{
	static char path[160];
	char text[KV_HASH_TEXT];

	kv_hash_format(k, text);
	snprintf(path, sizeof(path), "/v1/contexts/%s%s", text, rest);
	return path;
}

/* Publishes and returns the key out of the reply. */
static struct kv_hash publish_text(const char *json)
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

/* ---- cases ---- */

static void cloud_start__refuses(void **state)
{
	static const struct {
		size_t field;
		const char *value, *want;
	} cases[] = {
		{ offsetof(struct cloud_opts, token), NULL, "without authentication" },
		{ offsetof(struct cloud_opts, token), "", "token is empty" },
		{ offsetof(struct cloud_opts, cert), "/nonexistent", "No such file" },
		{ offsetof(struct cloud_opts, cert), "Makefile", "PEM" },
		{ offsetof(struct cloud_opts, key), client_key, "not a certificate and its key" },
		{ offsetof(struct cloud_opts, client_ca), "Makefile", "no CA certificate" },
		{ offsetof(struct cloud_opts, listen), "8443", "HOST:PORT" },
		{ offsetof(struct cloud_opts, listen), "127.0.0.1:", "HOST:PORT" },
		{ offsetof(struct cloud_opts, listen), "127.0.0.1:65536", "HOST:PORT" },
		{ offsetof(struct cloud_opts, listen), "127.0.0.1:80x", "HOST:PORT" },
		{ offsetof(struct cloud_opts, listen), "::1:80", "HOST:PORT" },
		{ offsetof(struct cloud_opts, listen), "[::1:80", "HOST:PORT" },
		{ offsetof(struct cloud_opts, listen), "192.0.2.1:0", "cannot listen" },
		{ offsetof(struct cloud_opts, store), "Makefile", "Makefile" },
		{ offsetof(struct cloud_opts, store), "/tmp", "chmod 700" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cloud_opts opts = plain_opts();
		struct lslm_error err = { 0 };

		*(const char **)((char *)&opts + cases[i].field) = cases[i].value;
		if (cloud_start(&cloud, &opts, &err) >= 0)
			fail_msg("case %zu was accepted", i);
		assert_says(err.text, cases[i].want);
	}
}

static void cloud_start__store_in_use(void **state)
{
	struct cloud_opts opts = plain_opts();
	struct lslm_error err = { 0 };
	struct cloud *second;

	start(&opts);
	assert_int_equal(cloud_start(&second, &opts, &err), -EBUSY);
	stop();
}

static void cloud__who_may(void **state)
{
	static const char *const guarded[][2] = {
		{ "GET", "/v1/contexts" },
		{ "POST", "/v1/contexts" },
		{ "GET", "/nothing" },
		{ "DELETE", "/v1/contexts/zz" },
	};
	static const char *const tokens[] = { NULL, "correct-hors", "correct-horse1",
					      "Correct-horse" };
	struct cloud_opts opts = plain_opts();
	struct http_client *h;
	struct lslm_error err;

	start(&opts);
	for (size_t t = 0; t < ARRAY_LEN(tokens); t++) {
		h = client(tokens[t], cacert);
		for (size_t i = 0; i < ARRAY_LEN(guarded); i++) {
			assert_int_equal(send_with(h, guarded[i][0], guarded[i][1], NULL, 0, NULL,
						   &err),
					 -EACCES);
			assert_says(err.text, "401");
		}
		assert_ok(send_with(h, "GET", "/health", NULL, 0, NULL, &err), &err);
		http_close(h);
	}
	/* A CA that did not sign the server, and the system's. */
	h = client(TOKEN, client_cert);
	assert_int_equal(send_with(h, "GET", "/health", NULL, 0, NULL, &err), -EKEYREJECTED);
	assert_says(err.text, "--cacert");
	http_close(h);
	h = client(TOKEN, NULL);
	assert_int_equal(send_with(h, "GET", "/health", NULL, 0, NULL, &err), -EKEYREJECTED);
	http_close(h);
	stop();
}

static void cloud__client_certificates(void **state)
{
	struct cloud_opts opts = plain_opts();
	struct http_opts with = { .cacert = cacert, .cert = client_cert, .key = client_key };
	struct http_opts wrong = { .cacert = cacert, .cert = cert, .key = key };
	struct http_client *h;
	struct lslm_error err;

	opts.token = NULL;
	opts.client_ca = cacert;
	start(&opts);
	assert_int_equal(send_to("GET", "/v1/contexts", NULL, &err), -EACCES);
	assert_says(err.text, "certificate");
	assert_ok(send_to("GET", "/health", NULL, &err), &err);
	assert_ok(http_open(&h, &with, &err), &err);
	assert_ok(send_with(h, "GET", "/v1/contexts", NULL, 0, NULL, &err), &err);
	http_close(h);
	/* Signed by the right CA, but to be a server. */
	assert_ok(http_open(&h, &wrong, &err), &err);
	assert_int_equal(send_with(h, "GET", "/v1/contexts", NULL, 0, NULL, &err), -EACCES);
	http_close(h);
	stop();

	/* With both configured a certificate alone is not enough. */
	opts.token = TOKEN;
	start(&opts);
	assert_ok(http_open(&h, &with, &err), &err);
	assert_int_equal(send_with(h, "GET", "/v1/contexts", NULL, 0, NULL, &err), -EACCES);
	http_close(h);
	with.token = TOKEN;
	assert_ok(http_open(&h, &with, &err), &err);
	assert_ok(send_with(h, "GET", "/v1/contexts", NULL, 0, NULL, &err), &err);
	http_close(h);
	stop();
}

static void cloud__bad_requests(void **state)
{
	static const char k[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	static const struct {
		const char *method, *path, *body, *want;
	} cases[] = {
		{ "GET", "/", NULL, "404" },
		{ "GET", "/v1", NULL, "404" },
		{ "GET", "/v1/contexts/", NULL, "400" },
		{ "GET", "/v1/contexts/%2e%2e", NULL, "400" },
		{ "GET", "/v1/contexts/../../etc/passwd", NULL, "404" },
		{ "GET", "/v1/contexts/..%2f..%2fetc%2fpasswd/manifest", NULL, "400" },
		{ "DELETE", "/v1/contexts/%K", NULL, "404" },
		{ "DELETE", "/v1/contexts/%K0", NULL, "400" },
		{ "GET", "/v1/contexts/%K", NULL, "405" },
		{ "GET", "/v1/contexts/%K/manifest", NULL, "404" },
		{ "GET", "/v1/contexts/%K/blocks", NULL, "404" },
		{ "GET", "/v1/contexts/%K/else", NULL, "404" },
		{ "DELETE", "/v1/contexts", NULL, "405" },
		{ "POST", "/health", "{}", "405" },
		{ "PUT", "/v1/contexts/%K", "x", "trusts no publisher" },
		{ "POST", "/v1/contexts", "", "not JSON" },
		{ "POST", "/v1/contexts", "{", "not JSON" },
		{ "POST", "/v1/contexts", "[]", "wanted is" },
		{ "POST", "/v1/contexts", "{}", "wanted is" },
		{ "POST", "/v1/contexts", "{\"text\":5}", "wanted is" },
		{ "POST", "/v1/contexts", "{\"text\":\"\"}", "empty" },
		{ "POST", "/v1/contexts", "{\"text\":\"a\",\"text\":\"b\"}", "not JSON" },
		{ "POST", "/v1/contexts", "{\"text\":\"a\",\"txet\":\"b\"}", "wanted is" },
		{ "POST", "/v1/contexts", "{\"text\":\"a\",\"raw\":1}", "wanted is" },
		{ "POST", "/v1/contexts", "{\"text\":\"\\u0000\"}", "not JSON" },
		{ "POST", "/v1/contexts", "{\"text\":\"\xff\"}", "not JSON" },
		{ "POST", "/v1/contexts", "{\"text\":\"fail\"}", "400: the text does not fit" },
	};
	struct cloud_opts opts = plain_opts();
	char path[256], deep[4096];

	start(&opts);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *mark = strstr(cases[i].path, "%K");

		if (mark)
			snprintf(path, sizeof(path), "%.*s%s%s", (int)(mark - cases[i].path),
				 cases[i].path, k, mark + 2);
		else
			snprintf(path, sizeof(path), "%s", cases[i].path);
		print_message("# %s %s %s\n", cases[i].method, path, cases[i].body);
		assert_says(answer(cases[i].method, path, cases[i].body), cases[i].want);
	}
	memset(deep, '[', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = 0;
	assert_says(answer("POST", "/v1/contexts", deep), "not JSON");
	stop();
}

static void cloud__large_bodies(void **state)
{
	static const size_t sizes[] = { 1001, 100000, 3 << 20, 30 << 20 };
	struct cloud_opts opts = plain_opts();
	struct lslm_error err;
	char *body = malloc(30 << 20);

	opts.max_text = 1000;
	start(&opts);
	memset(body, ' ', 30 << 20);
	memcpy(body, "{\"text\":\"fits\"}", 15);
	assert_ok(send_with(http, "POST", "/v1/contexts", body, 1000, NULL, &err), &err);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		assert_true(send_with(http, "POST", "/v1/contexts", body, sizes[i], NULL, &err) <
			    0);
		assert_says(err.text, "413: the body is larger than the 1000 bytes");
	}
	assert_ok(send_with(http, "POST", "/v1/contexts", body, 1000, NULL, &err), &err);
	free(body);
	stop();
}

static void cloud__publish_list_fetch_remove(void **state)
{
	struct cloud_opts opts = plain_opts();
	struct taken got = { 0 };
	struct kv_hash k;
	struct lslm_error err;
	struct manifest *m;
	char text[KV_HASH_TEXT], path[256];
	struct stat st;

	start(&opts);
	k = publish_text("{\"text\":\"a secret\",\"raw\":true,\"title\":\"hidden name\"}");
	kv_hash_format(&k, text);
	snprintf(path, sizeof(path), "%s/%s.lskv", store_dir, text);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(store_dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);

	assert_ok(send_with(http, NULL, "/v1/contexts", NULL, 0, &got, &err), &err);
	assert_says(got.data, text);
	assert_says(got.data, "\"n_tokens\":393");
	assert_says(got.data, "\"title\":\"synthetic\"");
	free(got.data);
	got = (struct taken){ 0 };
	assert_ok(send_with(http, NULL, context_path(&k, "/manifest"), NULL, 0, &got, &err), &err);
	assert_ok(manifest_parse(&m, got.data, got.size, &err), &err);
	assert_int_equal(m->n_stripes, 6);
	manifest_free(m);
	free(got.data);

	assert_ok(send_to("DELETE", context_path(&k, ""), NULL, &err), &err);
	assert_int_equal(send_to("DELETE", context_path(&k, ""), NULL, &err), -ENOENT);
	assert_int_equal(send_to("GET", context_path(&k, "/manifest"), NULL, &err), -ENOENT);

	/* The log knows the key, and neither text nor token. */
	assert_says(log_text, text);
	assert_null(strstr(log_text, "secret"));
	assert_null(strstr(log_text, "hidden"));
	assert_null(strstr(log_text, TOKEN));
	stop();
}

static void cloud__blocks_in_any_order_from_any_place(void **state)
{
	struct cloud_opts opts = plain_opts();
	const struct kv_geometry geo = { 3, 2, 64 };
	const size_t block = kv_block_bytes(&geo, KV_LEVEL_F16);
	uint8_t *stripes = malloc(6 * kv_stripe_bytes(&geo, KV_LEVEL_F16));
	struct synthetic x = shape;
	struct lslm_error err;
	struct kv_hash k;
	char query[64];

	x.seed = 4;
	for (uint32_t s = 0; s < 6; s++)
		synthetic_stripe(&x, s, stripes + s * kv_stripe_bytes(&geo, KV_LEVEL_F16));
	start(&opts);
	k = publish_text("{\"text\":\"four\"}");
	for (uint32_t round = 0; round < 4 * 19; round++) {
		/* In both orders, to the end and a few blocks only. */
		const struct order o = { round % 4 < 2 ? ORDER_LAYER : ORDER_TAIL, 6, 3 };
		const uint32_t from = round / 4, end = round % 2 ? 18 : from + (18 - from) / 2;
		struct taken got = { 0 };
		uint32_t s, l;
		int n;

		n = snprintf(query, sizeof(query), "/blocks?level=f16&order=%s&from=%u",
			     o.kind == ORDER_TAIL ? "tail" : "layer", from);
		if (end < 18)
			snprintf(query + n, sizeof(query) - n, "&count=%u", end - from);
		assert_ok(send_with(http, NULL, context_path(&k, query), NULL, 0, &got, &err),
			  &err);
		assert_int_equal(got.size, (end - from) * block);
		for (uint32_t i = from; i < end; i++) {
			order_block(&o, i, &s, &l);
			assert_memory_equal(got.data + (i - from) * block,
					    stripes + (s * 3 + l) * block, block);
		}
		free(got.data);
	}
	assert_says(answer("GET", context_path(&k, "/blocks?from=19"), NULL), "416");
	assert_says(answer("GET", context_path(&k, "/blocks?from=99999999999999999999"), NULL),
		    "400");
	assert_says(answer("GET", context_path(&k, "/blocks?from=-1"), NULL), "400");
	assert_says(answer("GET", context_path(&k, "/blocks?from=1x"), NULL), "400");
	assert_says(answer("GET", context_path(&k, "/blocks?from=17&count=2"), NULL), "416");
	assert_says(answer("GET", context_path(&k, "/blocks?from=19&count=0"), NULL), "416");
	assert_says(answer("GET", context_path(&k, "/blocks?from=1&count=18446744073709551615"),
			   NULL),
		    "416");
	assert_says(answer("GET", context_path(&k, "/blocks?count=x"), NULL), "400");
	assert_says(answer("GET", context_path(&k, "/blocks?count=-1"), NULL), "400");
	assert_says(answer("GET", context_path(&k, "/blocks?from="), NULL), "400");
	assert_says(answer("GET", context_path(&k, "/blocks?order=head"), NULL), "400");
	assert_says(answer("GET", context_path(&k, "/blocks?level=q4"), NULL), "404");
	free(stripes);
	stop();
}

static void *publish_in_thread(void *arg)
{
	struct http_client *h = client(TOKEN, cacert);
	struct lslm_error err;
	struct taken reply = { 0 };

	if (send_with(h, "POST", "/v1/contexts", arg, strlen(arg), &reply, &err) < 0)
		reply.data = strdup(err.text);
	http_close(h);
	return reply.data;
}

/* Eight clients, two texts: two computations, never both at once. */
/* How many ask at once is pubqueue_test's; here it is that they may. */
static void cloud__publishes_for_many(void **state)
{
	static char *const texts[] = { "{\"text\":\"one\"}", "{\"text\":\"second\"}" };
	struct cloud_opts opts = plain_opts();
	char *replies[8];
	pthread_t threads[8];
	char url[1024];

	start(&opts);
	snprintf(url, sizeof(url), "%s", url_of("/v1/contexts"));
	computing_most = 0;
	for (int i = 0; i < 8; i++)
		pthread_create(&threads[i], NULL, publish_in_thread, texts[i % 2]);
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], (void **)&replies[i]);
	assert_int_equal(computing_most, 1);
	for (int i = 0; i < 8; i++) {
		assert_says(replies[i], "\"key\"");
		assert_string_equal(replies[i], replies[i % 2]);
	}
	for (int i = 0; i < 8; i++)
		free(replies[i]);
	stop();
}

static int cut_file(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	return truncate(arg, 100000);
}

/*
 * A file that ends while it is being sent, with more to come than sockets hold: the length was
 * announced, so all that is left is to break the connection.
 */
static void cloud__cannot_read_on(void **state)
{
	static const struct synthetic large = {
		.n_layer = 32, .n_head_kv = 8, .head_dim = 128, .n_tokens = 64 * 8
	};
	struct cloud_opts opts = plain_opts();
	struct http_request req = { .exact_size = HTTP_ANY_SIZE, .max_size = 1 << 30 };
	char path[256], text[KV_HASH_TEXT];
	struct lslm_error err = { 0 };
	struct kv_hash k;

	start(&opts);
	assert_ok(synthetic_write(&large, file, &k, &err), &err);
	kv_hash_format(&k, text);
	snprintf(path, sizeof(path), "%s/%s.lskv", store_dir, text);
	assert_int_equal(rename(file, path), 0);
	req.url = url_of(context_path(&k, "/blocks"));
	req.data = cut_file;
	req.arg = path;
	assert_int_equal(http_perform(http, &req, &err), -ECONNRESET);
	assert_says(answer("GET", context_path(&k, "/blocks"), NULL), "500");
	assert_says(answer("GET", "/health", NULL), "");
	stop();
}

/* ---- uploads ---- */

static int put_file(const struct kv_hash *k, struct lslm_error *err)
{
	struct http_request req = { .method = "PUT",
				    .exact_size = HTTP_ANY_SIZE,
				    .max_size = 1 << 20 };
	int fd = open(file, O_RDONLY), ret;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	req.url = url_of(context_path(k, ""));
	req.body_fd = fd;
	req.body_size = st.st_size;
	ret = http_perform(http, &req, err);
	close(fd);
	return ret;
}

static void change_byte(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t b;

	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= 1;
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	close(fd);
}

static unsigned int files_in_store(void)
{
	DIR *d = opendir(store_dir);
	struct dirent *e;
	unsigned int n = 0;

	while ((e = readdir(d)))
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	return n;
}

static void cloud__uploads(void **state)
{
	struct cloud_opts opts = plain_opts();
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct synthetic foreign = shape;
	struct lslm_error err = { 0 };
	struct kv_hash k, other = { { 7 } };
	struct stat st;
	char path[256], text[KV_HASH_TEXT];

	synthetic_pubkey(&shape, trusted[0]);
	opts.trusted = (const void *)trusted;
	opts.n_trusted = 1;
	start(&opts);

	foreign.publisher = 1;
	assert_ok(synthetic_write(&foreign, file, &k, &err), &err);
	assert_int_equal(put_file(&k, &err), -EACCES);
	assert_says(err.text, "403");

	assert_ok(synthetic_write(&shape, file, &k, &err), &err);
	assert_int_equal(put_file(&other, &err), -EPROTO);
	assert_says(err.text, "another context");
	assert_int_equal(stat(file, &st), 0);
	change_byte(file, st.st_size - 1);
	assert_int_equal(put_file(&k, &err), -EPROTO);
	assert_says(err.text, "stripe 5, layer 2");
	change_byte(file, st.st_size - 1);
	change_byte(file, 200);
	assert_true(put_file(&k, &err) < 0);
	change_byte(file, 200);
	assert_int_equal(truncate(file, st.st_size - 4096), 0);
	assert_true(put_file(&k, &err) < 0);
	assert_says(err.text, "400");
	assert_int_equal(truncate(file, 0), 0);
	assert_true(put_file(&k, &err) < 0);
	assert_int_equal(files_in_store(), 0);

	assert_ok(synthetic_write(&shape, file, &k, &err), &err);
	assert_ok(put_file(&k, &err), &err);
	assert_ok(put_file(&k, &err), &err);
	assert_int_equal(files_in_store(), 1);

	/* A damaged copy in the store does not keep a good one out. */
	kv_hash_format(&k, text);
	snprintf(path, sizeof(path), "%s/%s.lskv", store_dir, text);
	change_byte(path, st.st_size - 5);
	assert_ok(put_file(&k, &err), &err);
	assert_int_equal(files_in_store(), 1);
	stop();
}

static void cloud__upload_too_large(void **state)
{
	struct cloud_opts opts = plain_opts();
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct lslm_error err = { 0 };
	struct kv_hash k;

	synthetic_pubkey(&shape, trusted[0]);
	opts.trusted = (const void *)trusted;
	opts.n_trusted = 1;
	opts.max_upload = 4096;
	start(&opts);
	assert_ok(synthetic_write(&shape, file, &k, &err), &err);
	assert_true(put_file(&k, &err) < 0);
	assert_says(err.text, "413");
	assert_int_equal(files_in_store(), 0);
	stop();
}

/* ---- unpleasant clients ---- */

static int raw_connection(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(cloud_port(cloud)) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static void cloud__silent_clients_are_closed(void **state)
{
	struct cloud_opts opts = plain_opts();
	struct timeval limit = { 10, 0 };
	ssize_t n;
	char byte;
	int fd;

	opts.idle_timeout_s = 1;
	start(&opts);
	fd = raw_connection();
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	/* A TLS alert may come first. */
	while ((n = recv(fd, &byte, 1, 0)) > 0)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	close(fd);
	/* Our own thinking is not the client's silence. */
	publish_text("{\"text\":\"slow slow\"}");
	stop();
}

static void cloud__too_many_connections(void **state)
{
	struct cloud_opts opts = plain_opts();
	struct lslm_error err;
	int fds[3], tries;

	opts.max_connections = 3;
	start(&opts);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = raw_connection();
	assert_int_equal(send_to("GET", "/health", NULL, &err), -EAGAIN);
	assert_says(err.text, "503");
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	for (tries = 0; tries < 100 && send_to("GET", "/health", NULL, &err) < 0; tries++)
		usleep(20000);
	assert_true(tries < 100);
	stop();
}

/* What a killed predecessor left is swept at the start; other files are left alone. */
static void cloud_start__sweeps_leftovers(void **state)
{
	struct cloud_opts opts = plain_opts();
	char path[128];

	assert_int_equal(mkdir(store_dir, 0700), 0);
	snprintf(path, sizeof(path), "%s/.incoming-12.lskv", store_dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	snprintf(path, sizeof(path), "%s/README", store_dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	start(&opts);
	assert_int_equal(files_in_store(), 1);
	stop();
}

/* ---- a courier ---- */

static void courier_over_https(void **state)
{
	struct cloud_opts opts = plain_opts();
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts co = {
		.cacert = cacert, .token = TOKEN, .n_trusted = 1, .transport = COURIER_HTTPS
	};
	struct courier_stats stats;
	struct lslm_error err = { 0 };
	struct http_client *other;
	struct courier *c;
	struct kv_hash k;
	char url[512];
	int tries;

	opts.max_connections = 2;
	synthetic_pubkey(&shape, trusted[0]);
	co.trusted = (const void *)trusted;
	co.backend = BUFFER_MEMFD;
	start(&opts);
	k = publish_text("{\"text\":\"for a courier\"}");
	snprintf(url, sizeof(url), "%s", url_of(context_path(&k, "")));
	co.source = url;
	assert_ok(courier_open(&c, &co, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	courier_stats(c, &stats);
	assert_int_equal(stats.blocks_ready, 18);
	assert_string_equal(stats.path, "https");
	/* It has all it wanted, so it takes no place at the cloud any more: there are two, ours is one. */
	other = client(TOKEN, cacert);
	for (tries = 0; tries < 100; tries++) {
		if (!send_with(other, "GET", "/health", NULL, 0, NULL, &err))
			break;
		usleep(20000);
	}
	assert_true(tries < 100);
	http_close(other);
	courier_close(c);
	/* Closed in the middle, at different places. */
	for (int i = 0; i < 10; i++) {
		assert_ok(courier_open(&c, &co, &err), &err);
		assert_ok(courier_run(c, &err), &err);
		usleep(i * 200);
		courier_close(c);
	}
	stop();
}

static unsigned int blocks_requests(void)
{
	unsigned int n = 0;
	const char *at;

	pthread_mutex_lock(&log_lock);
	for (at = log_text; (at = strstr(at, "/blocks")); at++)
		n++;
	pthread_mutex_unlock(&log_lock);
	return n;
}

/* Only what is missing is asked for; a short gap is no reason for another request. */
static void source_https__asks_for_missing_runs(void **state)
{
	/* A digit per block in the order: is it wanted? Blocks of 32 KiB: gaps up to 4 are bridged. */
	static const struct {
		const char *wanted;
		uint32_t head;
		unsigned int requests, blocks;
	} cases[] = {
		{ "111111111111111111", 0, 1, 18 }, { "111110111110011111", 0, 1, 18 },
		{ "100000100000100000", 0, 3, 3 },  { "110000111110000011", 0, 2, 13 },
		{ "000000000000000000", 0, 0, 0 },  { "000000000000000001", 0, 1, 1 },
		{ "111111111111111111", 2, 1, 12 }, { "111111000000000001", 1, 1, 6 },
	};
	struct cloud_opts opts = plain_opts();
	struct courier_opts co = { .cacert = cacert, .token = TOKEN };
	struct synthetic x = shape;
	struct lslm_error err = { 0 };
	char url[512], path[256], text[KV_HASH_TEXT];
	struct source *s;
	struct sink sink;
	struct kv_hash k;
	struct lskv *f;

	start(&opts);
	x.seed = 4;
	k = publish_text("{\"text\":\"four\"}");
	kv_hash_format(&k, text);
	snprintf(path, sizeof(path), "%s/%s.lskv", store_dir, text);
	snprintf(url, sizeof(url), "%s", url_of(context_path(&k, "")));
	co.source = url;
	assert_ok(lskv_open(&f, path, &err), &err);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		unsigned int before = blocks_requests(), tries;

		assert_ok(source_https_open(&s, &co, &err), &err);
		sink_make(&sink, lskv_manifest(f), ORDER_TAIL);
		for (uint32_t b = 0; b < 18; b++)
			if (cases[i].wanted[b] == '0')
				sink_preload(&sink, b);
		sink.head = cases[i].head;
		assert_ok(s->ops->receive(s, &sink, &err), &err);
		assert_true(sink_is_done(&sink));
		assert_int_equal(sink.received, cases[i].blocks * sink_block_bytes(&sink));
		assert_int_equal(control_tail(sink.control) <= cases[i].head, 1);
		sink_check(&sink, &x);
		sink_free(&sink);
		s->ops->close(s);
		/* A line is logged when its reply has gone, which may be after we have it. */
		for (tries = 0; blocks_requests() < before + cases[i].requests && tries < 500;
		     tries++)
			usleep(10000);
		assert_int_equal(blocks_requests() - before, cases[i].requests);
	}
	lskv_close(f);
	stop();
}

static void courier_open__urls(void **state)
{
	static const struct {
		const char *url, *want;
	} cases[] = {
		{ "http://localhost/v1/contexts/KEY", "https:// only" },
		{ "file:///etc/passwd", "https:// only" },
		{ "https://", "not a URL" },
		{ "https://localhost/", "not the URL of a context" },
		{ "https://localhost/v1/contexts/", "not the URL of a context" },
		{ "https://localhost/v1/contexts/KEY/manifest", "not the URL of a context" },
		{ "https://localhost/v1/contexts/KEY?x=1", "not the URL of a context" },
		{ "https://me:secret@localhost/v1/contexts/KEY", "--token-file" },
		{ "https://localhost:1/v1/contexts/KEY", "is the server running" },
		{ "https://no-such-host.invalid/v1/contexts/KEY", "check the name" },
	};
	static const char k[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES] = { { 0 } };
	struct courier_opts co = { .n_trusted = 1, .trusted = (const void *)trusted };
	struct lslm_error err;
	struct courier *c;
	char url[256];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *mark = strstr(cases[i].url, "KEY");
		int n = mark ? (int)(mark - cases[i].url) : (int)strlen(cases[i].url);

		snprintf(url, sizeof(url), "%.*s%s%s", n, cases[i].url, mark ? k : "",
			 mark ? mark + 3 : "");
		co.source = url;
		memset(&err, 0, sizeof(err));
		assert_true(courier_open(&c, &co, &err) < 0);
		assert_says(err.text, cases[i].want);
		assert_null(strstr(err.text, "secret"));
	}
	/* A token that would break out of its header. */
	snprintf(url, sizeof(url), "https://localhost/v1/contexts/%s", k);
	co.source = url;
	co.token = "a\r\nX: y";
	assert_int_equal(courier_open(&c, &co, &err), -EINVAL);
	co.token = NULL;
	co.cacert = "/nonexistent.pem";
	assert_int_equal(courier_open(&c, &co, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cloud_start__refuses),
		cmocka_unit_test(cloud_start__store_in_use),
		cmocka_unit_test(cloud_start__sweeps_leftovers),
		cmocka_unit_test(cloud__who_may),
		cmocka_unit_test(cloud__client_certificates),
		cmocka_unit_test(cloud__bad_requests),
		cmocka_unit_test(cloud__large_bodies),
		cmocka_unit_test(cloud__publish_list_fetch_remove),
		cmocka_unit_test(cloud__blocks_in_any_order_from_any_place),
		cmocka_unit_test(cloud__publishes_for_many),
		cmocka_unit_test(cloud__cannot_read_on),
		cmocka_unit_test(cloud__uploads),
		cmocka_unit_test(cloud__upload_too_large),
		cmocka_unit_test(cloud__silent_clients_are_closed),
		cmocka_unit_test(cloud__too_many_connections),
		cmocka_unit_test(courier_over_https),
		cmocka_unit_test(courier_open__urls),
		cmocka_unit_test(source_https__asks_for_missing_runs),
	};

	return cmocka_run_group_tests_name("cloud", tests, setup, teardown);
}
