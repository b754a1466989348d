// SPDX-License-Identifier: MIT
/* A courier that takes a context from a cloud and from gateways that have it, all over real TLS on loopback. */
#include "cloud_rig.h"

#include "net/courier.h"
#include "net/peers.h"
#include "serve/peer_service.h"

enum { HOLDERS = 2, DEADLINE_MS = 60000 };

/* More and smaller stripes than a source takes at once. */
static const struct synthetic many = {
	.n_layer = 2, .n_head_kv = 1, .head_dim = 32, .n_tokens = 64 * 40 + 3, .seed = 9
};

static struct shelf *shelves[HOLDERS];
static struct peer_service *services[HOLDERS];
static char sites[HOLDERS][64], url[512];
static uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];

static struct courier_opts courier_opts(struct peers *peers)
{
	synthetic_pubkey(&many, trusted[0]);
	return (struct courier_opts){
		.source = url,
		.trusted = (const void *)trusted,
		.n_trusted = 1,
		.backend = BUFFER_MEMFD,
		.order = ORDER_TAIL,
		.cacert = cacert,
		.token = TOKEN,
		.peers = peers,
	};
}

static void wait_complete(struct shelf *s)
{
	struct shelf_context x = { 0 };

	for (int i = 0; i < DEADLINE_MS && x.state != COURIER_COMPLETE; i++) {
		usleep(1000);
		assert_int_equal(shelf_look(s, 0, &x), 0);
	}
	assert_int_equal(x.state, COURIER_COMPLETE);
}

/* A cloud with the context, and gateways that have it too. */
static void start_all(void)
{
	const struct cloud_opts opts = plain_opts();
	struct shelf_opts so = { .courier = courier_opts(NULL) };
	struct peer_service_opts po = {
		.listen = "127.0.0.1:0", .cert = cert, .key = key, .token = "fleet"
	};
	struct lslm_error err = { 0 };
	struct kv_hash k;
	char hex[KV_HASH_TEXT], path[256];

	start(&opts);
	assert_ok(synthetic_write(&many, file, &k, &err), &err);
	kv_hash_format(&k, hex);
	snprintf(path, sizeof(path), "%s/%s.lskv", store_dir, hex);
	assert_int_equal(rename(file, path), 0);
	snprintf(url, sizeof(url), "%s", url_of(context_path(&k, "")));
	for (int i = 0; i < HOLDERS; i++) {
		assert_ok(shelf_open(&shelves[i], &so, &err), &err);
		assert_ok(shelf_add(shelves[i], url, &err), &err);
		wait_complete(shelves[i]);
		assert_ok(peer_service_start(&services[i], &po, shelves[i], &err), &err);
		snprintf(sites[i], sizeof(sites[i]), "https://127.0.0.1:%d",
			 peer_service_port(services[i]));
	}
}

static void stop_holders(void)
{
	for (int i = 0; i < HOLDERS; i++) {
		peer_service_stop(services[i]);
		shelf_close(shelves[i]);
	}
}

static struct peers *open_peers(const char *token)
{
	static const char *urls[HOLDERS];
	struct peers_opts po = { .urls = urls, .n_urls = HOLDERS, .cacert = cacert, .token = token };
	struct lslm_error err = { 0 };
	struct peers *p;

	for (int i = 0; i < HOLDERS; i++)
		urls[i] = sites[i];
	assert_ok(peers_open(&p, &po, &err), &err);
	return p;
}

/* Every stripe as it was published, whoever brought it; how many blocks peers have. */
static uint64_t check(struct courier *c)
{
	const struct kv_geometry geo = { many.n_layer, many.n_head_kv, many.head_dim };
	const struct manifest *m = courier_manifest(c);
	const size_t block = kv_block_bytes(&geo, KV_LEVEL_F16);
	uint8_t *want = malloc(kv_stripe_bytes(&geo, KV_LEVEL_F16));
	struct courier_stats st;

	for (uint32_t s = 0; s < m->n_stripes; s++) {
		synthetic_stripe(&many, s, want);
		assert_int_equal(courier_held(c, s), KV_LEVEL_F16);
		for (uint32_t u = 0; u < geo.n_layer; u++)
			assert_memory_equal(courier_unit(c, &m->levels[0], s, u), want + u * block,
					    block);
	}
	free(want);
	courier_stats(c, &st);
	assert_int_equal(st.blocks_ready, st.blocks_total);
	return st.blocks_from_peers;
}

static void fleet__brings_all_by_either_transport(void **state)
{
	static const enum courier_transport transports[] = { COURIER_HTTPS, COURIER_AUTO };
	struct lslm_error err = { 0 };
	struct peers *p;
	struct courier *c;

	start_all();
	p = open_peers("fleet");
	for (size_t i = 0; i < ARRAY_LEN(transports); i++)
		for (enum order_kind order = ORDER_LAYER; order <= ORDER_TAIL; order++) {
			struct courier_opts o = courier_opts(p);

			o.transport = transports[i];
			o.order = order;
			assert_ok(courier_open(&c, &o, &err), &err);
			assert_ok(courier_run(c, &err), &err);
			assert_ok(courier_finish(c, &err), &err);
			check(c);
			courier_close(c);
		}
	peers_close(p);
	stop_holders();
	stop();
}

/* Without the cloud's answer they bring the manifest and all the rest. */
static void fleet__needs_no_cloud(void **state)
{
	struct lslm_error err = { 0 };
	struct courier_opts o;
	struct peers *p;
	struct courier *c;

	start_all();
	stop();
	p = open_peers("fleet");
	o = courier_opts(p);
	assert_ok(courier_open(&c, &o, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	assert_int_equal(check(c), 40 * many.n_layer);
	courier_close(c);
	peers_close(p);
	/* Who may not ask them has nothing, and is told about the cloud. */
	p = open_peers("another");
	o = courier_opts(p);
	assert_int_equal(courier_open(&c, &o, &err), -ECONNREFUSED);
	peers_close(p);
	stop_holders();
}

/* Closed, or told that the engine is through, at any moment: nothing is written or used afterwards. */
static void fleet__ends_at_any_moment(void **state)
{
	struct lslm_error err = { 0 };
	struct courier_opts o;
	struct peers *p;
	struct courier *c;

	start_all();
	p = open_peers("fleet");
	o = courier_opts(p);
	for (int i = 0; i < 20; i++) {
		assert_ok(courier_open(&c, &o, &err), &err);
		assert_ok(courier_run(c, &err), &err);
		usleep((useconds_t)i * 1500);
		if (i % 4 == 1)
			courier_set_order(c, ORDER_LAYER);
		if (i % 4 == 2)
			courier_set_head(c, 20);
		if (i % 4 == 3) {
			courier_set_head(c, 40);
			assert_ok(courier_finish(c, &err), &err);
		}
		courier_close(c);
	}
	peers_close(p);
	stop_holders();
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fleet__brings_all_by_either_transport),
		cmocka_unit_test(fleet__needs_no_cloud),
		cmocka_unit_test(fleet__ends_at_any_moment),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
