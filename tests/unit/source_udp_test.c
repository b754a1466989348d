// SPDX-License-Identifier: MIT
/*
 * A source of UDP against a cloud on loopback, without a courier: what is asked over HTTPS, and when.
 */
#include "unit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "net/courier.h"
#include "serve/cloud.h"
#include "sink.h"
#include "synthetic.h"
#include "tls_dir.h"

/* 40 stripes of 5 blocks: some thousand datagrams. */
static const struct synthetic shape = {
	.n_layer = 5, .n_head_kv = 3, .head_dim = 32, .n_tokens = 64 * 40
};

static char contexts[64], url[256];
static char key_text[KV_HASH_TEXT];
static atomic_uint grants;

static int setup(void **state)
{
	if (tls_dir_make())
		return -1;
	snprintf(contexts, sizeof(contexts), "%s/contexts", dir);
	return mkdir(contexts, 0700);
}

static int teardown(void **state)
{
	return tls_dir_remove();
}

static void log_line(void *arg, const char *line)
{
	if (strstr(line, "POST /v1/sessions 201"))
		atomic_fetch_add(&grants, 1);
}

static struct cloud *start_cloud(const struct sender_opts *udp, int port)
{
	char listen[32];
	const struct cloud_opts opts = {
		.listen = listen,
		.cert = cert,
		.key = key,
		.token = TOKEN,
		.store = contexts,
		.udp_port = port,
		.udp = udp,
		.log = log_line,
	};
	struct lslm_error err = { 0 };
	struct cloud *c;
	int tries = 0;

	snprintf(listen, sizeof(listen), "127.0.0.1:0");
	/* The number that HTTPS was given may be taken in UDP. */
	for (;;) {
		assert_ok(cloud_start(&c, &opts, &err), &err);
		if (port || cloud_udp_port(c, &err) >= 0)
			break;
		assert_true(++tries < 10);
		cloud_stop(c);
	}
	assert_ok(synthetic_put(&shape, contexts, key_text, &err), &err);
	snprintf(url, sizeof(url), "https://127.0.0.1:%d/v1/contexts/%s", cloud_port(c), key_text);
	return c;
}

struct rig {
	struct source *source;
	struct manifest *manifest;
	struct sink sink;
};

static void open_source(struct rig *rig)
{
	const struct courier_opts opts = {
		.source = url,
		.cacert = cacert,
		.token = TOKEN,
		.transport = COURIER_UDP,
		.stall_timeout_ms = 60000,
	};
	struct lslm_error err = { 0 };
	uint8_t *data;
	size_t size;

	assert_ok(source_udp_open(&rig->source, &opts, &err), &err);
	assert_ok(rig->source->ops->manifest(rig->source, &data, &size, &err), &err);
	assert_ok(manifest_parse(&rig->manifest, data, size, &err), &err);
	free(data);
}

static void close_source(struct rig *rig)
{
	manifest_free(rig->manifest);
	rig->source->ops->close(rig->source);
}

/* A buffer where nothing is yet. */
static void begin(struct rig *rig)
{
	sink_make_buffer(&rig->sink, rig->manifest, ORDER_TAIL);
}

static void end(struct rig *rig)
{
	sink_free(&rig->sink);
}

/*
 * Each session asks for the keys that it needs, not only the first one of a source: without them it ends, and
 * another one is asked for.
 */
static void source_udp__every_session_changes_keys(void **state)
{
	const struct sender_opts limits = { .key_packets = 100, .key_overlap_ms = 1 };
	struct cloud *cloud = start_cloud(&limits, 0);
	struct lslm_error err = { 0 };
	struct rig rig;

	atomic_store(&grants, 0);
	open_source(&rig);
	for (int i = 0; i < 2; i++) {
		begin(&rig);
		assert_ok(rig.source->ops->receive(rig.source, &rig.sink, &err), &err);
		assert_true(sink_is_done(&rig.sink));
		sink_check(&rig.sink, &shape);
		end(&rig);
	}
	close_source(&rig);
	/* Every line is written by then. */
	cloud_stop(cloud);
	assert_int_equal(atomic_load(&grants), 2);
}

/* A cloud without UDP is told from one without the context. */
static void source_udp__says_what_is_missing(void **state)
{
	struct lslm_error err = { 0 };
	struct cloud *cloud;
	char command[256];
	struct rig rig;

	for (int off = 0; off < 2; off++) {
		cloud = start_cloud(NULL, off ? CLOUD_UDP_OFF : 0);
		open_source(&rig);
		begin(&rig);
		snprintf(command, sizeof(command), "rm %s/*.lskv", contexts);
		assert_int_equal(off ? 0 : system(command), 0);
		assert_int_equal(rig.source->ops->receive(rig.source, &rig.sink, &err),
				 off ? -EOPNOTSUPP : -ENOENT);
		assert_int_equal(!off, !strstr(err.text, "UDP is off there"));
		assert_int_equal(!off, !!strstr(err.text, "no context"));
		end(&rig);
		close_source(&rig);
		cloud_stop(cloud);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(source_udp__every_session_changes_keys),
		cmocka_unit_test(source_udp__says_what_is_missing),
	};

	return cmocka_run_group_tests_name("source_udp", tests, setup, teardown);
}
