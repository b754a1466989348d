// SPDX-License-Identifier: MIT
/* Many publish at once: each text is computed once, one at a time, and all get its result. */
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "serve/pubqueue.h"
#include "synthetic.h"

enum { USERS = 12 };

static const struct synthetic shape = {
	.n_layer = 2, .n_head_kv = 1, .head_dim = 32, .n_tokens = 64
};
static char top[64], dir[80];
static struct store *store;
static struct pubqueue *queue;
static atomic_int computed, computing, most;

static int setup(void **state)
{
	struct lslm_error err;

	strcpy(top, "/tmp/lslm-pubqueue-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(dir, sizeof(dir), "%s/store", top);
	assert_ok(store_open(&store, dir, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	store_close(store);
	snprintf(command, sizeof(command), "rm -rf %s", top);
	return system(command);
}

/* Goes on only when everybody is in the queue, so that nobody comes when a result is there already. */
static int compute(void *arg, const char *text, size_t len, bool raw, const char *title,
		   const char *path, struct kv_hash *key, struct lslm_error *err)
{
	struct synthetic x = shape;
	int now = atomic_fetch_add(&computing, 1) + 1, ret;

	if (now > most)
		most = now;
	while (!computed && pubqueue_users(queue) < USERS)
		usleep(1000);
	x.seed = (uint8_t)text[0];
	ret = text[0] == '!' ? error_set(err, -E2BIG, "the text does not fit") :
			       synthetic_write(&x, path, key, err);
	atomic_fetch_add(&computed, 1);
	atomic_fetch_sub(&computing, 1);
	return ret;
}

struct user {
	const char *text;
	struct kv_hash key;
	struct lslm_error err;
	int ret;
};

static void *publish(void *arg)
{
	struct user *u = arg;

	u->ret = pubqueue_publish(queue, u->text, strlen(u->text), false, NULL, &u->key, &u->err);
	return NULL;
}

static void publish_by_all(struct user *users, const char *const *texts, int n_texts)
{
	struct lslm_error err;
	pthread_t threads[USERS];

	computed = most = 0;
	assert_ok(pubqueue_open(&queue, store, compute, NULL, &err), &err);
	for (int i = 0; i < USERS; i++) {
		users[i] = (struct user){ .text = texts[i % n_texts] };
		assert_int_equal(pthread_create(&threads[i], NULL, publish, &users[i]), 0);
	}
	for (int i = 0; i < USERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(pubqueue_users(queue), 0);
	pubqueue_close(queue);
}

static void pubqueue_publish__computes_once_one_at_a_time(void **state)
{
	static const char *const texts[] = { "a text", "b text", "c text" };
	struct user users[USERS];

	publish_by_all(users, texts, 3);
	assert_int_equal(computed, 3);
	assert_int_equal(most, 1);
	for (int i = 0; i < USERS; i++) {
		assert_ok(users[i].ret, &users[i].err);
		assert_true(kv_hash_equal(&users[i].key, &users[i % 3].key));
		assert_true(i % 3 == 0 || !kv_hash_equal(&users[i].key, &users[0].key));
	}
}

static void pubqueue_publish__failure_is_everybodys(void **state)
{
	static const char *const texts[] = { "! too long" };
	struct user users[USERS];

	publish_by_all(users, texts, 1);
	assert_int_equal(computed, 1);
	for (int i = 0; i < USERS; i++) {
		assert_int_equal(users[i].ret, -E2BIG);
		assert_string_equal(users[i].err.text, "the text does not fit");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pubqueue_publish__computes_once_one_at_a_time),
		cmocka_unit_test(pubqueue_publish__failure_is_everybodys),
	};

	return cmocka_run_group_tests_name("pubqueue", tests, setup, teardown);
}
