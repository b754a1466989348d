// SPDX-License-Identifier: MIT
/* A context over HTTPS: what the source asks a cloud for, and a courier with a URL. */
#include "cloud_rig.h"

#include "kv/lskv.h"
#include "net/courier.h"
#include "sink.h"

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
	for (tries = 0; tries < 3000; tries++) {
		if (!send_with(other, "GET", "/health", NULL, 0, NULL, &err))
			break;
		usleep(20000);
	}
	assert_true(tries < 3000);
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
		for (tries = 0; blocks_requests() < before + cases[i].requests && tries < 6000;
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
		cmocka_unit_test(courier_over_https),
		cmocka_unit_test(courier_open__urls),
		cmocka_unit_test(source_https__asks_for_missing_runs),
	};

	return cmocka_run_group_tests_name("https source", tests, setup, teardown);
}
