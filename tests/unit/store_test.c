// SPDX-License-Identifier: MIT
/* What the cloud's store keeps when it is full, and for whom; cloud_test has the rest of it. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store_rig.h"
#include "synthetic.h"

static unsigned int n_gone;
static struct kv_hash gone[16];

static int setup(void **state)
{
	n_gone = 0;
	return store_rig_open(state);
}

static void on_gone(void *arg, const struct kv_hash *key)
{
	if (n_gone < 16)
		gone[n_gone++] = *key;
}

static void limit(uint64_t bytes, unsigned int ttl_s)
{
	store_limit(store,
		    &(struct store_limits){ .max_bytes = bytes, .ttl_s = ttl_s, .gone = on_gone });
}

static int put(uint8_t seed, uint8_t salt, uint64_t quota, struct kv_hash *key,
	       struct lslm_error *err)
{
	const struct synthetic x = { .n_layer = 2,
				     .n_head_kv = 1,
				     .head_dim = 32,
				     .n_tokens = 64,
				     .seed = seed,
				     .salt = salt };
	char path[PATH_MAX];

	store_incoming(store, path);
	assert_ok(synthetic_write(&x, path, key, err), err);
	return store_add(store, path, key, quota, err);
}

/* It was last used so many seconds ago. */
static void age(const struct kv_hash *key, time_t seconds)
{
	const struct timespec times[] = { { .tv_nsec = UTIME_OMIT },
					  { .tv_sec = time(NULL) - seconds } };
	char path[PATH_MAX], text[KV_HASH_TEXT];

	kv_hash_format(key, text);
	snprintf(path, sizeof(path), "%s/%s.lskv", dir, text);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static uint64_t size_of_one(void)
{
	struct lslm_error err;
	struct kv_hash key;

	assert_ok(put(200, 0, 0, &key, &err), &err);
	assert_ok(store_remove(store, &key, &err), &err);
	return 0x1000 + 2 * 2 * 64 * 32 * 2;
}

static void store_add__removes_the_least_recently_used(void **state)
{
	const uint64_t one = size_of_one();
	struct kv_hash key[4];
	struct lslm_error err;
	struct lskv *f;

	limit(3 * one, 0);
	for (uint8_t i = 0; i < 3; i++) {
		assert_ok(put(i, 0, 0, &key[i], &err), &err);
		age(&key[i], 100 - i);
	}
	/* Reading is using: the oldest is now the newest. */
	assert_ok(store_get(store, &key[0], &f, &err), &err);
	lskv_close(f);
	assert_ok(put(3, 0, 0, &key[3], &err), &err);
	assert_int_equal(n_gone, 1);
	assert_true(kv_hash_equal(&gone[0], &key[1]));
	assert_false(store_has(store, &key[1]));
	assert_true(store_has(store, &key[0]) && store_has(store, &key[2]) &&
		    store_has(store, &key[3]));
}

static void store_add__keeps_what_is_pinned(void **state)
{
	const uint64_t one = size_of_one();
	struct kv_hash key[4];
	struct lslm_error err;

	limit(2 * one, 0);
	assert_ok(put(0, 0, 0, &key[0], &err), &err);
	age(&key[0], 1000);
	assert_ok(store_pin(store, &key[0], true, &err), &err);
	assert_ok(put(1, 0, 0, &key[1], &err), &err);
	assert_ok(put(2, 0, 0, &key[2], &err), &err);
	assert_true(store_has(store, &key[0]));
	assert_false(store_has(store, &key[1]));
	/* Nothing is left that may go: refused, and all that was there is there. */
	assert_ok(store_pin(store, &key[2], true, &err), &err);
	assert_int_equal(put(3, 0, 0, &key[3], &err), -EDQUOT);
	assert_true(store_has(store, &key[0]) && store_has(store, &key[2]));
	assert_false(store_has(store, &key[3]));
	/* A pin outlives the process, and ends with its context. */
	store_close(store);
	assert_ok(store_open(&store, dir, &err), &err);
	assert_true(store_is_pinned(store, &key[0]));
	assert_ok(store_pin(store, &key[0], false, &err), &err);
	assert_false(store_is_pinned(store, &key[0]));
	assert_ok(store_remove(store, &key[2], &err), &err);
	assert_false(store_is_pinned(store, &key[2]));
	assert_int_equal(store_pin(store, &key[2], true, &err), -ENOENT);
}

static void store_add__keeps_tenants_to_their_own_quota(void **state)
{
	const uint64_t one = size_of_one();
	struct kv_hash a, b[3];
	struct lslm_error err;

	assert_ok(put(0, 1, 2 * one, &a, &err), &err);
	age(&a, 1000);
	for (uint8_t i = 0; i < 3; i++) {
		assert_ok(put(i, 2, 2 * one, &b[i], &err), &err);
		age(&b[i], 100 - i);
	}
	/* The other tenant's context is older, and stays. */
	assert_true(store_has(store, &a));
	assert_false(store_has(store, &b[0]));
	assert_true(store_has(store, &b[1]) && store_has(store, &b[2]));
	assert_int_equal(put(9, 3, one - 1, &a, &err), -EDQUOT);
}

static void store_expire__removes_what_nobody_used(void **state)
{
	struct kv_hash key[3];
	struct lslm_error err;

	limit(0, 60);
	for (uint8_t i = 0; i < 3; i++)
		assert_ok(put(i, 0, 0, &key[i], &err), &err);
	age(&key[0], 3600);
	age(&key[1], 3600);
	assert_ok(store_pin(store, &key[1], true, &err), &err);
	assert_int_equal(store_expire(store), 1);
	assert_false(store_has(store, &key[0]));
	assert_true(store_has(store, &key[1]) && store_has(store, &key[2]));
	/* A clock that jumped back. */
	age(&key[2], -1000000);
	assert_int_equal(store_expire(store), 0);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, store_rig_close)
	const struct CMUnitTest tests[] = {
		CASE(store_add__removes_the_least_recently_used),
		CASE(store_add__keeps_what_is_pinned),
		CASE(store_add__keeps_tenants_to_their_own_quota),
		CASE(store_expire__removes_what_nobody_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
