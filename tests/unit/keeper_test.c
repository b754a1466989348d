// SPDX-License-Identifier: MIT
/*
 * A courier with a stripe store, against a cloud on loopback: what came is kept, what is kept does
 * not come again, and what is missing is asked for once more.
 */
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/courier.h"
#include "serve/cloud.h"
#include "synthetic.h"
#include "tls_dir.h"

static const struct synthetic shape = {
	.n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 9 + 5
};
enum { N_STRIPES = 9, N_BLOCKS = 27 };

static char contexts[64], kept[64];
static char key_text[KV_HASH_TEXT];
static uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
static struct cloud *cloud;
static int port;
static char url[256];
static struct stripe_store *store;

static int setup(void **state)
{
	if (tls_dir_make())
		return -1;
	snprintf(contexts, sizeof(contexts), "%s/contexts", dir);
	snprintf(kept, sizeof(kept), "%s/stripes", dir);
	/* The courier's cache of manifests. */
	setenv("XDG_CACHE_HOME", dir, 1);
	synthetic_pubkey(&shape, trusted[0]);
	return mkdir(contexts, 0700) || synthetic_put(&shape, contexts, key_text, NULL);
}

static int teardown(void **state)
{
	return tls_dir_remove();
}

/* At the port of before, if there was one. */
static void start_cloud(void)
{
	char listen[32];
	struct cloud_opts opts = {
		.listen = listen, .cert = cert, .key = key, .token = TOKEN, .store = contexts
	};
	struct lslm_error err = { 0 };

	snprintf(listen, sizeof(listen), "127.0.0.1:%d", port);
	assert_ok(cloud_start(&cloud, &opts, &err), &err);
	port = cloud_port(cloud);
	snprintf(url, sizeof(url), "https://127.0.0.1:%d/v1/contexts/%s", port, key_text);
}

static void stop_cloud(void)
{
	cloud_stop(cloud);
	cloud = NULL;
}

static void open_store(void)
{
	const struct stripe_store_opts opts = { .dir = kept };
	struct lslm_error err = { 0 };

	assert_ok(stripe_store_open(&store, &opts, &err), &err);
}

static void forget_store(void)
{
	stripe_store_close(store);
	store = NULL;
	assert_int_equal(remove_tree(kept), 0);
}

static void file_of(char path[256], uint32_t stripe)
{
	snprintf(path, 256, "%s/%s/f16-%08u", kept, key_text, stripe);
}

static bool is_kept(uint32_t stripe)
{
	char path[256];

	file_of(path, stripe);
	return !access(path, F_OK);
}

static struct courier_opts courier_opts(enum order_kind order)
{
	return (struct courier_opts){
		.source = url,
		.trusted = (const void *)trusted,
		.n_trusted = 1,
		.backend = BUFFER_MEMFD,
		.order = order,
		.cacert = cacert,
		.token = TOKEN,
		.offline = true,
		.transport = COURIER_HTTPS,
		.store = store,
	};
}

static struct courier *open_courier(enum order_kind order)
{
	const struct courier_opts opts = courier_opts(order);
	struct lslm_error err = { 0 };
	struct courier *c;

	assert_ok(courier_open(&c, &opts, &err), &err);
	return c;
}

/* Everything is there, and right; bit s of `disk`: stripe s came from the store. */
static void check(struct courier *c, enum order_kind order, uint32_t disk)
{
	const size_t stripe = kv_stripe_bytes(&courier_manifest(c)->geo, KV_LEVEL_F16);
	uint8_t *want = malloc(stripe);
	struct lslm_error err = { 0 };
	struct courier_stats stats;
	struct control *control;
	struct buffer *b;
	size_t manifest, least;

	assert_ok(buffer_import(&b, courier_buffer_fd(c, &err), &err), &err);
	assert_ok(control_import(&control, courier_control_fd(c, &err), &err), &err);
	for (uint32_t s = 0; s < N_STRIPES; s++) {
		synthetic_stripe(&shape, s, want);
		assert_memory_equal((const uint8_t *)buffer_ro_data(b) + s * stripe, want, stripe);
		for (uint32_t l = 0; l < 3; l++) {
			assert_int_equal(control_get(control, s, l), CONTROL_READY);
			assert_int_equal(control_get_source(control, s, l),
					 disk >> s & 1 ? CONTROL_FROM_DISK : CONTROL_FROM_CLOUD);
		}
	}
	courier_manifest_data(c, &manifest);
	courier_stats(c, &stats);
	assert_int_equal(stats.blocks_total, N_BLOCKS);
	assert_int_equal(stats.blocks_ready, N_BLOCKS);
	assert_int_equal(stats.blocks_from_disk, 3 * __builtin_popcount(disk));
	least = (courier_is_offline(c, NULL) ? 0 : manifest) +
		(N_STRIPES - (size_t)__builtin_popcount(disk)) * stripe;
	/* By layer the gaps are short, and read along. */
	if (order == ORDER_TAIL || disk == 0x1ff)
		assert_int_equal(stats.bytes_received, least);
	else
		assert_in_range(stats.bytes_received, least, manifest + N_STRIPES * stripe);
	assert_string_equal(stats.path, disk == 0x1ff ? "stripe store" : "https");
	control_close(control);
	buffer_close(b);
	free(want);
}

static void bring(enum order_kind order, uint32_t disk)
{
	struct courier *c = open_courier(order);
	struct lslm_error err = { 0 };

	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	check(c, order, disk);
	courier_close(c);
}

static void store__keeps_what_came(void **state)
{
	struct stripe_store_stats stats;

	start_cloud();
	for (int order = ORDER_LAYER; order <= ORDER_TAIL; order++) {
		open_store();
		bring(order, 0);
		stripe_store_stats(store, &stats);
		assert_int_equal(stats.saved, N_STRIPES);
		bring(order, 0x1ff);
		stripe_store_stats(store, &stats);
		assert_int_equal(stats.loaded, N_STRIPES);
		assert_int_equal(stats.saved, N_STRIPES);
		assert_int_equal(stats.wrong, 0);
		forget_store();
	}
	stop_cloud();
}

static void spoil(uint32_t stripe)
{
	char path[256];
	uint8_t byte;
	int fd;

	file_of(path, stripe);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, 30000), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 30000), 1);
	close(fd);
}

/* Of two stripes one is gone and one is damaged: those two come, and are kept again. */
static void store__only_what_is_missing_comes(void **state)
{
	struct stripe_store_stats stats;
	char path[256];

	start_cloud();
	open_store();
	bring(ORDER_TAIL, 0);
	for (int order = ORDER_LAYER; order <= ORDER_TAIL; order++) {
		file_of(path, 2);
		assert_int_equal(unlink(path), 0);
		spoil(7);
		bring(order, 0x1ff & ~(1 << 2 | 1 << 7));
		bring(order, 0x1ff);
	}
	stripe_store_stats(store, &stats);
	assert_int_equal(stats.wrong, 2);
	forget_store();
	stop_cloud();
}

static void store__without_the_cloud(void **state)
{
	struct lslm_error err = { 0 };
	struct courier_stats stats;
	struct control *control;
	struct courier *c;
	char path[256];

	start_cloud();
	open_store();
	bring(ORDER_TAIL, 0);
	stop_cloud();
	bring(ORDER_TAIL, 0x1ff);
	/* One is missing: said at once, the others are there; with the cloud back only that one comes. */
	file_of(path, 4);
	assert_int_equal(unlink(path), 0);
	c = open_courier(ORDER_TAIL);
	assert_true(courier_is_offline(c, &err));
	assert_ok(courier_run(c, &err), &err);
	assert_int_equal(courier_finish(c, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.text, "is the server running"));
	assert_true(courier_failed(c, &err));
	courier_stats(c, &stats);
	assert_int_equal(stats.blocks_ready, N_BLOCKS - 3);
	assert_ok(control_import(&control, courier_control_fd(c, &err), &err), &err);
	assert_int_equal(control_get(control, 4, 1), CONTROL_FAILED);
	control_close(control);
	/* Still away. */
	assert_ok(courier_run(c, &err), &err);
	assert_int_equal(courier_finish(c, &err), -ECONNREFUSED);
	start_cloud();
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	assert_false(courier_failed(c, &err));
	assert_int_equal(courier_run(c, &err), -EALREADY);
	courier_stats(c, &stats);
	assert_int_equal(stats.blocks_ready, N_BLOCKS);
	assert_int_equal(stats.bytes_received,
			 kv_stripe_bytes(&courier_manifest(c)->geo, KV_LEVEL_F16));
	courier_close(c);
	assert_true(is_kept(4));
	forget_store();
	stop_cloud();
}

/* Without a store a courier that is offline has nothing to run for. */
static void store__none(void **state)
{
	struct lslm_error err = { 0 };
	struct courier *c;

	start_cloud();
	stop_cloud();
	c = open_courier(ORDER_TAIL);
	assert_true(courier_is_offline(c, NULL));
	assert_int_equal(courier_run(c, &err), -ENOTCONN);
	courier_close(c);
}

/* What the engine computes is not asked for, and so not kept. */
static void store__nothing_computed(void **state)
{
	struct lslm_error err = { 0 };
	struct courier *c;

	start_cloud();
	open_store();
	c = open_courier(ORDER_TAIL);
	courier_set_head(c, 4);
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	courier_close(c);
	for (uint32_t s = 0; s < N_STRIPES; s++)
		assert_int_equal(is_kept(s), s >= 4);
	forget_store();
	stop_cloud();
}

/* A disk without room costs the next start's transfer, and nothing else. */
static void store__no_room(void **state)
{
	const struct stripe_store_opts opts = { .dir = kept, .max_bytes = 1000 };
	struct lslm_error err = { 0 };
	struct courier *c;

	start_cloud();
	assert_ok(stripe_store_open(&store, &opts, &err), &err);
	c = open_courier(ORDER_LAYER);
	assert_false(courier_keeps_badly(c, &err));
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	for (int tries = 0; tries < 3000 && !courier_keeps_badly(c, &err); tries++)
		usleep(20000);
	assert_int_equal(err.code, -EFBIG);
	check(c, ORDER_LAYER, 0);
	courier_close(c);
	assert_false(is_kept(0));
	bring(ORDER_LAYER, 0);
	forget_store();
	stop_cloud();
}

struct told {
	int failures, kept;
};

static void count_told(void *arg, const struct lslm_error *why)
{
	struct told *t = arg;

	if (why)
		t->failures++;
	else
		t->kept++;
}

/* A file stands where its directory would: what could not be kept by the end is not said to be kept. */
static void store__given_up(void **state)
{
	struct courier_opts opts;
	struct lslm_error err = { 0 };
	struct told told = { 0 };
	char path[256];
	struct courier *c;

	start_cloud();
	open_store();
	snprintf(path, sizeof(path), "%s/%s", kept, key_text);
	assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
	opts = courier_opts(ORDER_LAYER);
	opts.keeps = count_told;
	opts.keeps_arg = &told;
	assert_ok(courier_open(&c, &opts, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	for (int tries = 0; tries < 3000 && !courier_keeps_badly(c, &err); tries++)
		usleep(20000);
	assert_int_equal(err.code, -ENOTDIR);
	courier_close(c);
	assert_int_equal(told.failures, 1);
	assert_int_equal(told.kept, 0);
	forget_store();
	stop_cloud();
}

/* Changed while it runs, the order loses nothing and ends nothing. */
static void set_order__while_it_runs(void **state)
{
	struct lslm_error err = { 0 };
	struct courier *c;

	start_cloud();
	for (int i = 0; i < 20; i++) {
		c = open_courier(i % 2);
		assert_ok(courier_run(c, &err), &err);
		for (int flips = 0; flips < 6; flips++) {
			courier_set_order(c, (i + flips) % 2);
			usleep((unsigned int)i * 100);
		}
		assert_ok(courier_finish(c, &err), &err);
		courier_close(c);
	}
	/* And in its middle it can be ended all the same. */
	for (int i = 0; i < 20; i++) {
		c = open_courier(ORDER_TAIL);
		assert_ok(courier_run(c, &err), &err);
		courier_set_order(c, ORDER_LAYER);
		usleep((unsigned int)i * 50);
		courier_stop(c);
		courier_finish(c, NULL);
		courier_close(c);
	}
	stop_cloud();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(store__keeps_what_came),
		cmocka_unit_test(store__only_what_is_missing_comes),
		cmocka_unit_test(store__without_the_cloud),
		cmocka_unit_test(store__none),
		cmocka_unit_test(store__nothing_computed),
		cmocka_unit_test(store__no_room),
		cmocka_unit_test(store__given_up),
		cmocka_unit_test(set_order__while_it_runs),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("keeper", tests, setup, teardown);
}
