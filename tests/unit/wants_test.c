// SPDX-License-Identifier: MIT
/*
 * What is bound, listed and found complete, of a sink and a real session. A case says which chunks
 * come: REPORTs tell it where to.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/report.h"
#include "net/seal.h"
#include "net/udp.h"
#include "net/wants.h"
#include "sink.h"
#include "synthetic.h"

enum {
	LAYERS = 5,
	STRIPES = 6,
	WIDE = 1408,
	NARROW = 1152,
	TINY = 256, /* a stripe has more holes then than one look is told of */
	WINDOW = 64, /* datagrams that fit any socket's buffer */
};

/* Blocks of 24 KiB: the last chunk of a block is a short one at WIDE and NARROW. */
static const struct synthetic shape = {
	.n_layer = LAYERS, .n_head_kv = 3, .head_dim = 32, .n_tokens = 64 * STRIPES
};

static char path[] = "/tmp/lslm-wants-XXXXXX";

static int setup(void **state)
{
	return mkstemp(path) < 0;
}

static int teardown(void **state)
{
	return unlink(path);
}

/* ---- the rig ---- */

struct rig {
	struct lskv *file;
	struct sink sink;
	uint8_t *data; /* the context */
	struct session *session;
	struct wants *wants;
	int socket, peer;
	uint8_t secret[LSLM_WIRE_KEY_BYTES];
	uint32_t chunk;
	uint64_t sent;
	struct lslm_error err, failed; /* of wants_take() */
	/* The newest REPORT. */
	uint8_t payload[REPORT_ROOM];
	struct report report;
};

static void open_session(struct rig *rig)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	rig->peer = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(rig->peer, (void *)&at, len), 0);
	assert_int_equal(getsockname(rig->peer, (void *)&at, &len), 0);
	rig->socket = udp_open("127.0.0.1", &rig->err);
	assert_ok(rig->socket, &rig->err);
	assert_ok(udp_connect(rig->socket, "127.0.0.1", ntohs(at.sin_port), &rig->err), &rig->err);
	assert_int_equal(getsockname(rig->socket, (void *)&at, &len), 0);
	assert_int_equal(connect(rig->peer, (void *)&at, len), 0);
	assert_ok(session_open(&rig->session, SESSION_TWIN, BUFFER_MEMFD, rig->socket,
			       wants_slots(&rig->sink), &rig->err),
		  &rig->err);
	memset(rig->secret, 0x17, sizeof(rig->secret));
	assert_ok(session_key(rig->session, 0, LSLM_CIPHER_CHACHA20POLY1305, rig->secret, 1 << 30,
			      3600, &rig->err),
		  &rig->err);
}

static void bind_all(struct rig *rig, uint32_t chunk)
{
	open_session(rig);
	assert_ok(wants_open(&rig->wants, &rig->sink, rig->session, NULL, &rig->err), &rig->err);
	rig->chunk = chunk;
	assert_ok(wants_bind(rig->wants, chunk, &rig->err), &rig->err);
}

static void rig_make(struct rig *rig, enum order_kind order, uint32_t chunk)
{
	struct kv_hash key;

	memset(rig, 0, sizeof(*rig));
	assert_ok(synthetic_write(&shape, path, &key, &rig->err), &rig->err);
	assert_ok(lskv_open(&rig->file, path, &rig->err), &rig->err);
	sink_make_buffer(&rig->sink, lskv_manifest(rig->file), order);
	rig->data = sink_wanted(&rig->sink, &shape);
	bind_all(rig, chunk);
}

static void rig_free(struct rig *rig)
{
	wants_close(rig->wants);
	session_close(rig->session);
	close(rig->socket);
	close(rig->peer);
	sink_free(&rig->sink);
	if (rig->file)
		lskv_close(rig->file);
	free(rig->data);
}

static uint32_t per_unit(const struct rig *rig)
{
	return lslm_chunks_of((uint32_t)sink_block_bytes(&rig->sink), rig->chunk);
}

static uint32_t per_stripe(const struct rig *rig)
{
	return LAYERS * per_unit(rig);
}

static void read_report(struct rig *rig)
{
	const struct report head = { .highest = REPORT_NONE, .chunk = (uint16_t)rig->chunk };
	struct report_writer w;

	report_begin(&w, rig->payload, sizeof(rig->payload), &head);
	assert_true(wants_write(rig->wants, &w) > 0);
	assert_int_equal(report_parse(&rig->report, rig->payload, report_end(&w)), 0);
}

static void on_done(void *arg, const struct session_done *done)
{
	struct rig *rig = arg;

	if (!rig->failed.code)
		wants_take(rig->wants, done, &rig->failed);
}

static const struct session_ops told = { .done = on_done };
/* Completions are lost. */
static const struct session_ops untold = { 0 };

static void drain(struct rig *rig, const struct session_ops *ops)
{
	double deadline = clock_seconds() + 20;
	struct session_progress p;

	for (session_progress(rig->session, &p); p.received < rig->sent;
	     session_progress(rig->session, &p)) {
		assert_true(clock_seconds() < deadline);
		assert_ok(session_poll(rig->session, 10000000, ops, rig, &rig->err), &rig->err);
	}
	assert_ok(rig->failed.code, &rig->failed);
}

static void send_chunk(struct rig *rig, const struct report_want *want, uint32_t chunk,
		       const struct session_ops *ops)
{
	const size_t block = sink_block_bytes(&rig->sink);
	const size_t within = chunk % per_unit(rig) * rig->chunk;
	const size_t size = block - within < rig->chunk ? block - within : rig->chunk;
	const struct lslm_header h = { .opcode = LSLM_OP_DATA,
				       .version = LSLM_WIRE_VERSION,
				       .session = session_number(rig->session),
				       .counter = rig->sent,
				       .slot = want->slot,
				       .generation = want->generation,
				       .offset = chunk / per_unit(rig) * block + within };
	uint8_t packet[WIDE + LSLM_WIRE_OVERHEAD];
	size_t n;

	n = seal_packet(packet, &h, rig->data + want->stripe * rig->sink.pitch + h.offset, size,
			rig->secret);
	assert_int_equal(send(rig->peer, packet, n, 0), n);
	if (++rig->sent % WINDOW == 0)
		drain(rig, ops);
}

/* As from a cloud that loses nothing. */
static void bring_the_rest(struct rig *rig)
{
	struct report_want want;
	struct lslm_range range;
	size_t at;

	while (!wants_is_done(rig->wants)) {
		assert_ok(wants_bind(rig->wants, rig->chunk, &rig->err), &rig->err);
		read_report(rig);
		for (at = 0; report_next(&rig->report, &at, &want);) {
			for (uint32_t i = 0; i < want.n_ranges; i++) {
				range = report_range(&want, i);
				for (uint32_t c = 0; c < range.count; c++)
					send_chunk(rig, &want, range.first + c, &told);
			}
		}
		drain(rig, &told);
	}
	assert_int_equal(rig->sink.ready, order_count(&rig->sink.order));
	sink_check(&rig->sink, &shape);
}

/* Of each stripe one want, from a REPORT of all that nothing has come of yet. */
static void list_stripes(struct rig *rig, struct report_want want[])
{
	const uint32_t n = rig->sink.order.n_stripes;
	struct report_want w;
	uint32_t seen = 0;

	read_report(rig);
	for (size_t at = 0; report_next(&rig->report, &at, &w);) {
		assert_true(w.stripe < n);
		want[w.stripe] = w;
		seen |= 1u << w.stripe;
	}
	assert_int_equal(seen, (1u << n) - 1);
}

/* ---- cases ---- */

/* One chunk from the middle of each stripe's last block: before it and behind it some are missing. */
static void wants_bind__anew_with_holes_in_the_last_unit(void **state)
{
	struct report_want want[STRIPES];
	struct rig rig;

	for (int kind = ORDER_LAYER; kind <= ORDER_TAIL; kind++) {
		rig_make(&rig, kind, WIDE);
		list_stripes(&rig, want);
		for (uint32_t s = 0; s < STRIPES; s++)
			send_chunk(&rig, &want[s], per_stripe(&rig) - 3, &told);
		drain(&rig, &told);
		rig.chunk = NARROW;
		assert_ok(wants_bind(rig.wants, NARROW, &rig.err), &rig.err);
		assert_int_equal(rig.sink.ready, 0);
		bring_the_rest(&rig);
		rig_free(&rig);
	}
}

static bool happens(uint64_t *random, uint32_t percent)
{
	*random = *random * 6364136223846793005ull + 1442695040888963407ull;
	return (*random >> 33) % 100 < percent;
}

/*
 * Which chunks of a stripe come in a round: of each unit all, none, every second, or some;
 * complete[] says of which units all did.
 */
static void bring_some(struct rig *rig, const struct report_want *want, uint64_t *random,
		       bool complete[])
{
	const uint32_t n = per_unit(rig);

	for (uint32_t u = 0; u < LAYERS; u++) {
		uint32_t percent = happens(random, 40) ? 100 : happens(random, 20) ? 0 : 85;
		bool second = happens(random, 30), comes;

		complete[u] = true;
		for (uint32_t c = 0; c < n; c++) {
			comes = second ? c & 1 : happens(random, percent);
			complete[u] &= comes;
			if (comes)
				send_chunk(rig, want, u * n + c, &untold);
		}
	}
}

/* Exactly those units are found that are complete, wherever holes are, and however many. */
static void wants_look__finds_what_is_complete(void **state)
{
	struct report_want want[STRIPES];
	struct rig rig;

	for (uint64_t round = 0; round < 40; round++) {
		bool complete[STRIPES][LAYERS] = { { false } };
		uint64_t random = round;
		uint32_t n = 0;

		rig_make(&rig, round & 1 ? ORDER_TAIL : ORDER_LAYER, round & 2 ? TINY : WIDE);
		list_stripes(&rig, want);
		for (uint32_t s = 0; s < STRIPES; s++)
			bring_some(&rig, &want[s], &random, complete[s]);
		drain(&rig, &untold);
		assert_int_equal(rig.sink.ready, 0);
		assert_ok(wants_look(rig.wants, &rig.err), &rig.err);
		for (uint32_t s = 0; s < STRIPES; s++) {
			for (uint32_t u = 0; u < LAYERS; u++) {
				assert_int_equal(control_get(rig.sink.control, s, u),
						 complete[s][u] ? CONTROL_READY : CONTROL_WANTED);
				n += complete[s][u];
			}
		}
		assert_int_equal(rig.sink.ready, n);
		bring_the_rest(&rig);
		rig_free(&rig);
	}
}

/* Layers that the newest REPORT lists of stripe 0, as bits; of others there is nothing in it. */
static uint32_t listed_of_the_first(struct rig *rig)
{
	const size_t block = sink_bytes(&rig->sink, order_index(&rig->sink.order, 0, 0));
	const uint32_t per_unit = lslm_chunks_of((uint32_t)block, rig->chunk);
	struct report_want want;
	uint32_t layers = 0;

	read_report(rig);
	for (size_t at = 0; report_next(&rig->report, &at, &want);) {
		assert_int_equal(want.stripe, 0);
		assert_int_equal(want.n_ranges, 1);
		layers |= 1u << report_range(&want, 0).first / per_unit;
	}
	return layers;
}

/*
 * Of a link that is known to be thin, and of two levels: no second stripe is bound before it is seen how fast the first
 * one comes. In the order of layers the next block is the second one's, but what is bound has layers left.
 */
static void wants_write__next_layers_of_what_is_bound(void **state)
{
	const struct kv_geometry geo = { LAYERS, shape.n_head_kv, shape.head_dim };
	const int32_t tokens[64 * STRIPES] = { 0 };
	struct manifest *m;
	struct rig rig;

	memset(&rig, 0, sizeof(rig));
	assert_ok(manifest_new(&m, &geo, tokens, ARRAY_LEN(tokens), KV_LEVEL_F16, &rig.err),
		  &rig.err);
	assert_ok(manifest_add_level(m, KV_LEVEL_Q8, &rig.err), &rig.err);
	manifest_place(m, m->n_levels);
	sink_make_buffer(&rig.sink, m, ORDER_LAYER);
	choice_begin(rig.sink.choice, clock_seconds(), 3600, 0, 1);
	bind_all(&rig, WIDE);
	assert_int_equal(listed_of_the_first(&rig), (1u << LAYERS) - 1);
	for (uint32_t l = 0; l + 1 < LAYERS; l++) {
		sink_preload(&rig.sink, order_index(&rig.sink.order, 0, l));
		assert_ok(wants_bind(rig.wants, WIDE, &rig.err), &rig.err);
		assert_int_equal(listed_of_the_first(&rig), (1u << LAYERS) - (2u << l));
	}
	rig_free(&rig);
	manifest_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wants_bind__anew_with_holes_in_the_last_unit),
		cmocka_unit_test(wants_look__finds_what_is_complete),
		cmocka_unit_test(wants_write__next_layers_of_what_is_bound),
	};

	return cmocka_run_group_tests_name("wants", tests, setup, teardown);
}
