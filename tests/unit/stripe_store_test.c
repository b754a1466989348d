// SPDX-License-Identifier: MIT
/* Every way in which a stored stripe can be wrong, gone or too much. */
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "kv/stripe_store.h"
#include "synthetic.h"

enum { N = 5 };
static const struct synthetic shape = {
	.n_layer = 3, .n_head_kv = 2, .head_dim = 32, .n_tokens = 64 * N + 9
};
static char top[64], dir[80], key_dir[160];
static struct manifest *m;
static const struct manifest_level *lv;
static size_t size;
static uint8_t *data, *place;

static int setup(void **state)
{
	struct lslm_error err = { 0 };
	struct kv_hash key;
	char path[96], hex[KV_HASH_TEXT];
	struct lskv *f;
	const void *bytes;
	size_t n;

	strcpy(top, "/tmp/lslm-store-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(path, sizeof(path), "%s/context.lskv", top);
	snprintf(dir, sizeof(dir), "%s/a/stripes", top);
	assert_ok(synthetic_write(&shape, path, &key, &err), &err);
	assert_ok(lskv_open(&f, path, &err), &err);
	bytes = lskv_manifest_data(f, &n);
	assert_ok(manifest_parse(&m, bytes, n, &err), &err);
	lskv_close(f);
	lv = manifest_level(m, KV_LEVEL_F16);
	size = kv_stripe_bytes(&m->geo, KV_LEVEL_F16);
	data = malloc(size);
	place = malloc(size);
	kv_hash_format(&m->key, hex);
	snprintf(key_dir, sizeof(key_dir), "%s/%s", dir, hex);
	return 0;
}

static int teardown(void **state)
{
	manifest_free(m);
	free(data);
	free(place);
	return remove_tree(top);
}

static void file_of(char path[256], uint32_t stripe)
{
	snprintf(path, 256, "%s/f16-%08u", key_dir, stripe);
}

static const uint8_t *store_key; /* NULL: none */

static struct stripe_store *open_store(uint64_t max_bytes, uint64_t max_age)
{
	struct stripe_store_opts o = {
		.dir = dir, .max_bytes = max_bytes, .max_age_s = max_age, .key = store_key
	};
	struct lslm_error err = { 0 };
	struct stripe_store *s;

	assert_ok(stripe_store_open(&s, &o, &err), &err);
	return s;
}

static void save(struct stripe_store *s, uint32_t stripe)
{
	struct lslm_error err = { 0 };

	synthetic_stripe(&shape, stripe, data);
	assert_ok(stripe_store_save(s, m, lv, stripe, data, &err), &err);
}

static void check_loads(struct stripe_store *s, uint32_t stripe)
{
	memset(place, 0xee, size);
	assert_int_equal(stripe_store_load(s, m, lv, stripe, place), 0);
	synthetic_stripe(&shape, stripe, data);
	assert_memory_equal(place, data, size);
}

static bool exists(const char *path)
{
	struct stat st;

	return !lstat(path, &st);
}

static void load__what_was_saved(void **state)
{
	struct stripe_store *s = open_store(0, 0);
	struct stripe_store_stats st;
	char path[256];
	struct stat info;

	assert_int_equal(stripe_store_load(s, m, lv, 0, place), -ENOENT);
	for (uint32_t i = 0; i < N; i++)
		save(s, i);
	save(s, 2);
	stripe_store_close(s);
	s = open_store(0, 0);
	for (uint32_t i = 0; i < N; i++)
		check_loads(s, i);
	stripe_store_stats(s, &st);
	assert_int_equal(st.loaded, N);
	assert_int_equal(st.saved + st.wrong + st.evicted, 0);
	file_of(path, 0);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	assert_int_equal(info.st_size, STRIPE_STORE_HEADER + size);
	assert_int_equal(stat(dir, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0700);
	stripe_store_close(s);
}

/* Changes of a stored stripe 1, each of which must make it unusable. */
static void check_wrong(const char *path)
{
	struct stripe_store *s = open_store(0, 0);
	struct stripe_store_stats st;

	assert_int_equal(stripe_store_load(s, m, lv, 1, place), -EBADMSG);
	assert_false(exists(path));
	assert_int_equal(stripe_store_load(s, m, lv, 1, place), -ENOENT);
	stripe_store_stats(s, &st);
	assert_int_equal(st.wrong, 1);
	assert_int_equal(st.loaded, 0);
	stripe_store_close(s);
}

static void fresh(char path[256])
{
	struct stripe_store *s = open_store(0, 0);

	file_of(path, 1);
	unlink(path);
	save(s, 1);
	check_loads(s, 1);
	stripe_store_close(s);
}

static const uint8_t keys[2][STRIPE_STORE_KEY] = { { 1, 2, 3 }, { 1, 2, 4 } };

static bool file_holds(const char *path, const void *what, size_t n)
{
	struct lslm_error err = { 0 };
	char *bytes;
	size_t len;
	bool found;

	assert_ok(file_read(path, 64 << 20, &bytes, &len, &err), &err);
	found = memmem(bytes, len, what, n);
	free(bytes);
	return found;
}

/* With a key: loaded by it alone, nothing of the stripe in the file, each damage found, and other forms wrong. */
static void load__what_was_encrypted(void **state)
{
	const off_t whole = STRIPE_STORE_HEADER + (off_t)size + STRIPE_STORE_SEAL;
	const off_t places[] = { STRIPE_STORE_HEADER, STRIPE_STORE_HEADER + 24, whole / 2,
				 whole - 1 };
	struct stripe_store *s;
	struct stat info;
	char path[256];
	uint8_t byte;
	int fd;

	store_key = NULL;
	fresh(path);
	synthetic_stripe(&shape, 1, data);
	assert_true(file_holds(path, data + size / 2, 32));
	store_key = keys[0];
	check_wrong(path); /* plain */
	fresh(path);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_size, whole);
	synthetic_stripe(&shape, 1, data);
	for (size_t at = 0; at + 32 <= size; at += size / 16)
		assert_false(file_holds(path, data + at, 32));
	s = open_store(0, 0);
	check_loads(s, 1);
	stripe_store_close(s);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		fresh(path);
		fd = open(path, O_RDWR);
		assert_int_equal(pread(fd, &byte, 1, places[i]), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, places[i]), 1);
		close(fd);
		check_wrong(path);
	}
	fresh(path);
	store_key = keys[1];
	check_wrong(path); /* another key */
	store_key = keys[0];
	fresh(path);
	store_key = NULL;
	check_wrong(path); /* no key */
}

static void read_key__from_a_private_file(void **state)
{
	static const char digits[] =
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
	uint8_t key[STRIPE_STORE_KEY];
	struct lslm_error err = { 0 };
	char path[96];

	snprintf(path, sizeof(path), "%s/store.key", top);
	assert_int_equal(stripe_store_read_key(path, key, &err), -ENOENT);
	assert_ok(file_write(path, digits, strlen(digits), 0600, FILE_REPLACE, &err), &err);
	assert_ok(stripe_store_read_key(path, key, &err), &err);
	assert_int_equal(key[31], 0x1f);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(stripe_store_read_key(path, key, &err), -EACCES);
	assert_ok(file_write(path, digits, 63, 0600, FILE_REPLACE, &err), &err);
	assert_int_equal(stripe_store_read_key(path, key, &err), -EINVAL);
}

static void load__any_flipped_byte_of_the_header(void **state)
{
	char path[256];
	uint8_t byte;
	int fd;

	for (off_t at = 0; at < STRIPE_STORE_HEADER; at++) {
		fresh(path);
		fd = open(path, O_RDWR);
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x04;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		close(fd);
		check_wrong(path);
	}
}

static void load__a_flipped_bit_of_each_block(void **state)
{
	char path[256];
	uint8_t byte;
	off_t at;
	int fd;

	for (uint32_t l = 0; l < shape.n_layer; l++) {
		fresh(path);
		fd = open(path, O_RDWR);
		at = STRIPE_STORE_HEADER + l * (size / shape.n_layer) + 31 * (l + 1);
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x80;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		close(fd);
		check_wrong(path);
	}
}

static void load__cut_and_longer_files(void **state)
{
	const off_t sizes[] = { 0,
				1,
				STRIPE_STORE_HEADER - 1,
				STRIPE_STORE_HEADER,
				STRIPE_STORE_HEADER + (off_t)size - 1,
				STRIPE_STORE_HEADER + (off_t)size + 1 };
	char path[256];

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		fresh(path);
		assert_int_equal(truncate(path, sizes[i]), 0);
		check_wrong(path);
	}
}

/* The file of another stripe, or of another context, in this one's place. */
static void load__another_stripes_file(void **state)
{
	struct stripe_store *s = open_store(0, 0);
	char path[256], other[256];

	fresh(path);
	save(s, 3);
	stripe_store_close(s);
	file_of(other, 3);
	assert_int_equal(rename(other, path), 0);
	check_wrong(path);
}

static void load__links_and_pipes(void **state)
{
	struct stripe_store *s;
	char path[256], other[256];

	fresh(path);
	snprintf(other, sizeof(other), "%s/elsewhere", top);
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(symlink(other, path), 0);
	check_wrong(path);
	assert_true(exists(other));
	assert_int_equal(mkfifo(path, 0600), 0);
	check_wrong(path);
	/* Saved over a link: the link goes, its target stays as it is. */
	assert_int_equal(truncate(other, 3), 0);
	assert_int_equal(symlink(other, path), 0);
	s = open_store(0, 0);
	save(s, 1);
	check_loads(s, 1);
	stripe_store_close(s);
	unlink(path);
	assert_int_equal(truncate(other, 3), 0);
	unlink(other);
	/* A directory of that name is a miss that is not removed. */
	assert_int_equal(mkdir(path, 0700), 0);
	s = open_store(0, 0);
	assert_true(stripe_store_load(s, m, lv, 1, place) < 0);
	assert_int_equal(rmdir(path), 0);
	stripe_store_close(s);
}

/* The directory of a key is a link to somewhere: neither read nor written through. */
static void load__a_linked_key(void **state)
{
	struct lslm_error err = { 0 };
	struct stripe_store *s;
	char path[256], other[256];

	fresh(path);
	snprintf(other, sizeof(other), "%s/moved", top);
	assert_int_equal(rename(key_dir, other), 0);
	assert_int_equal(symlink(other, key_dir), 0);
	s = open_store(0, 0);
	assert_int_equal(stripe_store_load(s, m, lv, 1, place), -ENOENT);
	synthetic_stripe(&shape, 4, data);
	assert_true(stripe_store_save(s, m, lv, 4, data, &err) < 0);
	assert_non_null(strstr(err.text, dir));
	unlink(key_dir);
	assert_int_equal(rename(other, key_dir), 0);
	check_loads(s, 1);
	stripe_store_close(s);
}

static void open__refuses_directories_of_others(void **state)
{
	struct stripe_store_opts o = { .dir = dir };
	struct lslm_error err = { 0 };
	struct stripe_store *s;
	struct stat st;

	stripe_store_close(open_store(0, 0));
	assert_int_equal(chmod(dir, 0770), 0);
	assert_int_equal(stripe_store_open(&s, &o, &err), -EACCES);
	assert_non_null(strstr(err.text, "others can write"));
	assert_int_equal(chmod(dir, 0702), 0);
	assert_int_equal(stripe_store_open(&s, &o, &err), -EACCES);
	/* Readable by others is put right. */
	assert_int_equal(chmod(dir, 0755), 0);
	assert_ok(stripe_store_open(&s, &o, &err), &err);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	stripe_store_close(s);
	if (!geteuid()) {
		assert_int_equal(chown(dir, 1, 1), 0);
		assert_int_equal(stripe_store_open(&s, &o, &err), -EACCES);
		assert_non_null(strstr(err.text, "another user"));
		assert_int_equal(chown(dir, 0, 0), 0);
	}
}

static void touch_back(uint32_t stripe, time_t seconds)
{
	struct timespec t[2] = { { .tv_sec = time(NULL) - seconds },
				 { .tv_sec = time(NULL) - seconds } };
	char path[256];

	file_of(path, stripe);
	assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void save__least_recently_used_goes_first(void **state)
{
	const uint64_t file = STRIPE_STORE_HEADER + size;
	struct stripe_store_stats st;
	struct stripe_store *s;
	char path[256];

	for (uint32_t i = 0; i < N; i++) {
		file_of(path, i);
		unlink(path);
	}
	s = open_store(3 * file + 10, 0);
	for (uint32_t i = 0; i < 3; i++) {
		save(s, i);
		touch_back(i, 100 - i);
	}
	check_loads(s, 0);
	save(s, 3);
	assert_int_equal(stripe_store_load(s, m, lv, 1, place), -ENOENT);
	check_loads(s, 0);
	check_loads(s, 2);
	check_loads(s, 3);
	stripe_store_stats(s, &st);
	assert_int_equal(st.evicted, 1);
	stripe_store_close(s);
	/* A lower bound holds from the start. */
	touch_back(0, 50);
	touch_back(2, 60);
	touch_back(3, 70);
	s = open_store(file, 0);
	check_loads(s, 0);
	assert_int_equal(stripe_store_load(s, m, lv, 2, place), -ENOENT);
	assert_int_equal(stripe_store_load(s, m, lv, 3, place), -ENOENT);
	stripe_store_close(s);
}

/* What is set aside for a pinned context stays whatever comes and however old it is, over restarts, and no more than that. */
static void pin__holds_what_is_set_aside(void **state)
{
	const uint64_t file = STRIPE_STORE_HEADER + size;
	const struct kv_hash other = { { 7 } }, none = { { 8 } };
	struct lslm_error err = { 0 };
	struct stripe_store_stats st;
	struct stripe_store *s;
	struct kv_hash found[4];
	struct rlimit limit;
	char path[256];

	for (uint32_t i = 0; i < N; i++) {
		file_of(path, i);
		unlink(path);
	}
	s = open_store(3 * file + 100, 1000);
	assert_int_equal(stripe_store_bytes(s, size), file + (store_key ? STRIPE_STORE_SEAL : 0));
	assert_int_equal(stripe_store_pin(s, &other, file, &err), 0);
	/* Once more is not twice as much; both together are no more than there is. */
	assert_int_equal(stripe_store_pin(s, &m->key, 2 * file, &err), 0);
	assert_int_equal(stripe_store_pin(s, &m->key, 2 * file, &err), 0);
	assert_int_equal(stripe_store_pin(s, &m->key, 3 * file, &err), -EDQUOT);
	assert_non_null(strstr(err.text, "other pins"));
	assert_int_equal(stripe_store_pin(s, &none, UINT64_MAX, &err), -EDQUOT);
	/* One that cannot be written leaves the one before. */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 1, limit.rlim_max }), 0);
	assert_int_equal(stripe_store_pin(s, &m->key, file, &err), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(stripe_store_pins(s, found, 4), 2);
	for (uint32_t i = 0; i < 3; i++) {
		save(s, i);
		touch_back(i, 2000 - i);
	}
	stripe_store_close(s);
	s = open_store(3 * file + 100, 1000);
	assert_int_equal(stripe_store_pins(s, found, 4), 2);
	/* Too old, and of a pinned context: the two used last are kept. */
	assert_int_equal(stripe_store_load(s, m, lv, 0, place), -ENOENT);
	check_loads(s, 1);
	check_loads(s, 2);
	stripe_store_unpin(s, &other);
	stripe_store_unpin(s, &none);
	assert_int_equal(stripe_store_pins(s, found, 4), 1);
	assert_true(kv_hash_equal(&found[0], &m->key));
	/* No room but what is pinned: the one that comes is refused, and those stay. */
	stripe_store_close(s);
	s = open_store(2 * file, 1000);
	synthetic_stripe(&shape, 3, data);
	assert_int_equal(stripe_store_save(s, m, lv, 3, data, &err), -EDQUOT);
	assert_non_null(strstr(err.text, "pinned"));
	stripe_store_stats(s, &st);
	assert_int_equal(st.evicted, 0);
	stripe_store_unpin(s, &m->key);
	save(s, 3);
	stripe_store_stats(s, &st);
	assert_int_equal(st.evicted, 1);
	stripe_store_close(s);
}

static void open__drops_what_is_old(void **state)
{
	struct stripe_store *s = open_store(0, 0);
	char path[256], stale[300], young[300];
	struct timespec t[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };

	save(s, 0);
	save(s, 1);
	touch_back(0, 1001);
	touch_back(1, 900);
	snprintf(stale, sizeof(stale), "%s/.new-1-1", key_dir);
	snprintf(young, sizeof(young), "%s/.new-1-2", key_dir);
	close(open(stale, O_CREAT | O_WRONLY, 0600));
	close(open(young, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(utimensat(AT_FDCWD, stale, t, 0), 0);
	stripe_store_close(s);
	s = open_store(0, 1000);
	file_of(path, 0);
	assert_false(exists(path));
	check_loads(s, 1);
	assert_false(exists(stale));
	assert_true(exists(young));
	unlink(young);
	stripe_store_close(s);
}

static void save__a_stripe_larger_than_the_store(void **state)
{
	struct stripe_store *s = open_store(size, 0);
	struct lslm_error err = { 0 };

	synthetic_stripe(&shape, 0, data);
	assert_int_equal(stripe_store_save(s, m, lv, 0, data, &err), -EFBIG);
	assert_non_null(strstr(err.text, "more than it may hold"));
	stripe_store_close(s);
}

static int save_with_a_limit(void)
{
	const struct rlimit limit = { size / 2, size / 2 };
	struct stripe_store *s = open_store(0, 0);
	struct lslm_error err = { 0 };
	int rc;

	signal(SIGXFSZ, SIG_IGN);
	synthetic_stripe(&shape, 0, data);
	if (setrlimit(RLIMIT_FSIZE, &limit))
		return 1;
	rc = stripe_store_save(s, m, lv, 0, data, &err);
	return rc == -EFBIG && strstr(err.text, "not kept") ? 0 : 2;
}

/* As a full disk: the write ends in the middle, nothing is left, and it is said. */
static void save__no_room_for_the_file(void **state)
{
	char path[256], command[400];
	int status;
	pid_t pid;

	file_of(path, 0);
	unlink(path);
	pid = fork();
	if (!pid)
		_exit(save_with_a_limit());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_false(exists(path));
	snprintf(command, sizeof(command), "! ls -A %s | grep new", key_dir);
	assert_int_equal(system(command), 0);
}

/* Several processes save, load and evict in one small store: hits are right, and nothing is half. */
static int hammer(unsigned int seed)
{
	struct stripe_store *s = open_store(3 * (STRIPE_STORE_HEADER + size), 0);
	struct stripe_store_stats st;
	uint32_t stripe;
	int rc;

	for (int i = 0; i < 60; i++) {
		stripe = rand_r(&seed) % N;
		synthetic_stripe(&shape, stripe, data);
		rc = stripe_store_load(s, m, lv, stripe, place);
		if (rc == -EBADMSG || (!rc && memcmp(place, data, size)))
			return 1;
		if (rc && stripe_store_save(s, m, lv, stripe, data, NULL))
			return 2;
	}
	stripe_store_stats(s, &st);
	return st.wrong ? 3 : 0;
}

static void store__is_shared_by_processes(void **state)
{
	int status;

	for (int i = 0; i < 4; i++)
		if (!fork())
			_exit(hammer(i));
	for (int i = 0; i < 4; i++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load__what_was_saved),
		cmocka_unit_test(load__what_was_encrypted),
		cmocka_unit_test(read_key__from_a_private_file),
		cmocka_unit_test(load__any_flipped_byte_of_the_header),
		cmocka_unit_test(load__a_flipped_bit_of_each_block),
		cmocka_unit_test(load__cut_and_longer_files),
		cmocka_unit_test(load__another_stripes_file),
		cmocka_unit_test(load__links_and_pipes),
		cmocka_unit_test(load__a_linked_key),
		cmocka_unit_test(open__refuses_directories_of_others),
		cmocka_unit_test(save__least_recently_used_goes_first),
		cmocka_unit_test(pin__holds_what_is_set_aside),
		cmocka_unit_test(open__drops_what_is_old),
		cmocka_unit_test(save__a_stripe_larger_than_the_store),
		cmocka_unit_test(save__no_room_for_the_file),
		cmocka_unit_test(store__is_shared_by_processes),
	};

	return cmocka_run_group_tests_name("stripe_store", tests, setup, teardown);
}
