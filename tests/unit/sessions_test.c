// SPDX-License-Identifier: MIT
/*
 * The grant of placement sessions over HTTPS, and a context that arrives by what was granted. The edge
 * is tests/placement.h's; requests are libcurl's own, because statuses and headers are what is tested.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <jansson.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "base/hex.h"
#include "placement.h"
#include "serve/cloud.h"
#include "synthetic.h"
#include "tls_dir.h"

enum { EDGE = 0x89abcdef, PATIENCE_S = 60 };

static const struct synthetic shape = {
	.n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 20
};

static char store_dir[64];
static char context[KV_HASH_TEXT], second[KV_HASH_TEXT];
static char log_text[16384];

static int setup(void **state)
{
	if (tls_dir_make() || curl_global_init(CURL_GLOBAL_DEFAULT))
		return -1;
	snprintf(store_dir, sizeof(store_dir), "%s/store", dir);
	return 0;
}

static int teardown(void **state)
{
	curl_global_cleanup();
	return tls_dir_remove();
}

/* ---- a cloud with two contexts ---- */

static struct cloud *cloud;

/* One thread asks here, and its request is done when the line comes. */
static void log_line(void *arg, const char *line)
{
	strncat(log_text, line, sizeof(log_text) - strlen(log_text) - 1);
}

static void put_context(uint8_t seed, char text[KV_HASH_TEXT])
{
	struct synthetic x = shape;
	struct lslm_error err = { 0 };

	x.seed = seed;
	assert_ok(synthetic_put(&x, store_dir, text, &err), &err);
}

static struct cloud_opts plain_opts(void)
{
	return (struct cloud_opts){
		.listen = "127.0.0.1:0",
		.cert = cert,
		.key = key,
		.token = TOKEN,
		.store = store_dir,
		.log = log_line,
	};
}

static void start(const struct cloud_opts *opts)
{
	struct lslm_error err = { 0 };
	int tries = 0;

	/* The number that HTTPS was given may be taken in UDP. */
	do {
		log_text[0] = 0;
		assert_ok(cloud_start(&cloud, opts, &err), &err);
		if (opts->udp_port || cloud_udp_port(cloud, &err) >= 0)
			break;
		cloud_stop(cloud);
	} while (++tries < 10);
	assert_true(tries < 10);
	put_context(0, context);
	put_context(1, second);
}

static void stop(void)
{
	cloud_stop(cloud);
	assert_int_equal(remove_tree(store_dir), 0);
}

/* ---- requests ---- */

struct reply {
	long status;
	long retry_after; /* -1: not said */
	char text[4096];
};

static size_t keep_text(char *data, size_t size, size_t n, void *arg)
{
	strncat(arg, data, size * n);
	return size * n;
}

static size_t keep_header(char *data, size_t size, size_t n, void *arg)
{
	sscanf(data, "Retry-After: %ld", (long *)arg);
	return size * n;
}

static struct reply ask_as(const char *method, const char *path, const char *body,
			   const char *token, const char *with_cert)
{
	struct reply r = { .retry_after = -1 };
	struct curl_slist *headers = NULL;
	CURL *c = curl_easy_init();
	char url[512], line[128];

	snprintf(url, sizeof(url), "https://127.0.0.1:%d%s", cloud_port(cloud), path);
	snprintf(line, sizeof(line), "Authorization: Bearer %s", token ? token : "");
	if (token)
		headers = curl_slist_append(headers, line);
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c, CURLOPT_CAINFO, cacert);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	if (with_cert) {
		curl_easy_setopt(c, CURLOPT_SSLCERT, with_cert);
		snprintf(line, sizeof(line), "%.*s.key", (int)strlen(with_cert) - 4, with_cert);
		curl_easy_setopt(c, CURLOPT_SSLKEY, line);
	}
	if (!strcmp(method, "POST"))
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, body ? body : "");
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, keep_text);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, r.text);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, keep_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, &r.retry_after);
	assert_int_equal(curl_easy_perform(c), CURLE_OK);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &r.status);
	curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	return r;
}

static struct reply ask(const char *method, const char *path, const char *body)
{
	return ask_as(method, path, body, TOKEN, NULL);
}

static const char *wish(const char *of, unsigned int number)
{
	static char body[256];

	snprintf(body, sizeof(body), "{\"context\":\"%s\",\"session\":%u}", of, number);
	return body;
}

struct grant {
	unsigned int session;
	char id[128];
	int port, key, lifetime_s;
	uint8_t to_edge[LSLM_WIRE_KEY_BYTES], to_cloud[LSLM_WIRE_KEY_BYTES];
	uint64_t max_packets;
};

/* The reply has these members and no others. */
static struct grant parse(const struct reply *r)
{
	const char *id, *to_edge, *to_cloud;
	json_int_t session, max_packets;
	json_error_t where;
	struct grant g;
	json_t *root;

	assert_int_equal(r->status, 201);
	root = json_loads(r->text, 0, &where);
	assert_non_null(root);
	if (json_unpack_ex(root, &where, JSON_STRICT, "{s:I, s:s, s:i, s:i, s:s, s:s, s:I, s:i}",
			   "session", &session, "id", &id, "port", &g.port, "key", &g.key,
			   "to_edge", &to_edge, "to_cloud", &to_cloud, "max_packets", &max_packets,
			   "lifetime_s", &g.lifetime_s) < 0)
		fail_msg("%s: %s", r->text, where.text);
	g.session = (unsigned int)session;
	g.max_packets = (uint64_t)max_packets;
	snprintf(g.id, sizeof(g.id), "%s", id);
	assert_int_equal(hex_parse(g.to_edge, 32, to_edge, strlen(to_edge)), 0);
	assert_int_equal(hex_parse(g.to_cloud, 32, to_cloud, strlen(to_cloud)), 0);
	json_decref(root);
	return g;
}

static const char *session_path(const struct grant *g, const char *rest)
{
	static char path[256];

	snprintf(path, sizeof(path), "/v1/sessions/%s%s", g->id, rest);
	return path;
}

/* ---- cases ---- */

static void sessions__who_and_what(void **state)
{
	static const struct {
		const char *method, *path, *body;
		int status;
		const char *want;
	} cases[] = {
		{ "POST", "/v1/sessions", "", 400, "not JSON" },
		{ "POST", "/v1/sessions", "[]", 400, "wanted is" },
		{ "POST", "/v1/sessions", "{}", 400, "wanted is" },
		{ "POST", "/v1/sessions", "{\"context\":5,\"session\":1}", 400, "wanted is" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K\"}", 400, "wanted is" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K\",\"session\":\"1\"}", 400, "wanted" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K\",\"session\":1.5}", 400, "wanted" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K\",\"session\":1,\"x\":1}", 400,
		  "wanted is" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K\",\"session\":0}", 400, "2^32" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K\",\"session\":-1}", 400, "2^32" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K\",\"session\":4294967296}", 400,
		  "2^32" },
		{ "POST", "/v1/sessions", "{\"context\":\"%K0\",\"session\":1}", 400, "64 hexa" },
		{ "POST", "/v1/sessions", "{\"context\":\"../x\",\"session\":1}", 400, "64 hexa" },
		{ "POST", "/v1/sessions",
		  "{\"context\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\","
		  "\"session\":1}",
		  404, "no context" },
		{ "GET", "/v1/sessions", NULL, 405, "method" },
		{ "DELETE", "/v1/sessions", NULL, 405, "method" },
		{ "GET", "/v1/sessions/abc", NULL, 405, "method" },
		{ "DELETE", "/v1/sessions/abc", NULL, 404, "no such session" },
		{ "DELETE", "/v1/sessions/", NULL, 404, "nothing at this path" },
		{ "POST", "/v1/sessions/abc/keys", NULL, 404, "no such session" },
		{ "POST", "/v1/sessions/abc/else", NULL, 404, "nothing at this path" },
		{ "DELETE", "/v1/sessions/abc/keys", NULL, 405, "method" },
	};
	struct cloud_opts opts = plain_opts();
	struct reply r;
	char *large;

	start(&opts);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *mark = cases[i].body ? strstr(cases[i].body, "%K") : NULL;
		char body[512];

		snprintf(body, sizeof(body), "%s", cases[i].body ? cases[i].body : "");
		if (mark)
			snprintf(body, sizeof(body), "%.*s%s%s", (int)(mark - cases[i].body),
				 cases[i].body, context, mark + 2);
		r = ask(cases[i].method, cases[i].path, body);
		if (r.status != cases[i].status || !strstr(r.text, cases[i].want))
			fail_msg("%s %s %s: %ld %s", cases[i].method, cases[i].path, body, r.status,
				 r.text);
	}
	r = ask_as("POST", "/v1/sessions", wish(context, EDGE), NULL, NULL);
	assert_int_equal(r.status, 401);
	r = ask_as("DELETE", "/v1/sessions/abc", NULL, "wrong", NULL);
	assert_int_equal(r.status, 401);
	large = malloc(100001);
	memset(large, ' ', 100000);
	large[100000] = 0;
	r = ask("POST", "/v1/sessions", large);
	assert_int_equal(r.status, 413);
	free(large);
	stop();
}

static void sessions__limits(void **state)
{
	struct cloud_opts opts = plain_opts();
	struct grant g[4], next;
	struct sender_stats st;
	struct reply r;

	start(&opts);
	for (int i = 0; i < 4; i++) {
		r = ask("POST", "/v1/sessions", wish(context, EDGE));
		g[i] = parse(&r);
		assert_int_equal(g[i].port, cloud_udp_port(cloud, NULL));
		assert_int_equal(g[i].key, 0);
		assert_true(g[i].max_packets >= 1 << 20);
		assert_true(g[i].lifetime_s >= 60);
		assert_true(strlen(g[i].id) >= 32);
	}
	r = ask("POST", "/v1/sessions", wish(context, EDGE));
	assert_int_equal(r.status, 429);
	assert_true(r.retry_after > 0);
	assert_non_null(strstr(r.text, "too_many"));
	r = ask("POST", "/v1/sessions", wish(second, EDGE));
	parse(&r);
	r = ask("DELETE", session_path(&g[1], ""), NULL);
	assert_int_equal(r.status, 200);
	r = ask("DELETE", session_path(&g[1], ""), NULL);
	assert_int_equal(r.status, 404);
	r = ask("POST", session_path(&g[1], "/keys"), NULL);
	assert_int_equal(r.status, 404);
	r = ask("POST", "/v1/sessions", wish(context, EDGE));
	g[1] = parse(&r);

	/* An unused pair is replaced. */
	r = ask("POST", session_path(&g[0], "/keys"), NULL);
	next = parse(&r);
	assert_int_equal(next.key, 0);
	assert_string_equal(next.id, g[0].id);
	assert_int_equal(next.session, g[0].session);
	assert_memory_not_equal(next.to_edge, g[0].to_edge, 32);

	/* A context that is removed takes its sessions along. */
	cloud_udp_stats(cloud, &st);
	assert_int_equal(st.sessions, 5);
	{
		char path[160];

		snprintf(path, sizeof(path), "/v1/contexts/%s", context);
		r = ask("DELETE", path, NULL);
		assert_int_equal(r.status, 200);
	}
	cloud_udp_stats(cloud, &st);
	assert_int_equal(st.sessions, 1);
	assert_int_equal(st.granted, 6);

	/* The log knows shapes only. */
	assert_non_null(strstr(log_text, "POST /v1/sessions 201"));
	assert_non_null(strstr(log_text, "DELETE /v1/sessions/ID 200"));
	assert_null(strstr(log_text, g[0].id));
	stop();
}

static void sessions__owner_is_the_certificate(void **state)
{
	struct cloud_opts opts = plain_opts();
	char more_cert[80], both[80], command[512];
	struct grant g;
	struct reply r;

	/* Another tenant, whose CA is trusted as well. */
	snprintf(more_cert, sizeof(more_cert), "%s/more/client.pem", dir);
	snprintf(both, sizeof(both), "%s/both.pem", dir);
	snprintf(command, sizeof(command),
		 "scripts/certs %s/more && cat %s/ca.pem %s/more/ca.pem >%s", dir, dir, dir, both);
	assert_int_equal(system(command), 0);
	opts.client_ca = both;
	start(&opts);
	r = ask_as("POST", "/v1/sessions", wish(context, EDGE), TOKEN, client_cert);
	g = parse(&r);
	r = ask_as("POST", session_path(&g, "/keys"), NULL, TOKEN, more_cert);
	assert_int_equal(r.status, 404);
	r = ask_as("DELETE", session_path(&g, ""), NULL, TOKEN, more_cert);
	assert_int_equal(r.status, 404);
	r = ask_as("DELETE", session_path(&g, ""), NULL, TOKEN, client_cert);
	assert_int_equal(r.status, 200);
	stop();
}

static void sessions__off(void **state)
{
	struct cloud_opts opts = plain_opts();
	struct sockaddr_in at = { .sin_family = AF_INET };
	struct lslm_error why = { 0 };
	socklen_t len = sizeof(at);
	struct sender_stats st;
	struct reply r;
	int fd;

	opts.udp_port = CLOUD_UDP_OFF;
	start(&opts);
	assert_true(cloud_udp_port(cloud, &why) < 0);
	assert_non_null(strstr(why.text, "switched off"));
	r = ask("POST", "/v1/sessions", wish(context, EDGE));
	assert_int_equal(r.status, 404);
	r = ask("POST", "/v1/sessions/abc/keys", NULL);
	assert_int_equal(r.status, 404);
	r = ask("DELETE", "/v1/sessions/abc", NULL);
	assert_int_equal(r.status, 404);
	r = ask("GET", "/health", NULL);
	assert_int_equal(r.status, 200);
	cloud_udp_stats(cloud, &st);
	assert_int_equal(st.granted, 0);
	stop();

	/* The port is somebody else's: HTTPS works all the same. */
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	opts.udp_port = ntohs(at.sin_port);
	start(&opts);
	assert_int_equal(cloud_udp_port(cloud, &why), -EADDRINUSE);
	assert_non_null(strstr(why.text, "in use"));
	r = ask("POST", "/v1/sessions", wish(context, EDGE));
	assert_int_equal(r.status, 404);
	stop();
	close(fd);
}

/* Granted, renewed in the middle, and all there. */
static void sessions__a_context_arrives(void **state)
{
	const struct kv_geometry geo = { shape.n_layer, shape.n_head_kv, shape.head_dim };
	/* So long that all of it comes within. */
	const struct sender_opts udp = { .key_overlap_ms = 600000 };
	const size_t stripe_bytes = kv_stripe_bytes(&geo, KV_LEVEL_F16);
	struct cloud_opts opts = plain_opts();
	struct sockaddr_in at = { .sin_family = AF_INET };
	static uint8_t packet[65536];
	uint8_t *want = malloc(stripe_bytes);
	struct placement p;
	struct pollfd poller = { .events = POLLIN };
	struct grant g;
	struct reply r;
	bool renewed = false;
	ssize_t size;
	time_t until;

	opts.udp = &udp;
	start(&opts);
	r = ask("POST", "/v1/sessions", wish(context, EDGE));
	g = parse(&r);
	placement_init(&p, &geo, shape.n_tokens / KV_BLOCK_TOKENS, EDGE);
	placement_key(&p, 0, g.to_edge, g.to_cloud, g.max_packets);
	placement_bind(&p, 1152);
	p.cloud = g.session;
	/* So little at once that it is not over before it began. */
	p.credit = 20 * 1152;
	at.sin_port = htons((uint16_t)g.port);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	poller.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(poller.fd, (struct sockaddr *)&at, sizeof(at)), 0);
	for (until = time(NULL) + PATIENCE_S; placement_missing(&p) && time(NULL) < until;) {
		struct timespec now;

		clock_gettime(CLOCK_MONOTONIC, &now);
		size = (ssize_t)placement_report(
			&p, packet, (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec,
			true, 0);
		assert_int_equal(send(poller.fd, packet, (size_t)size, 0), size);
		poll(&poller, 1, 5);
		while ((size = recv(poller.fd, packet, sizeof(packet), MSG_DONTWAIT)) >= 0)
			placement_take(&p, packet, (size_t)size, 1);
		if (p.rx.received && !renewed) {
			r = ask("POST", session_path(&g, "/keys"), NULL);
			g = parse(&r);
			assert_int_equal(g.key, 1);
			placement_key(&p, 1, g.to_edge, g.to_cloud, g.max_packets);
			renewed = true;
		}
	}
	assert_int_equal(placement_missing(&p), 0);
	assert_true(p.rx.keys[1].replay.next > 0);
	for (uint32_t s = 0; s < p.rx.n_slots; s++) {
		synthetic_stripe(&shape, s, want);
		assert_memory_equal(p.memory[s], want, stripe_bytes);
	}
	/* Two pairs are in use. */
	r = ask("POST", session_path(&g, "/keys"), NULL);
	assert_int_equal(r.status, 429);
	assert_true(r.retry_after > 11 && r.retry_after <= 601);
	free(want);
	placement_free(&p);
	close(poller.fd);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sessions__who_and_what),
		cmocka_unit_test(sessions__limits),
		cmocka_unit_test(sessions__owner_is_the_certificate),
		cmocka_unit_test(sessions__off),
		cmocka_unit_test(sessions__a_context_arrives),
	};

	return cmocka_run_group_tests_name("sessions", tests, setup, teardown);
}
