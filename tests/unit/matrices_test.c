// SPDX-License-Identifier: MIT
/*
 * Packed weights in a file, and every way in which they come from there, on the model that is in the
 * repository: 3 layers of F16. What has to come is what packing at start gives.
 */
#include "unit.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "compute/matmul.h"
#include "engine/matrices.h"
#include "engine/packfile.h"
#include "kv/buffer.h"
#include "kv/control.h"
#include "kv/hugemem.h"
#include "no_io_uring.h"

enum { LAYERS = 3, N = LAYERS * MATRICES_PER_LAYER + 1 };

static char dir[PATH_MAX], source[PATH_MAX], *packed;
static struct pool *pool;
static struct model *model;
static struct matrices *reference;

static void copy_model(void)
{
	struct lslm_error err = { 0 };
	size_t size;
	char *data;

	assert_ok(file_read("tests/models/handbook-edge.gguf", 64 << 20, &data, &size, &err), &err);
	assert_ok(file_write(source, data, size, 0600, FILE_REPLACE, &err), &err);
	free(data);
}

static void open_model(void)
{
	struct lslm_error err = { 0 };
	const struct matrices_opts at_start = { .load = MATRICES_PACK };

	assert_ok(model_open(&model, source, &err), &err);
	assert_int_equal(model->params.n_layer, LAYERS);
	assert_ok(matrices_open(&reference, model, pool, &at_start, &err), &err);
}

static void close_model(void)
{
	matrices_close(reference);
	model_close(model);
	reference = NULL;
	model = NULL;
}

static int setup(void **state)
{
	struct lslm_error err = { 0 };

	snprintf(dir, sizeof(dir), "/tmp/lslm-matrices-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(source, sizeof(source), "%.4000s/model.gguf", dir);
	setenv("XDG_CACHE_HOME", dir, 1);
	matmul_init();
	if (pool_create(&pool, 2, &err))
		return -1;
	copy_model();
	open_model();
	assert_ok(matrices_pack(model, pool, NULL, NULL, &packed, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	close_model();
	pool_destroy(pool);
	free(packed);
	return remove_tree(dir);
}

static const struct weight *all(const struct matrices *m)
{
	return &matrices_layers(m)->wq;
}

static bool same(const struct weight *a, const struct weight *b)
{
	const size_t bytes = gguf_row_bytes(a->type, a->n_in) * a->n_out;

	return a->type == b->type && a->n_in == b->n_in && a->n_out == b->n_out &&
	       !memcmp(a->rows, b->rows, bytes);
}

/* Need a layer (or the output), and compare it. */
static void need(struct matrices *m, uint32_t l)
{
	const uint32_t first = l * MATRICES_PER_LAYER;
	struct lslm_error err = { 0 };

	assert_ok(matrices_need(m, l, &err), &err);
	for (uint32_t i = first; i < N && i < first + MATRICES_PER_LAYER; i++) {
		assert_true(same(&all(m)[i], &all(reference)[i]));
		assert_ptr_not_equal(all(m)[i].rows, all(reference)[i].rows);
	}
}

static struct matrices *opened(enum matrices_load load, uint64_t memory)
{
	const struct matrices_opts o = { .load = load, .memory = memory };
	struct lslm_error err = { 0 };
	struct matrices *m;

	assert_ok(matrices_open(&m, model, pool, &o, &err), &err);
	return m;
}

static void expect_how(struct matrices *m, const char *how, const char *part)
{
	struct matrices_stats s;

	matrices_stats(m, &s);
	assert_string_equal(s.how, how);
	if (!strstr(s.text, part))
		fail_msg("'%s' does not say '%s'", s.text, part);
}

static void they_come_every_way(void **state)
{
	static const struct {
		enum matrices_load load;
		const char *how;
	} ways[] = { { MATRICES_READ, "read" },
		     { MATRICES_MAP, "mapped" },
		     { MATRICES_AUTO, "mapped" } };

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		struct matrices *m = opened(ways[i].load, 0);

		for (int pass = 0; pass < 2; pass++)
			for (uint32_t l = 0; l <= LAYERS; l++)
				need(m, l);
		expect_how(m, ways[i].how, packed);
		matrices_close(m);
	}
}

static void what_does_not_fit_takes_turns(void **state)
{
	static const uint32_t order[] = {
		0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 0, 0, 1, 0, 2, 3, 2, 1, 0
	};
	const uint64_t layer = 737280, output = 393216;
	struct matrices_stats s;
	struct matrices *m = opened(MATRICES_AUTO, output + 2 * layer);

	for (int round = 0; round < 20; round++)
		for (size_t i = 0; i < ARRAY_LEN(order); i++)
			need(m, order[i]);
	expect_how(m, "ringed", "3 of 3 layers in every pass");
	matrices_stats(m, &s);
	assert_true(s.arrived > 20 * 3 * layer);
	matrices_close(m);
	/* With room for all, all stay. */
	m = opened(MATRICES_READ, output + 3 * layer);
	for (uint32_t l = 0; l <= LAYERS; l++)
		need(m, l);
	expect_how(m, "read", "as asked");
	matrices_close(m);
}

/* No more than each layer once in a pass, but for what is read ahead of the next one: nothing pushes out what is needed. */
static void a_ring_does_not_thrash(void **state)
{
	enum { PASSES = 50, SLOTS = 2 };
	const uint64_t layer = 737280, output = 393216;
	struct matrices *m = opened(MATRICES_READ, output + SLOTS * layer);
	struct matrices_stats s;

	for (int pass = 0; pass < PASSES; pass++)
		for (uint32_t l = 0; l <= LAYERS; l++)
			need(m, l);
	matrices_stats(m, &s);
	assert_int_equal(s.ringed, LAYERS);
	assert_true(s.arrived >= output + PASSES * LAYERS * layer);
	assert_true(s.arrived <= output + (PASSES * LAYERS + SLOTS) * layer);
	matrices_close(m);
}

static void too_little_memory_is_an_error(void **state)
{
	const struct matrices_opts o = { .memory = 1 << 20 };
	struct lslm_error err = { 0 };
	struct matrices *m;

	assert_int_equal(matrices_open(&m, model, pool, &o, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "--weights-mem"));
}

/* What a reader for others has, in this process; users are children. */
static struct {
	struct kv_hash key;
	struct buffer *buffer;
	struct control *page;
} shared;

static int make_shared(void *arg, const struct kv_hash *key, uint64_t bytes, uint32_t n_sections,
		       struct hugemem *memory, uint8_t *have, struct lslm_error *err)
{
	int rc = buffer_create(&shared.buffer, BUFFER_MEMFD, bytes, 0, err);

	if (!rc)
		rc = control_create(&shared.page, 1, n_sections, err);
	if (rc)
		return rc;
	shared.key = *key;
	*memory = (struct hugemem){ .data = buffer_data(shared.buffer), .size = bytes };
	return 0;
}

static int find_shared(void *arg, const struct kv_hash *key, int *memory, int *page,
		       struct lslm_error *err)
{
	if (!kv_hash_equal(key, &shared.key))
		return error_set(err, -ESTALE, "another key");
	*memory = buffer_ro_fd(shared.buffer, err);
	*page = control_ro_fd(shared.page, err);
	return 0;
}

/* Says each section that it has, by a byte; 0 where all were right until one failed for good. */
static int use_shared(int out)
{
	const struct matrices_share share = { .find = find_shared };
	const struct matrices_opts o = { .load = MATRICES_SHARED, .share = &share };
	struct lslm_error err;
	struct matrices *m;

	if (matrices_open(&m, model, pool, &o, &err))
		return 2;
	for (uint32_t l = 0; l < LAYERS; l++) {
		const uint32_t first = l * MATRICES_PER_LAYER;

		if (matrices_need(m, l, &err) || write(out, &l, 1) != 1)
			return 3;
		for (uint32_t i = first; i < first + MATRICES_PER_LAYER; i++)
			if (!same(&all(m)[i], &all(reference)[i]))
				return 4;
	}
	return matrices_need(m, LAYERS, &err) == -ENOTRECOVERABLE &&
			       matrices_await_shared(m, &err) == -ENOTRECOVERABLE ?
		       0 :
		       5;
}

static void others_use_what_one_reads(void **state)
{
	const struct matrices_share share = { .room = make_shared };
	const struct matrices_opts o = { .load = MATRICES_READ, .share = &share };
	struct lslm_error err = { 0 };
	struct matrices *m;
	int ends[2], status;
	uint8_t got;
	pid_t child;

	assert_ok(matrices_open(&m, model, pool, &o, &err), &err);
	assert_int_equal(pipe(ends), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(use_shared(ends[1]));
	close(ends[1]);
	for (uint8_t l = 0; l < LAYERS; l++) {
		assert_ok(matrices_need(m, l, &err), &err);
		assert_ok(matrices_check(m, l, &err), &err);
		control_set(shared.page, 0, l, CONTROL_READY, CONTROL_FROM_DISK, KV_LEVEL_F16);
		assert_int_equal(read(ends[0], &got, 1), 1);
		assert_int_equal(got, l);
	}
	/* One bit of the last one is wrong. */
	assert_ok(matrices_need(m, LAYERS, &err), &err);
	assert_ok(matrices_check(m, LAYERS, &err), &err);
	*(uint8_t *)all(m)[N - 1].rows ^= 1;
	assert_int_equal(matrices_check(m, LAYERS, &err), -EBADMSG);
	control_fail(shared.page);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(ends[0]);
	matrices_close(m);
	buffer_close(shared.buffer);
	control_close(shared.page);
}

static void without_io_uring(void **state)
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		struct pool *own;
		struct matrices *m;
		const struct matrices_opts o = { .load = MATRICES_READ };
		struct matrices_stats s;
		bool good = true;

		if (forbid_io_uring() || pool_create(&own, 1, NULL))
			_exit(2);
		if (matrices_open(&m, model, own, &o, NULL))
			_exit(1);
		for (uint32_t l = 0; l <= LAYERS; l++)
			good = good && !matrices_need(m, l, NULL);
		for (uint32_t i = 0; i < N; i++)
			good = good && same(&all(m)[i], &all(reference)[i]);
		matrices_stats(m, &s);
		_exit(good && strstr(s.text, "pread") && strstr(s.text, "io_uring") ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 2)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- files that are not what they should be --- */

static struct packfile_plan plan;

static int open_packed(const char *path, struct lslm_error *err)
{
	struct packfile f;
	int rc = packfile_open(&f, path, model->gguf, &plan, err);

	if (!rc)
		packfile_close(&f);
	return rc;
}

static void overwrite(const char *path, const void *data, size_t size)
{
	struct lslm_error err = { 0 };

	assert_ok(file_write(path, data, size, 0600, FILE_REPLACE, &err), &err);
}

static void nothing_damaged_is_used(void **state)
{
	struct lslm_error err = { 0 };
	char path[PATH_MAX + 16], *data;
	size_t size;

	assert_ok(packfile_plan_make(&plan, all(reference), N, MATRICES_PER_LAYER, &err), &err);
	snprintf(path, sizeof(path), "%s/damaged", dir);
	assert_ok(file_read(packed, 64 << 20, &data, &size, &err), &err);
	assert_ok(open_packed(packed, &err), &err);
	/* Any byte of the header; every one of what is used, some of what is zero. */
	for (size_t i = 0; i < PACKFILE_HEADER;
	     i += i < 256 || i > PACKFILE_HEADER - 40 ? 1 : 509) {
		data[i] ^= 0x10;
		overwrite(path, data, size);
		assert_int_equal(open_packed(path, &err), -EBADMSG);
		data[i] ^= 0x10;
	}
	for (size_t cut = 1; cut < size; cut *= 7) {
		overwrite(path, data, size - cut);
		assert_int_equal(open_packed(path, &err), -EBADMSG);
	}
	overwrite(path, data, 0);
	assert_int_equal(open_packed(path, &err), -EBADMSG);
	overwrite(path, data, size + 1);
	assert_int_equal(open_packed(path, &err), -EBADMSG);
	unlink(path);
	assert_int_equal(open_packed(path, &err), -ENOENT);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(open_packed(path, &err), -EBADMSG);
	rmdir(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(open_packed(path, &err), -EBADMSG);
	unlink(path);
	free(data);
	packfile_plan_free(&plan);
}

static void sums_find_damaged_panels(void **state)
{
	struct lslm_error err = { 0 };
	struct packfile f;
	uint8_t byte;
	int fd;

	assert_ok(packfile_plan_make(&plan, all(reference), N, MATRICES_PER_LAYER, &err), &err);
	assert_ok(packfile_open(&f, packed, model->gguf, &plan, &err), &err);
	assert_ok(packfile_verify(&f, &plan, &err), &err);
	fd = open(packed, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, PACKFILE_HEADER + 800000), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, PACKFILE_HEADER + 800000), 1);
	assert_int_equal(packfile_verify(&f, &plan, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "section 1 of 4"));
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, PACKFILE_HEADER + 800000), 1);
	close(fd);
	packfile_close(&f);
	packfile_plan_free(&plan);
}

static void another_plan_is_another_file(void **state)
{
	struct lslm_error err = { 0 };
	struct weight w[N];

	memcpy(w, all(reference), sizeof(w));
	w[3].type = GGUF_BF16; /* as large */
	assert_ok(packfile_plan_make(&plan, w, N, MATRICES_PER_LAYER, &err), &err);
	assert_int_equal(open_packed(packed, &err), -ESTALE);
	assert_non_null(strstr(err.text, "packs otherwise"));
	packfile_plan_free(&plan);
}

/* --- changes --- */

static void a_changed_model_is_packed_again(void **state)
{
	const struct matrices_opts o = { .load = MATRICES_READ };
	struct lslm_error err = { 0 };
	struct matrices *m;

	close_model();
	copy_model(); /* the same bytes in another file */
	open_model();
	m = opened(MATRICES_AUTO, 0);
	expect_how(m, "packed at start", "lslm pack makes them");
	matrices_close(m);
	/* The inode's number may be that of the file before. */
	assert_int_equal(utimensat(AT_FDCWD, source, (struct timespec[2]){ { 1 }, { 1 } }, 0), 0);
	free(packed);
	assert_ok(matrices_pack(model, pool, NULL, NULL, &packed, &err), &err);
	assert_int_equal(utimensat(AT_FDCWD, source, (struct timespec[2]){ { 2 }, { 2 } }, 0), 0);
	m = opened(MATRICES_AUTO, 0);
	expect_how(m, "packed at start", "before it changed");
	matrices_close(m);
	assert_int_equal(matrices_open(&m, model, pool, &o, &err), -ESTALE);
	free(packed);
	assert_ok(matrices_pack(model, pool, NULL, NULL, &packed, &err), &err);
}

static void touch(const char *path)
{
	struct timespec when[2] = { { 3 }, { 3 } };

	assert_int_equal(utimensat(AT_FDCWD, path, when, 0), 0);
}

static void a_change_under_way_is_noticed(void **state)
{
	struct lslm_error err = { 0 };
	struct matrices *m = opened(MATRICES_MAP, 0);

	for (uint32_t l = 0; l <= LAYERS; l++)
		need(m, l);
	assert_ok(matrices_begin(m, &err), &err);
	touch(packed);
	assert_int_equal(matrices_begin(m, &err), -ENOTRECOVERABLE);
	assert_non_null(strstr(err.text, packed));
	matrices_close(m);
	m = opened(MATRICES_READ, 0);
	assert_ok(matrices_begin(m, &err), &err);
	touch(source);
	assert_int_equal(matrices_begin(m, &err), -ENOTRECOVERABLE);
	assert_non_null(strstr(err.text, source));
	matrices_close(m);
	close_model();
	open_model();
	free(packed);
	assert_ok(matrices_pack(model, pool, NULL, NULL, &packed, &err), &err);
}

/* Packing again puts another file in the old one's place; who reads the old one may go on. */
static void a_replaced_file_stays_readable(void **state)
{
	struct lslm_error err = { 0 };
	struct matrices *m = opened(MATRICES_AUTO, 393216 + 2 * 737280);

	need(m, 0);
	free(packed);
	assert_ok(matrices_pack(model, pool, NULL, NULL, &packed, &err), &err);
	for (int pass = 0; pass < 3; pass++)
		for (uint32_t l = 0; l <= LAYERS; l++)
			need(m, l);
	matrices_close(m);
}

static void a_file_cut_short_ends_it(void **state)
{
	struct lslm_error err = { 0 };
	struct matrices *m = opened(MATRICES_AUTO, 393216 + 2 * 737280);
	int rc = 0;

	need(m, 0);
	assert_int_equal(truncate(packed, PACKFILE_HEADER + 100), 0);
	for (int pass = 0; !rc && pass < 3; pass++)
		for (uint32_t l = 0; !rc && l <= LAYERS; l++)
			rc = matrices_need(m, l, &err);
	assert_int_equal(rc, -ENOTRECOVERABLE);
	assert_non_null(strstr(err.text, packed));
	matrices_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_come_every_way),
		cmocka_unit_test(what_does_not_fit_takes_turns),
		cmocka_unit_test(a_ring_does_not_thrash),
		cmocka_unit_test(too_little_memory_is_an_error),
		cmocka_unit_test(others_use_what_one_reads),
		cmocka_unit_test(without_io_uring),
		cmocka_unit_test(nothing_damaged_is_used),
		cmocka_unit_test(sums_find_damaged_panels),
		cmocka_unit_test(another_plan_is_another_file),
		cmocka_unit_test(a_changed_model_is_packed_again),
		cmocka_unit_test(a_change_under_way_is_noticed),
		cmocka_unit_test(a_replaced_file_stays_readable),
		cmocka_unit_test(a_file_cut_short_ends_it),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
