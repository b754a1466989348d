// SPDX-License-Identifier: MIT
/*
 * A courier with a .lskv file as its source. What comes over HTTPS is tested by source_https_test and by
 * the programs in tests/net.
 */
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codec/codec.h"
#include "kv/lskv.h"
#include "net/courier.h"
#include "net/order.h"
#include "no_io_uring.h"
#include "sink.h"
#include "synthetic.h"

static char dir[] = "/tmp/lslm-courier-XXXXXX";
static char path[64];

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/context.lskv", dir);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static struct courier_opts opts_for(const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES])
{
	return (struct courier_opts){
		.source = path,
		.trusted = trusted,
		.n_trusted = 1,
		.backend = BUFFER_MEMFD,
	};
}

/* Two shapes: blocks of 4096 bytes times something (O_DIRECT), and smaller ones. */
static const struct synthetic shapes[] = {
	{ .n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 7 + 5 },
	{ .n_layer = 2, .n_head_kv = 1, .head_dim = 8, .n_tokens = 64 * 3 },
	{ .n_layer = 1, .n_head_kv = 1, .head_dim = 64, .n_tokens = 64 },
	{ .n_layer = 5, .n_head_kv = 3, .head_dim = 32, .n_tokens = 64 * 40 },
};

static void write_context(const struct synthetic *shape)
{
	struct lslm_error err = { 0 };
	struct kv_hash key;

	assert_ok(synthetic_write(shape, path, &key, &err), &err);
}

static void check_contents(struct courier *c, const struct synthetic *shape)
{
	const struct manifest *m = courier_manifest(c);
	struct lslm_error err = { 0 };
	struct control *control;
	struct buffer *b;
	size_t stripe_bytes = kv_stripe_bytes(&m->geo, KV_LEVEL_F16);
	uint8_t *want = malloc(stripe_bytes);
	int fd;

	fd = courier_buffer_fd(c, &err);
	assert_ok(buffer_import(&b, fd, &err), &err);
	fd = courier_control_fd(c, &err);
	assert_ok(control_import(&control, fd, &err), &err);
	assert_null(buffer_data(b));
	for (uint32_t l = 0; l < m->geo.n_layer; l++)
		assert_int_equal(control_wait_layer(control, l, 10000), 0);
	for (uint32_t s = 0; s < m->n_stripes; s++) {
		synthetic_stripe(shape, s, want);
		assert_memory_equal((const uint8_t *)buffer_ro_data(b) + s * stripe_bytes, want,
				    stripe_bytes);
		assert_int_equal(control_get_source(control, s, 0), CONTROL_FROM_FILE);
	}
	control_close(control);
	buffer_close(b);
	free(want);
}

/* Custody of one place, in this process. */
struct kept {
	struct kv_hash key, digest;
	int fds[2]; /* -1: none */
	unsigned int deposits;
};

static int reclaim(void *arg, const struct kv_hash *key, const struct kv_hash *digest, int *buffer,
		   int *control)
{
	const struct kept *k = arg;

	if (k->fds[0] < 0 || !kv_hash_equal(&k->key, key) || !kv_hash_equal(&k->digest, digest))
		return -ENOENT;
	*buffer = dup(k->fds[0]);
	*control = dup(k->fds[1]);
	return 0;
}

static void deposit(void *arg, const struct kv_hash *key, const struct kv_hash *digest, int buffer,
		    int control)
{
	struct kept *k = arg;

	for (int i = 0; i < 2; i++) {
		if (k->fds[i] >= 0)
			close(k->fds[i]);
		k->fds[i] = dup(i ? control : buffer);
	}
	k->key = *key;
	k->digest = *digest;
	k->deposits++;
}

static void run_whole(const struct courier_opts *opts, struct courier_stats *stats)
{
	struct lslm_error err = { 0 };
	struct courier *c;

	assert_ok(courier_open(&c, opts, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	check_contents(c, &shapes[0]);
	courier_stats(c, stats);
	assert_int_equal(stats->blocks_ready, stats->blocks_total);
	courier_close(c);
}

/* What another process would find, changed by `change`. */
static void change_kept(const struct kept *k, void (*change)(struct control *, struct buffer *))
{
	struct lslm_error err = { 0 };
	struct control *control;
	struct buffer *b;

	assert_ok(buffer_import(&b, dup(k->fds[0]), &err), &err);
	assert_ok(control_import(&control, dup(k->fds[1]), &err), &err);
	change(control, b);
	control_close(control);
	buffer_close(b);
}

static void lose_a_block(struct control *control, struct buffer *b)
{
	control_set(control, 0, 0, CONTROL_FAILED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	memset(buffer_data(b), 0, 64);
}

static void purge(struct control *control, struct buffer *b)
{
	assert_int_equal(buffer_purge(b, NULL, NULL), 0);
}

static void courier_run__goes_on_where_an_earlier_process_was(void **state)
{
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct kept kept = { .fds = { -1, -1 } };
	const struct courier_custody custody = { reclaim, deposit, &kept };
	struct courier_opts opts = opts_for((const void *)trusted);
	struct courier_stats stats;
	uint64_t whole;

	write_context(&shapes[0]);
	synthetic_pubkey(&shapes[0], trusted[0]);
	opts.custody = &custody;
	run_whole(&opts, &stats);
	assert_int_equal(kept.deposits, 1);
	assert_int_equal(stats.blocks_adopted, 0);
	whole = stats.bytes_received;
	/* All is there. */
	run_whole(&opts, &stats);
	assert_int_equal(stats.blocks_adopted, stats.blocks_total);
	assert_true(stats.bytes_received < whole / 2);
	/* All but one. */
	change_kept(&kept, lose_a_block);
	run_whole(&opts, &stats);
	assert_int_equal(stats.blocks_adopted, stats.blocks_total - 1);
	/* The memory was taken away. */
	change_kept(&kept, purge);
	run_whole(&opts, &stats);
	assert_int_equal(stats.blocks_adopted, 0);
	assert_int_equal(kept.deposits, 4);
	/* Another publication of the same. */
	kept.digest.b[0] ^= 1;
	run_whole(&opts, &stats);
	assert_int_equal(stats.blocks_adopted, 0);
	/* No buffer at all. */
	assert_int_equal(dup2(STDIN_FILENO, kept.fds[0]), kept.fds[0]);
	run_whole(&opts, &stats);
	assert_int_equal(stats.blocks_adopted, 0);
	close(kept.fds[0]);
	close(kept.fds[1]);
}

/* A context on offer at f16, q4 and e. */
struct level_writer {
	const struct synthetic *shape;
	struct manifest *m;
	uint8_t *in, *out;
	uint32_t lengths[16];
};

static const void *next_stripe(void *arg, uint32_t lv, uint32_t s)
{
	struct level_writer *w = arg;
	struct manifest_level *level = &w->m->levels[lv];

	synthetic_stripe(w->shape, s, w->in);
	codec_encode(&w->m->geo, level->level, NULL, s * KV_BLOCK_TOKENS, w->in, w->out,
		     w->lengths);
	if (level->unit_bytes)
		memcpy(level->unit_bytes + s * level->n_units, w->lengths,
		       level->n_units * sizeof(*w->lengths));
	return w->out;
}

static void write_levels(const struct synthetic *x)
{
	const struct kv_geometry geo = { x->n_layer, x->n_head_kv, x->head_dim };
	uint8_t pub[MANIFEST_PUBKEY_BYTES], sec[MANIFEST_SECKEY_BYTES];
	struct level_writer w = { .shape = x };
	struct lslm_error err = { 0 };
	int32_t *tokens = calloc(x->n_tokens, sizeof(*tokens));

	w.in = malloc(kv_stripe_bytes(&geo, KV_LEVEL_F16));
	w.out = malloc(kv_stripe_bytes(&geo, KV_LEVEL_F16) * 2);
	synthetic_keys(x, pub, sec);
	assert_ok(manifest_new(&w.m, &geo, tokens, x->n_tokens, KV_LEVEL_F16, &err), &err);
	assert_ok(manifest_add_level(w.m, KV_LEVEL_Q4, &err), &err);
	assert_ok(manifest_add_level(w.m, KV_LEVEL_E, &err), &err);
	assert_ok(lskv_write(path, w.m, sec, next_stripe, &w, &err), &err);
	manifest_free(w.m);
	free(w.in);
	free(w.out);
	free(tokens);
}

/* The stripe lies there as this level brings it, and says so. */
static void check_stripe(struct courier *c, const struct control *control, const uint8_t *base,
			 const struct synthetic *x, uint32_t s, enum kv_level level)
{
	const struct kv_geometry *geo = &courier_manifest(c)->geo;
	const size_t f16 = kv_stripe_bytes(geo, KV_LEVEL_F16), block = f16 / geo->n_layer;
	uint8_t *in = malloc(f16), *coded = malloc(2 * f16), *at = coded;
	struct lslm_error err = { 0 };
	uint32_t lengths[16];

	synthetic_stripe(x, s, in);
	codec_encode(geo, level, NULL, s * KV_BLOCK_TOKENS, in, coded, lengths);
	for (uint32_t l = 0; l < geo->n_layer; at += lengths[l++]) {
		assert_int_equal(control_get(control, s, l), CONTROL_READY);
		assert_int_equal(control_get_level(control, s, l), level);
		if (!codec_in_place(level))
			assert_ok(codec_decode(geo, level, NULL, s * KV_BLOCK_TOKENS, l, at,
					       lengths[l], in + l * block, &err),
				  &err);
	}
	assert_memory_equal(base + s * courier_pitch(c), codec_in_place(level) ? coded : in,
			    kv_stripe_bytes(geo, kv_level_in_memory(level)));
	free(in);
	free(coded);
}

/* Runs with these levels; then all stripes are at `level`, but for one at another level. Returns the blocks adopted. */
static uint64_t run_levels(const struct courier_opts *opts, uint32_t levels, enum kv_level level,
			   uint32_t but, enum kv_level other)
{
	struct courier_opts o = *opts;
	struct lslm_error err = { 0 };
	struct courier_stats stats;
	struct control *control;
	struct courier *c;
	struct buffer *b;

	o.levels = levels;
	assert_ok(courier_open(&c, &o, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_ok(courier_finish(c, &err), &err);
	assert_ok(buffer_import(&b, courier_buffer_fd(c, &err), &err), &err);
	assert_ok(control_import(&control, courier_control_fd(c, &err), &err), &err);
	for (uint32_t s = 0; s < courier_manifest(c)->n_stripes; s++)
		check_stripe(c, control, buffer_ro_data(b), &shapes[0], s,
			     s == but ? other : level);
	courier_stats(c, &stats);
	assert_int_equal(stats.blocks_ready, stats.blocks_total);
	control_close(control);
	buffer_close(b);
	courier_close(c);
	return stats.blocks_adopted;
}

/* Stripe 2 as if nothing of it had come yet. */
static void lose_a_stripe(struct control *control, struct buffer *b)
{
	for (uint32_t l = 0; l < control_n_layer(control); l++)
		control_set(control, 2, l, CONTROL_WANTED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	memset(buffer_data(b), 0, 64);
}

/* A page that no courier writes. */
static void mix_levels(struct control *control, struct buffer *b)
{
	control_set(control, 1, 1, CONTROL_READY, CONTROL_FROM_FILE, KV_LEVEL_Q4);
}

static void courier_run__goes_on_at_the_level_of_what_is_there(void **state)
{
	enum { F16 = 1 << KV_LEVEL_F16, Q4 = 1 << KV_LEVEL_Q4, E = 1 << KV_LEVEL_E, NO = 99 };
	static const enum kv_level first[] = { KV_LEVEL_Q4, KV_LEVEL_E };
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct kept kept = { .fds = { -1, -1 } };
	const struct courier_custody custody = { reclaim, deposit, &kept };
	struct courier_opts opts = opts_for((const void *)trusted);
	const uint64_t n = 7 * shapes[0].n_layer;

	write_levels(&shapes[0]);
	synthetic_pubkey(&shapes[0], trusted[0]);
	opts.custody = &custody;
	for (size_t i = 0; i < ARRAY_LEN(first); i++) {
		const enum kv_level level = first[i];
		const uint32_t too = 1u << level | F16;

		/* With f16 allowed places are as far apart as when all may come, but q4 alone is nearer. */
		assert_int_equal(run_levels(&opts, 1u << level, level, NO, 0), 0);
		if (level == KV_LEVEL_Q4) {
			assert_int_equal(run_levels(&opts, too, KV_LEVEL_F16, NO, 0), 0);
			continue;
		}
		assert_int_equal(run_levels(&opts, too, level, NO, 0), n);
		/* The rest of a stripe comes at its level, though a finer one could. */
		change_kept(&kept, lose_a_block);
		assert_int_equal(run_levels(&opts, too, level, NO, 0), n - 1);
		/* All of a stripe comes at the finest. */
		change_kept(&kept, lose_a_stripe);
		change_kept(&kept, lose_a_block);
		assert_int_equal(run_levels(&opts, too, level, 2, KV_LEVEL_F16),
				 n - shapes[0].n_layer - 1);
		/* What may not come any more is not kept either. */
		assert_int_equal(run_levels(&opts, F16, KV_LEVEL_F16, NO, 0), 0);
		change_kept(&kept, mix_levels);
		assert_int_equal(run_levels(&opts, too | Q4, KV_LEVEL_F16, NO, 0), 0);
	}
	close(kept.fds[0]);
	close(kept.fds[1]);
}

static void courier_run__receives_all(void **state)
{
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct courier_stats stats;
	struct lslm_error err = { 0 };
	struct courier *c;
	struct stat st;

	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		write_context(&shapes[i]);
		synthetic_pubkey(&shapes[i], trusted[0]);
		assert_ok(courier_open(&c, &opts, &err), &err);
		assert_ok(courier_run(c, &err), &err);
		assert_int_equal(courier_run(c, &err), -EALREADY);
		check_contents(c, &shapes[i]);
		assert_ok(courier_finish(c, &err), &err);
		assert_ok(courier_finish(c, &err), &err);
		courier_stats(c, &stats);
		assert_int_equal(stats.blocks_ready, stats.blocks_total);
		assert_int_equal(stats.blocks_total, shapes[i].n_layer * (shapes[i].n_tokens / 64));
		assert_int_equal(stat(path, &st), 0);
		assert_true(stats.bytes_received <= (uint64_t)st.st_size);
		print_message("# %s\n", stats.path);
		courier_close(c);
	}
}

/* The manifest is all there is. */
static void courier_run__context_without_a_block(void **state)
{
	static const struct synthetic shape = {
		.n_layer = 2, .n_head_kv = 1, .head_dim = 64, .n_tokens = 63
	};
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct lslm_error err = { 0 };
	struct courier *c;

	write_context(&shape);
	synthetic_pubkey(&shape, trusted[0]);
	assert_ok(courier_open(&c, &opts, &err), &err);
	assert_int_equal(courier_buffer_fd(c, &err), -EINVAL);
	assert_int_equal(courier_control_fd(c, &err), -EINVAL);
	assert_int_equal(courier_finish(c, &err), -EINVAL);
	assert_int_equal(courier_run(c, &err), -ENODATA);
	assert_int_equal(courier_finish(c, &err), -EINVAL);
	assert_int_equal(courier_manifest(c)->n_tokens, 63);
	courier_close(c);
}

static int receive_without_io_uring(const struct synthetic *shape)
{
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct courier_stats stats;
	struct courier *c;

	synthetic_pubkey(shape, trusted[0]);
	if (forbid_io_uring())
		return 77;
	if (courier_open(&c, &opts, NULL) || courier_run(c, NULL) || courier_finish(c, NULL))
		return 1;
	courier_stats(c, &stats);
	if (!strstr(stats.path, "pread") || !strstr(stats.path, "no io_uring"))
		return 2;
	check_contents(c, shape);
	courier_close(c);
	return 0;
}

/* Where a container forbids it: slower, and said so. */
static void courier_run__without_io_uring(void **state)
{
	int status;
	pid_t pid;

	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		write_context(&shapes[i]);
		pid = fork();
		if (!pid)
			_exit(receive_without_io_uring(&shapes[i]));
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
			print_message("# SKIP no seccomp filters here\n");
			skip();
		}
		assert_int_equal(status, 0);
	}
}

static void flip_bit(off_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* The block is named and never marked; what is missing is FAILED, so that nobody waits for it. */
static void courier_run__flipped_bit(void **state)
{
	const struct synthetic *shape = &shapes[0];
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct lslm_error err = { 0 };
	struct control *control;
	struct courier *c;
	struct lskv *f;
	off_t at;

	write_context(shape);
	synthetic_pubkey(shape, trusted[0]);
	assert_ok(lskv_open(&f, path, &err), &err);
	at = lskv_unit_offset(f, manifest_level(lskv_manifest(f), KV_LEVEL_F16), 4, 1) + 77;
	lskv_close(f);
	flip_bit(at);
	assert_ok(courier_open(&c, &opts, &err), &err);
	assert_ok(courier_run(c, &err), &err);
	assert_int_equal(courier_finish(c, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "stripe 4, layer 1"));
	assert_non_null(strstr(err.text, path));
	assert_ok(control_import(&control, courier_control_fd(c, &err), &err), &err);
	assert_int_equal(control_get(control, 4, 1), CONTROL_FAILED);
	for (uint32_t s = 0; s < 7; s++)
		for (uint32_t l = 0; l < 3; l++)
			assert_int_not_equal(control_get(control, s, l), CONTROL_WANTED);
	assert_int_equal(control_wait_layer(control, 1, 1000), -EIO);
	control_close(control);
	courier_close(c);
}

/* No thread can be had: the run has failed, and the next one may succeed. */
static void courier_run__without_a_thread(void **state)
{
	const struct synthetic *shape = &shapes[0];
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct lslm_error err = { 0 };
	pthread_attr_t usual, huge;
	struct courier *c;

	write_context(shape);
	synthetic_pubkey(shape, trusted[0]);
	assert_int_equal(pthread_getattr_default_np(&usual), 0);
	assert_int_equal(pthread_getattr_default_np(&huge), 0);
	assert_int_equal(pthread_attr_setstacksize(&huge, 1UL << 50), 0);
	assert_ok(courier_open(&c, &opts, &err), &err);
	assert_int_equal(pthread_setattr_default_np(&huge), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(courier_run(c, &err), -EAGAIN);
		assert_true(courier_failed(c, &err));
		assert_int_equal(courier_finish(c, &err), -EAGAIN);
	}
	assert_int_equal(pthread_setattr_default_np(&usual), 0);
	assert_ok(courier_run(c, &err), &err);
	check_contents(c, shape);
	assert_ok(courier_finish(c, &err), &err);
	courier_close(c);
	pthread_attr_destroy(&usual);
	pthread_attr_destroy(&huge);
}

/* Cut between the open and the reads: what lskv_open() has seen is no promise. */
static void courier_run__file_cut_meanwhile(void **state)
{
	const struct synthetic *shape = &shapes[3];
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct lslm_error err = { 0 };
	struct courier *c;
	struct stat st;

	write_context(shape);
	synthetic_pubkey(shape, trusted[0]);
	assert_ok(courier_open(&c, &opts, &err), &err);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size / 2 + 100), 0);
	assert_ok(courier_run(c, &err), &err);
	assert_int_equal(courier_finish(c, &err), -ENODATA);
	assert_non_null(strstr(err.text, "cut short"));
	courier_close(c);
}

static void courier_open__refuses(void **state)
{
	const struct synthetic *shape = &shapes[0];
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES] = { { 1, 2, 3 } };
	struct courier_opts opts = opts_for((const void *)trusted);
	struct lslm_error err = { 0 };
	struct courier *c;
	struct stat st;

	write_context(shape);
	assert_int_equal(courier_open(&c, &opts, &err), -EKEYREJECTED);
	opts.n_trusted = 0;
	assert_int_equal(courier_open(&c, &opts, &err), -EKEYREJECTED);
	opts.n_trusted = 1;
	synthetic_pubkey(shape, trusted[0]);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size - 1), 0);
	assert_true(courier_open(&c, &opts, &err) < 0);
	assert_int_equal(truncate(path, 0), 0);
	assert_true(courier_open(&c, &opts, &err) < 0);
	opts.source = "/nonexistent/x.lskv";
	assert_int_equal(courier_open(&c, &opts, &err), -ENOENT);
	opts.source = dir;
	assert_true(courier_open(&c, &opts, &err) < 0);
}

/* Closed while it runs: it must neither hang nor touch the buffer afterwards (ASan looks on). */
static void courier_close__while_running(void **state)
{
	const struct synthetic *shape = &shapes[3];
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct lslm_error err = { 0 };
	struct courier *c;

	write_context(shape);
	synthetic_pubkey(shape, trusted[0]);
	for (int i = 0; i < 20; i++) {
		assert_ok(courier_open(&c, &opts, &err), &err);
		assert_ok(courier_run(c, &err), &err);
		usleep(i * 50);
		courier_close(c);
	}
}

static struct source *open_source(const struct synthetic *shape)
{
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct lslm_error err = { 0 };
	struct source *s;

	write_context(shape);
	assert_ok(source_file_open(&s, &opts, &err), &err);
	return s;
}

/* What is there already is neither fetched nor written, in both orders. */
static void source_file__leaves_what_is_ready(void **state)
{
	const struct synthetic *shape = &shapes[3];
	struct lslm_error err = { 0 };
	struct lskv *f;
	struct source *s;
	struct sink sink;
	uint32_t n, wanted;

	for (int kind = ORDER_LAYER; kind <= ORDER_TAIL; kind++) {
		s = open_source(shape);
		assert_ok(lskv_open(&f, path, &err), &err);
		sink_make(&sink, lskv_manifest(f), kind);
		n = order_count(&sink.order);
		for (uint32_t i = wanted = 0; i < n; i++) {
			if (i % 3 == 1 || (i > 20 && i < 90) || i == n - 1)
				sink_preload(&sink, i);
			wanted += sink_wants(&sink, i);
		}
		assert_true(wanted > 50 && !sink_is_done(&sink));
		assert_ok(s->ops->receive(s, &sink, &err), &err);
		assert_true(sink_is_done(&sink));
		assert_int_equal(control_tail(sink.control), 0);
		assert_int_equal(sink.ready, wanted);
		assert_int_equal(sink.received, wanted * sink_block_bytes(&sink));
		sink_check(&sink, shape);
		s->ops->close(s);
		lskv_close(f);
		sink_free(&sink);
	}
}

static void source_file__leaves_what_was_computed(void **state)
{
	const struct synthetic *shape = &shapes[3];
	struct lslm_error err = { 0 };
	struct lskv *f;
	struct source *s = open_source(shape);
	struct sink sink;

	assert_ok(lskv_open(&f, path, &err), &err);
	sink_make(&sink, lskv_manifest(f), ORDER_TAIL);
	sink.head = 11;
	assert_ok(s->ops->receive(s, &sink, &err), &err);
	assert_int_equal(sink.ready, (40 - 11) * 5);
	assert_int_equal(control_tail(sink.control), 11);
	sink_check(&sink, shape);
	/* Further up there is nothing to do. */
	sink.head = 12;
	assert_ok(s->ops->receive(s, &sink, &err), &err);
	assert_int_equal(sink.ready, (40 - 11) * 5);
	sink.head = 9;
	assert_ok(s->ops->receive(s, &sink, &err), &err);
	assert_int_equal(sink.ready, (40 - 9) * 5);
	s->ops->close(s);
	lskv_close(f);
	sink_free(&sink);
}

/* The tail arrives from the end; with the head told from here, the rest is a success. */
static void courier_set_head__ends_it(void **state)
{
	const struct synthetic *shape = &shapes[3];
	uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
	struct courier_opts opts = opts_for((const void *)trusted);
	struct courier_stats stats;
	struct lslm_error err = { 0 };
	struct control *control;
	struct courier *c;
	struct lskv *f;

	write_context(shape);
	synthetic_pubkey(shape, trusted[0]);
	/* Stripe 20 is damaged, so the tail can only come to 21. */
	assert_ok(lskv_open(&f, path, &err), &err);
	flip_bit(lskv_unit_offset(f, manifest_level(lskv_manifest(f), KV_LEVEL_F16), 20, 0));
	lskv_close(f);
	opts.order = ORDER_TAIL;
	for (int i = 0; i < 2; i++) {
		assert_ok(courier_open(&c, &opts, &err), &err);
		courier_set_head(c, i ? 21 : 5);
		courier_set_head(c, 3);
		assert_ok(courier_run(c, &err), &err);
		assert_ok(control_import(&control, courier_control_fd(c, &err), &err), &err);
		assert_int_equal(control_wait_tail(control, 21, 10000), 0);
		assert_int_equal(courier_finish(c, &err), i ? 0 : -EBADMSG);
		courier_stats(c, &stats);
		/* Reads end in any order: all but the damaged block may have come before it. */
		if (i)
			assert_int_equal(stats.blocks_ready, 19 * 5);
		else
			assert_true(stats.blocks_ready >= 19 * 5 && stats.blocks_ready < 35 * 5);
		assert_int_equal(control_get(control, 4, 0), i ? CONTROL_WANTED : CONTROL_FAILED);
		control_close(control);
		courier_close(c);
	}
}

static void order_block__visits_each_once(void **state)
{
	static const struct order orders[] = {
		{ ORDER_LAYER, 1, 1 }, { ORDER_TAIL, 1, 1 }, { ORDER_LAYER, 5, 3 },
		{ ORDER_TAIL, 5, 3 },  { ORDER_TAIL, 1, 7 }, { ORDER_LAYER, 7, 1 },
	};
	uint32_t s, l;

	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		uint64_t seen = 0;

		for (uint32_t n = 0; n < order_count(&orders[i]); n++) {
			order_block(&orders[i], n, &s, &l);
			assert_true(s < orders[i].n_stripes && l < orders[i].n_layer);
			seen |= 1ull << (s * orders[i].n_layer + l);
		}
		assert_int_equal(seen, (1ull << order_count(&orders[i])) - 1);
	}
	order_block(&orders[2], 5, &s, &l);
	assert_true(s == 0 && l == 1);
	order_block(&orders[3], 3, &s, &l);
	assert_true(s == 3 && l == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_block__visits_each_once),
		cmocka_unit_test(courier_open__refuses),
		cmocka_unit_test(courier_run__receives_all),
		cmocka_unit_test(courier_run__goes_on_where_an_earlier_process_was),
		cmocka_unit_test(courier_run__goes_on_at_the_level_of_what_is_there),
		cmocka_unit_test(courier_run__context_without_a_block),
		cmocka_unit_test(courier_run__without_io_uring),
		cmocka_unit_test(courier_run__flipped_bit),
		cmocka_unit_test(courier_run__without_a_thread),
		cmocka_unit_test(courier_run__file_cut_meanwhile),
		cmocka_unit_test(courier_close__while_running),
		cmocka_unit_test(courier_set_head__ends_it),
		cmocka_unit_test(source_file__leaves_what_is_ready),
		cmocka_unit_test(source_file__leaves_what_was_computed),
	};

	return cmocka_run_group_tests_name("courier", tests, setup, teardown);
}
