// SPDX-License-Identifier: MIT
/* The cloud's API through the HTTP client. What fetches contexts of it: source_https_test. */
#include "cloud_rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "kv/lskv.h"
#include "net/order.h"
#include "serve/store.h"

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
	struct timeval limit = { 60, 0 };
	ssize_t n;
	char byte;
	int fd;

	opts.idle_timeout_s = 3;
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
	for (tries = 0; tries < 3000 && send_to("GET", "/health", NULL, &err) < 0; tries++)
		usleep(20000);
	assert_true(tries < 3000);
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
	};

	return cmocka_run_group_tests_name("cloud", tests, setup, teardown);
}
