// SPDX-License-Identifier: MIT
/* Grants from a server that answers whatever the case says, over real TLS on loopback. */
#include "unit.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/file.h"
#include "net/grant.h"

#define EDGE_KEY  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define CLOUD_KEY "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
#define GOOD                                                                              \
	"{\"session\":7,\"id\":\"s-1_Z\",\"port\":8443,\"key\":0,\"to_edge\":\"" EDGE_KEY \
	"\",\"to_cloud\":\"" CLOUD_KEY "\",\"max_packets\":1000,\"lifetime_s\":60}"

static char dir[] = "/tmp/lslm-grant-XXXXXX";
static char cacert[64], site[64];
static char *cert, *key;
static struct MHD_Daemon *server;
static struct http_client *http;

/* Of the server: what to answer, and what the last request was. One request at a time. */
static const char *reply;
static unsigned int status;
static char asked[2048];

static enum MHD_Result serve(void *cls, struct MHD_Connection *connection, const char *url,
			     const char *method, const char *version, const char *data,
			     size_t *size, void **state)
{
	struct MHD_Response *r;
	enum MHD_Result ret;

	if (!*state) {
		*state = asked;
		snprintf(asked, sizeof(asked), "%s %s ", method, url);
		return MHD_YES;
	}
	if (*size) {
		strncat(asked, data, *size);
		*size = 0;
		return MHD_YES;
	}
	r = MHD_create_response_from_buffer(strlen(reply), (void *)reply, MHD_RESPMEM_MUST_COPY);
	ret = MHD_queue_response(connection, status, r);
	MHD_destroy_response(r);
	return ret;
}

static int setup(void **state)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct http_opts opts = { .cacert = cacert };
	char command[128], path[64];
	size_t size;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!mkdtemp(dir))
		return -1;
	snprintf(command, sizeof(command), "scripts/certs %s", dir);
	snprintf(cacert, sizeof(cacert), "%s/ca.pem", dir);
	if (system(command) || snprintf(path, sizeof(path), "%s/server.pem", dir) < 0 ||
	    file_read(path, 65536, &cert, &size, NULL) ||
	    snprintf(path, sizeof(path), "%s/server.key", dir) < 0 ||
	    file_read(path, 65536, &key, &size, NULL))
		return -1;
	server = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_TLS, 0, NULL, NULL,
				  serve, NULL, MHD_OPTION_SOCK_ADDR, &address,
				  MHD_OPTION_HTTPS_MEM_CERT, cert, MHD_OPTION_HTTPS_MEM_KEY, key,
				  MHD_OPTION_END);
	if (!server || http_open(&http, &opts, NULL))
		return -1;
	snprintf(site, sizeof(site), "https://127.0.0.1:%u",
		 MHD_get_daemon_info(server, MHD_DAEMON_INFO_BIND_PORT)->port);
	return 0;
}

static int teardown(void **state)
{
	http_close(http);
	MHD_stop_daemon(server);
	free(cert);
	free(key);
	return remove_tree(dir);
}

static int ask(const char *text, struct grant *g, struct lslm_error *err)
{
	const struct kv_hash context = { { 0xab } };

	reply = text;
	status = 201;
	memset(err, 0, sizeof(*err));
	return grant_ask(http, site, &context, 77, NULL, g, err);
}

static void grant_ask__what_it_says(void **state)
{
	struct lslm_error err;
	char address[HTTP_ADDRESS_BYTES];
	struct grant g;

	assert_int_equal(http_address(http, address), -ENOTCONN);
	assert_ok(ask(GOOD, &g, &err), &err);
	assert_int_equal(g.session, 7);
	assert_string_equal(g.id, "s-1_Z");
	assert_int_equal(g.port, 8443);
	assert_int_equal(g.keys.key, 0);
	assert_int_equal(g.keys.to_edge[31], 0x1f);
	assert_int_equal(g.keys.to_cloud[0], 0x20);
	assert_int_equal(g.keys.max_packets, 1000);
	assert_int_equal(g.keys.lifetime_s, 60);
	assert_string_equal(
		asked,
		"POST /v1/sessions {\"context\":\"ab00000000000000000000000000000000000000000000000000000000000000\",\"session\":77}");
	assert_int_equal(http_address(http, address), 0);
	assert_string_equal(address, "127.0.0.1");
}

/* The good reply with one member replaced; value NULL: without it. */
static const char *with(const char *name, const char *value)
{
	static const char *const names[] = { "session", "id",	    "port",	   "key",
					     "to_edge", "to_cloud", "max_packets", "lifetime_s" };
	static const char *const good[] = {
		"7", "\"s\"", "8443", "0", "\"" EDGE_KEY "\"", "\"" CLOUD_KEY "\"", "1000", "60"
	};
	static char text[4096];
	const char *sep = "{";

	*text = 0;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *v = strcmp(names[i], name) ? good[i] : value;

		if (!v)
			continue;
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\"%s\":%s", sep,
			 names[i], v);
		sep = ",";
	}
	strcat(text, "}");
	return text;
}

static void grant_ask__refuses_nonsense(void **state)
{
	static const char *const names[] = { "session", "id",	    "port",	   "key",
					     "to_edge", "to_cloud", "max_packets", "lifetime_s" };
	static const char *const cases[][2] = {
		{ "session", "0" },
		{ "session", "4294967296" },
		{ "session", "-1" },
		{ "session", "1.0" },
		{ "session", "\"7\"" },
		{ "id", "\"\"" },
		{ "id", "\"a/b\"" },
		{ "id", "\"..\"" },
		{ "id", "\"a?b\"" },
		{ "id", "\"a b\"" },
		{ "id", "7" },
		{ "id", "\"0123456789012345678901234567890123456789012345678901234567890123x\"" },
		{ "port", "0" },
		{ "port", "65536" },
		{ "key", "1" },
		{ "key", "4" },
		{ "to_edge", "\"00\"" },
		{ "to_edge", "\"" EDGE_KEY "00\"" },
		{ "to_edge", "\"x" EDGE_KEY "\"" },
		{ "to_cloud", "null" },
		{ "max_packets", "0" },
		{ "max_packets", "18446744073709551616" },
		{ "lifetime_s", "0" },
		{ "lifetime_s", "-60" },
	};
	static const char *const others[] = { "",     "{",     "[]",
					      "null", "{} {}", "{\"session\":7,\"session\":8}" };
	static const struct grant none;
	struct lslm_error err;
	struct grant g;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		if (ask(with(cases[i][0], cases[i][1]), &g, &err) != -EPROTO)
			fail_msg("accepted: %s %s", cases[i][0], cases[i][1]);
		assert_non_null(strstr(err.text, "makes no sense"));
		/* No key is left of what was refused. */
		assert_memory_equal(&g, &none, sizeof(g));
	}
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_int_equal(ask(with(names[i], NULL), &g, &err), -EPROTO);
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		assert_int_equal(ask(others[i], &g, &err), -EPROTO);
	assert_ok(ask(with("", ""), &g, &err), &err);
}

/* More than is of use is taken for what is of use. */
static void grant_ask__bounds(void **state)
{
	static char large[6000];
	struct lslm_error err;
	struct grant g;

	assert_ok(ask(with("max_packets", "9223372036854775807"), &g, &err), &err);
	assert_true(g.keys.max_packets == LSLM_COUNTER_MAX);
	assert_ok(ask(with("lifetime_s", "4294967295"), &g, &err), &err);
	assert_int_equal(g.keys.lifetime_s, GRANT_LIFETIME_MAX);
	memset(large, ' ', sizeof(large) - 1);
	memcpy(large, GOOD, strlen(GOOD));
	assert_int_equal(ask(large, &g, &err), -EMSGSIZE);
}

static void grant_ask__refused(void **state)
{
	static const struct {
		unsigned int status;
		int code;
	} cases[] = { { 401, -EACCES }, { 404, -ENOENT }, { 429, -EAGAIN }, { 503, -EAGAIN } };
	const struct kv_hash context = { { 0 } };
	struct lslm_error err = { 0 };
	struct grant g;

	reply = "{\"error\":{\"message\":\"no UDP here\",\"type\":\"not_found\"}}";
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		status = cases[i].status;
		assert_int_equal(grant_ask(http, site, &context, 1, NULL, &g, &err), cases[i].code);
		assert_non_null(strstr(err.text, "no UDP here"));
	}
	status = 404;
	reply = "{\"error\":{\"message\":\"no UDP here\",\"type\":\"switched_off\"}}";
	assert_int_equal(grant_ask(http, site, &context, 1, NULL, &g, &err), -EOPNOTSUPP);
}

static void grant_renew__and_end(void **state)
{
	const struct grant g = { .session = 7, .id = "abc" };
	struct lslm_error err = { 0 };
	struct grant_keys k;

	status = 201;
	reply = with("key", "3");
	assert_ok(grant_renew(http, site, &g, NULL, &k, &err), &err);
	assert_string_equal(asked, "POST /v1/sessions/abc/keys ");
	assert_int_equal(k.key, 3);
	assert_int_equal(k.to_cloud[31], 0x3f);
	reply = with("key", "4");
	assert_int_equal(grant_renew(http, site, &g, NULL, &k, &err), -EPROTO);
	status = 200;
	reply = "{\"deleted\":true}";
	assert_ok(grant_end(http, site, &g, &err), &err);
	assert_string_equal(asked, "DELETE /v1/sessions/abc ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grant_ask__what_it_says),
		cmocka_unit_test(grant_ask__refuses_nonsense),
		cmocka_unit_test(grant_ask__bounds),
		cmocka_unit_test(grant_ask__refused),
		cmocka_unit_test(grant_renew__and_end),
	};

	return cmocka_run_group_tests_name("grant", tests, setup, teardown);
}
