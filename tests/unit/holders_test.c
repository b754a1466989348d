// SPDX-License-Identifier: MIT
/* Holders: what a directory says, which may be anything. */
#include "net/holders.h"
#include "unit/unit.h"

static struct holders *h;

static int setup(void **state)
{
	struct lslm_error err = { 0 };

	assert_ok(holders_open(&h, "https://self:1", &err), &err);
	return 0;
}

static int teardown(void **state)
{
	holders_close(h);
	return 0;
}

static struct kv_hash key_of(uint32_t n)
{
	return kv_digest(&n, sizeof(n));
}

static bool put(const char *url, uint32_t context, double until)
{
	const struct kv_hash key = key_of(context);
	char name[HOLDERS_NAME_MAX], value[HOLDERS_VALUE_MAX];
	int len;

	holders_name(url, &key, name);
	len = holders_value(url, 3, 4, value);
	return holders_take(h, name, value, (size_t)len, until);
}

static uint32_t find(uint32_t context, char (*urls)[HOLDERS_URL_BYTES], uint32_t max, double now)
{
	const struct kv_hash key = key_of(context);

	return holders_find(h, &key, urls, max, now);
}

static void holders__finds_who_has_it(void **state)
{
	char urls[4][HOLDERS_URL_BYTES], name[HOLDERS_NAME_MAX];
	const struct kv_hash key = key_of(1);

	assert_true(put("https://a:1", 1, 10));
	assert_true(put("https://[fd77::1]:9443", 2, 10));
	assert_true(put("https://self:1", 1, 10));
	assert_int_equal(find(1, urls, 4, 9), 1);
	assert_string_equal(urls[0], "https://a:1");
	assert_int_equal(find(2, urls, 4, 9), 1);
	assert_string_equal(urls[0], "https://[fd77::1]:9443");
	assert_int_equal(find(3, urls, 4, 9), 0);
	assert_int_equal(find(1, urls, 4, 11), 0);
	/* Put again is good for longer, and not twice. */
	assert_true(put("https://a:1", 1, 20));
	assert_int_equal(find(1, urls, 4, 11), 1);
	holders_name("https://a:1", &key, name);
	holders_forget(h, name);
	assert_int_equal(find(1, urls, 4, 11), 0);
	holders_forget(h, name);
}

static void holders__draws_of_many(void **state)
{
	char urls[3][HOLDERS_URL_BYTES], url[32];
	bool seen[10] = { false };
	uint32_t n = 0;

	for (int i = 0; i < 10; i++) {
		snprintf(url, sizeof(url), "https://h:%d", i);
		assert_true(put(url, 1, 10));
	}
	/* Each is drawn with 3 in 10; that one is not in 1000 times has 155 zeros behind the point. */
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(find(1, urls, 3, 1), 3);
		assert_string_not_equal(urls[0], urls[1]);
		assert_string_not_equal(urls[1], urls[2]);
		assert_string_not_equal(urls[0], urls[2]);
		for (int k = 0; k < 3; k++)
			seen[atoi(urls[k] + 10)] = true;
	}
	for (int i = 0; i < 10; i++)
		n += seen[i];
	assert_int_equal(n, 10);
}

static void holders__takes_no_nonsense(void **state)
{
	static const char *const urls[] = { "http://a:1",   "https://",	       "https://a/b",
					    "https://a?b",  "https://u@a:1",   "https://a b",
					    "https://a#b",  "file:///etc",     "",
					    "https://a\nb", "https://\xc3\xa4" };
	const struct kv_hash key = key_of(1);
	char name[HOLDERS_NAME_MAX], value[1024], found[1][HOLDERS_URL_BYTES];
	static const char good[] = "{\"url\":\"https://a:1\"}";

	for (size_t i = 0; i < ARRAY_LEN(urls); i++)
		assert_false(holders_is_site(urls[i]));
	for (size_t i = 0; i < ARRAY_LEN(urls); i++)
		assert_false(put(urls[i], 1, 10));
	holders_name("https://a:1", &key, name);
	assert_true(holders_take(h, name, good, sizeof(good) - 1, 10));
	/* Each name that is a little different, and each value that is cut. */
	for (size_t cut = 0; cut < sizeof(good) - 1; cut++)
		assert_false(holders_take(h, name, good, cut, 10));
	for (size_t i = 0; i < HOLDERS_NAME_MAX - 1; i++) {
		char other[HOLDERS_NAME_MAX];

		memcpy(other, name, sizeof(other));
		other[i] = 'x';
		assert_false(holders_take(h, other, good, sizeof(good) - 1, 10));
		other[i] = 0;
		assert_false(holders_take(h, other, good, sizeof(good) - 1, 10));
	}
	memset(value, ' ', sizeof(value));
	memcpy(value, good, sizeof(good) - 1);
	assert_true(holders_take(h, name, value, HOLDERS_VALUE_MAX, 10));
	assert_false(holders_take(h, name, value, HOLDERS_VALUE_MAX + 1, 10));
	assert_false(holders_take(h, name, "{\"url\":\"https://a\\u0000b\"}", 25, 10));
	assert_false(holders_take(h, name, "{\"url\":[]}", 10, 10));
	assert_false(holders_take(h, name, "[]", 2, 10));
	assert_false(holders_take(h, name, NULL, 0, 10));
	assert_int_equal(find(1, found, 1, 1), 1);
	assert_int_equal(holders_count(h), 1);
}

/* A directory that is full of lies costs no more memory than this, and what ends first is forgotten first. */
static void holders__has_a_bound(void **state)
{
	char found[1][HOLDERS_URL_BYTES], url[64];

	for (uint32_t i = 0; i < HOLDERS_MAX + 100; i++) {
		snprintf(url, sizeof(url), "https://h:%u", i);
		assert_true(put(url, i, 10 + i));
	}
	assert_int_equal(holders_count(h), HOLDERS_MAX);
	assert_int_equal(find(99, found, 1, 1), 0);
	assert_int_equal(find(100, found, 1, 1), 1);
	assert_int_equal(find(HOLDERS_MAX + 99, found, 1, 1), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(holders__finds_who_has_it, setup, teardown),
		cmocka_unit_test_setup_teardown(holders__draws_of_many, setup, teardown),
		cmocka_unit_test_setup_teardown(holders__takes_no_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(holders__has_a_bound, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
