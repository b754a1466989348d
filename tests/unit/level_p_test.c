// SPDX-License-Identifier: MIT
/* Level p through a courier: a unit is a stripe, and it is decoded with the calibration that its publisher signed. */
#include "unit.h"

#include <sodium.h>
#include <unistd.h>

#include "codec/codec.h"
#include "kv/lskv.h"
#include "net/courier.h"
#include "synthetic_kv.h"

enum { STRIPES = 3, TOKENS = STRIPES * KV_BLOCK_TOKENS + 5 };

static const struct kv_geometry geo = { 3, 2, 16 };
static struct calibration *cal;
static char dir[] = "/tmp/lslm-level-p-XXXXXX";
static char path[64];
static uint8_t trusted[1][MANIFEST_PUBKEY_BYTES], seckey[MANIFEST_SECKEY_BYTES];

static int setup(void **state)
{
	if (!mkdtemp(dir) || sodium_init() < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/context.lskv", dir);
	crypto_sign_keypair(trusted[0], seckey);
	return synthetic_calibration(&cal, &geo);
}

static int teardown(void **state)
{
	calibration_free(cal);
	unlink(path);
	return rmdir(dir);
}

struct writer {
	struct manifest *m;
	uint8_t *coded;
	bool spoil; /* what is signed of the last stripe */
};

static const void *next(void *arg, uint32_t lv, uint32_t s)
{
	struct writer *w = arg;
	uint8_t *stripe = synthetic_stripe(&geo, 100 + s);

	assert_true(codec_encode(&geo, KV_LEVEL_P, cal, s * KV_BLOCK_TOKENS, stripe, w->coded,
				 &w->m->levels[lv].unit_bytes[s]));
	if (w->spoil && s == STRIPES - 1)
		w->coded[0] ^= 1;
	free(stripe);
	return w->coded;
}

static void write_context(bool spoil)
{
	struct writer w = { .coded = malloc(codec_stripe_bound(&geo, KV_LEVEL_P)), .spoil = spoil };
	struct lslm_error err = { 0 };
	int32_t tokens[TOKENS];

	for (int32_t i = 0; i < TOKENS; i++)
		tokens[i] = i;
	assert_ok(manifest_new(&w.m, &geo, tokens, TOKENS, KV_LEVEL_P, &err), &err);
	w.m->levels[0].calibration = cal->fingerprint;
	assert_ok(lskv_write(path, w.m, seckey, next, &w, &err), &err);
	manifest_free(w.m);
	free(w.coded);
}

/* A place that outlives couriers. */
struct kept {
	int fds[2];
	bool full;
};

static int reclaim(void *arg, const struct kv_hash *key, const struct kv_hash *digest, int *buffer,
		   int *control)
{
	const struct kept *k = arg;

	if (!k->full)
		return -ENOENT;
	*buffer = dup(k->fds[0]);
	*control = dup(k->fds[1]);
	return 0;
}

static void deposit(void *arg, const struct kv_hash *key, const struct kv_hash *digest, int buffer,
		    int control)
{
	struct kept *k = arg;

	if (k->full)
		return;
	*k = (struct kept){ { dup(buffer), dup(control) }, true };
}

static struct courier_opts opts_for(const struct calibrations *calibrations)
{
	return (struct courier_opts){
		.source = path,
		.trusted = (const void *)trusted,
		.n_trusted = 1,
		.backend = BUFFER_MEMFD,
		.calibrations = calibrations,
	};
}

/* Every stripe is what its encoded bytes stand for. */
static void check_contents(struct courier *c)
{
	const size_t bytes = kv_stripe_bytes(&geo, KV_LEVEL_F16);
	uint8_t *coded = malloc(codec_stripe_bound(&geo, KV_LEVEL_P)), *want = malloc(bytes);
	struct lslm_error err = { 0 };
	struct buffer *b;

	assert_int_equal(courier_pitch(c), bytes);
	assert_ok(buffer_import(&b, courier_buffer_fd(c, &err), &err), &err);
	for (uint32_t s = 0; s < STRIPES; s++) {
		uint8_t *stripe = synthetic_stripe(&geo, 100 + s);
		uint32_t size;

		codec_encode(&geo, KV_LEVEL_P, cal, s * KV_BLOCK_TOKENS, stripe, coded, &size);
		assert_ok(codec_decode(&geo, KV_LEVEL_P, cal, s * KV_BLOCK_TOKENS, 0, coded, size,
				       want, &err),
			  &err);
		assert_memory_equal((const uint8_t *)buffer_ro_data(b) + s * bytes, want, bytes);
		free(stripe);
	}
	buffer_close(b);
	free(coded);
	free(want);
}

static void run_whole(const struct courier_opts *opts, struct courier_stats *stats)
{
	struct lslm_error err = { 0 };
	struct courier *c;

	assert_ok(courier_open(&c, opts, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	check_contents(c);
	courier_stats(c, stats);
	assert_int_equal(stats->blocks_ready, STRIPES * geo.n_layer);
	assert_int_equal(stats->blocks_at[KV_LEVEL_P], STRIPES * geo.n_layer);
	courier_close(c);
}

/* Killed between marks of a stripe, and before those of another one. */
static void lose_marks(const struct kept *k)
{
	struct lslm_error err = { 0 };
	struct control *control;

	assert_ok(control_import(&control, dup(k->fds[1]), &err), &err);
	control_set(control, 0, 0, CONTROL_FAILED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	control_set(control, 0, 2, CONTROL_FAILED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	for (uint32_t l = 0; l < geo.n_layer; l++)
		control_set(control, 1, l, CONTROL_FAILED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	control_close(control);
}

static void courier_run__brings_stripes_and_adopts_them(void **state)
{
	struct calibrations one = { &cal, 1 };
	struct kept kept = { .full = false };
	const struct courier_custody custody = { reclaim, deposit, &kept };
	struct courier_opts opts = opts_for(&one);
	struct courier_stats stats;
	uint64_t whole;

	write_context(false);
	opts.custody = &custody;
	run_whole(&opts, &stats);
	assert_int_equal(stats.blocks_adopted, 0);
	whole = stats.bytes_received;
	lose_marks(&kept);
	run_whole(&opts, &stats);
	assert_int_equal(stats.blocks_adopted, (STRIPES - 1) * geo.n_layer);
	assert_true(stats.bytes_received < whole);
	close(kept.fds[0]);
	close(kept.fds[1]);
}

static void courier_open__wants_the_calibration_that_was_signed(void **state)
{
	struct lslm_error err = { 0 };
	struct courier_opts opts = opts_for(NULL);
	struct calibration *other;
	struct calibrations others = { &other, 1 };
	struct courier *c;

	write_context(false);
	assert_int_equal(courier_open(&c, &opts, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "level p was made with calibration "));
	cal->data[cal->size - 1] ^= 1;
	assert_ok(calibration_parse(&other, cal->data, cal->size, &err), &err);
	cal->data[cal->size - 1] ^= 1;
	opts.calibrations = &others;
	assert_int_equal(courier_open(&c, &opts, &err), -ENOTSUP);
	calibration_free(other);
}

/* Its publisher signed bytes that no encoder writes. */
static void courier_run__refuses_what_cannot_be_decoded(void **state)
{
	struct calibrations one = { &cal, 1 };
	struct courier_opts opts = opts_for(&one);
	struct lslm_error err = { 0 };
	struct courier_stats stats;
	struct courier *c;

	write_context(true);
	assert_ok(courier_open(&c, &opts, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_int_equal(courier_finish(c, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "a damaged stripe of level p"));
	courier_stats(c, &stats);
	assert_true(stats.blocks_ready <= (STRIPES - 1) * geo.n_layer);
	courier_close(c);
}

/* Two files of calibrations, by what they are for. */
static void calibrations_open__one_of_each_model(void **state)
{
	const char *const paths[] = { path, path };
	struct calibrations s = { 0 };
	struct lslm_error err = { 0 };
	FILE *f = fopen(path, "wb");

	assert_int_equal(fwrite(cal->data, 1, cal->size, f), cal->size);
	fclose(f);
	assert_ok(calibrations_open(&s, paths, 1, &err), &err);
	assert_ptr_equal(calibrations_named(&s, &cal->fingerprint), s.v[0]);
	assert_ptr_equal(calibrations_for(&s, &cal->model), s.v[0]);
	assert_null(calibrations_named(&s, &cal->model));
	assert_null(calibrations_for(NULL, &cal->model));
	calibrations_free(&s);
	assert_int_equal(calibrations_open(&s, paths, 2, &err), -EEXIST);
	calibrations_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(courier_run__brings_stripes_and_adopts_them),
		cmocka_unit_test(courier_open__wants_the_calibration_that_was_signed),
		cmocka_unit_test(courier_run__refuses_what_cannot_be_decoded),
		cmocka_unit_test(calibrations_open__one_of_each_model),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
