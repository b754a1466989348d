// SPDX-License-Identifier: MIT
/* Many publish at once: each text is computed once, one at a time, and all get its result, or ask for it later. */
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "serve/pubqueue.h"
#include "store_rig.h"
#include "synthetic.h"

enum { USERS = 12 };

static const struct synthetic shape = {
	.n_layer = 2, .n_head_kv = 1, .head_dim = 32, .n_tokens = 64
};
static struct pubqueue *queue;
static atomic_int computed, computing, most;

/* Goes on only when everybody is in the queue, so that nobody comes when a result is there already. */
static int compute(void *arg, const struct pubqueue_text *what, const char *path,
		   const struct pubqueue_work *work, struct kv_hash *key, struct lslm_error *err)
{
	const char *text = what->text;
	struct synthetic x = shape;
	int now = atomic_fetch_add(&computing, 1) + 1, ret;

	if (now > most)
		most = now;
	while (!computed && pubqueue_users(queue) < USERS)
		usleep(1000);
	x.seed = (uint8_t)text[0];
	work->progress(work->arg, 32, 64);
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

	const struct pubqueue_text what = { .text = u->text, .len = strlen(u->text) };

	u->ret = pubqueue_publish(queue, &what, &u->key, &u->err);
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

/* ---- without waiting ---- */

/* The engine of these cases: holds on until the gate is open, and asks whether the store has it. */
static atomic_bool gate;
static atomic_int written;

static int compute_unless_had(void *arg, const struct pubqueue_text *what, const char *path,
			      const struct pubqueue_work *work, struct kv_hash *key,
			      struct lslm_error *err)
{
	struct synthetic x = shape;
	char other[96];

	x.seed = (uint8_t)what->text[0];
	work->progress(work->arg, 32, 64);
	while (!gate)
		usleep(1000);
	/* The key is known before the file is written, as it is to the engine; here by writing another one. */
	snprintf(other, sizeof(other), "%s/other", top);
	if (synthetic_write(&x, other, key, err) || unlink(other))
		return -EIO;
	if (work->have(work->arg, key))
		return 0;
	atomic_fetch_add(&written, 1);
	return synthetic_write(&x, path, key, err);
}

static struct pubqueue_text text_of(const char *text, uint8_t salt)
{
	struct pubqueue_text t = { .text = text, .len = strlen(text), .title = "a title" };

	memset(t.salt.b, salt, sizeof(t.salt.b));
	return t;
}

static struct pubqueue_status wait_for(const char *id, const struct kv_hash *salt,
				       enum pubqueue_state least)
{
	struct pubqueue_status st;

	do {
		usleep(1000);
		assert_int_equal(pubqueue_look(queue, id, salt, &st), 0);
	} while (st.state < least);
	return st;
}

static void pubqueue_submit__tells_how_far_it_is(void **state)
{
	const struct pubqueue_text one = text_of("x", 1), two = text_of("y", 1);
	struct pubqueue_text mapped = two;
	char first[PUBQUEUE_ID], second[PUBQUEUE_ID], again[PUBQUEUE_ID];
	struct pubqueue_status st;
	struct kv_hash key, other = { { 2 } };
	struct lslm_error err;

	gate = false;
	written = 0;
	assert_ok(pubqueue_open(&queue, store, compute_unless_had, NULL, &err), &err);
	assert_ok(pubqueue_submit(queue, &one, first, &err), &err);
	assert_ok(pubqueue_submit(queue, &two, second, &err), &err);
	assert_ok(pubqueue_submit(queue, &two, again, &err), &err);
	assert_string_equal(second, again);
	/* The same text by other means is another context. */
	mapped.map = "map";
	assert_ok(pubqueue_submit(queue, &mapped, again, &err), &err);
	assert_string_not_equal(second, again);
	assert_string_not_equal(first, second);

	do
		st = wait_for(first, &one.salt, PUBQUEUE_COMPUTING);
	while (!st.total);
	assert_int_equal(st.done, 32);
	assert_int_equal(st.total, 64);
	st = wait_for(second, &two.salt, PUBQUEUE_QUEUED);
	assert_int_equal(st.before, 1);
	/* To others, even those who know the number, there is no such job. */
	assert_int_equal(pubqueue_look(queue, first, &other, &st), -ENOENT);
	assert_int_equal(pubqueue_look(queue, "0123", &one.salt, &st), -ENOENT);

	gate = true;
	st = wait_for(second, &two.salt, PUBQUEUE_STORED);
	assert_int_equal(st.state, PUBQUEUE_STORED);
	assert_true(store_has(store, &st.key));
	assert_int_equal(written, 2);
	/* What is in the store is not computed again, and has the same key. */
	assert_ok(pubqueue_publish(queue, &two, &key, &err), &err);
	assert_true(kv_hash_equal(&key, &st.key));
	assert_int_equal(written, 2);
	pubqueue_close(queue);
}

static void pubqueue_submit__has_a_limit(void **state)
{
	char id[PUBQUEUE_ID], text[16];
	struct pubqueue_text t;
	struct lslm_error err;
	int ret, n = 0;

	gate = false;
	assert_ok(pubqueue_open(&queue, store, compute_unless_had, NULL, &err), &err);
	do {
		snprintf(text, sizeof(text), "%d", n++);
		t = text_of(text, 0);
		ret = pubqueue_submit(queue, &t, id, &err);
	} while (!ret && n < 1000);
	assert_int_equal(ret, -EAGAIN);
	assert_in_range(n, PUBQUEUE_WAITING + 1, PUBQUEUE_WAITING + 2);
	/* Closing does not wait for those that have not begun. */
	gate = true;
	pubqueue_close(queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pubqueue_publish__computes_once_one_at_a_time),
		cmocka_unit_test(pubqueue_publish__failure_is_everybodys),
		cmocka_unit_test(pubqueue_submit__tells_how_far_it_is),
		cmocka_unit_test(pubqueue_submit__has_a_limit),
	};

	return cmocka_run_group_tests_name("pubqueue", tests, store_rig_open, store_rig_close);
}
