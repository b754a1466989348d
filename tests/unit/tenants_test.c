// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "serve/tenants.h"

static char path[] = "/tmp/lslm-tenants-XXXXXX";

static void put(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static struct tenants *open_with(const char *text)
{
	struct lslm_error err;
	struct tenants *t;

	put(text);
	assert_ok(tenants_open(&t, path, &err), &err);
	return t;
}

static void tenants_find__by_token(void **state)
{
	struct tenants *t = open_with("# who\n\nfirst-token\tshop  admin\r\nsecond-token shop\n"
				      "third-token office concurrent=2");
	struct tenant *shop = tenants_find(t, "Bearer first-token");

	assert_non_null(shop);
	assert_string_equal(tenant_name(shop), "shop");
	assert_true(tenant_is_admin(shop));
	assert_ptr_equal(tenants_find(t, "bearer second-token"), shop);
	assert_int_not_equal(tenant_number(tenants_find(t, "Bearer third-token")),
			     tenant_number(shop));
	assert_false(tenant_is_admin(tenants_find(t, "Bearer third-token")));
	assert_null(tenants_find(t, NULL));
	assert_null(tenants_find(t, "Bearer "));
	assert_null(tenants_find(t, "Bearer first-token "));
	assert_null(tenants_find(t, "Basic first-token"));
	assert_false(tenants_are_open(t));
	tenants_close(t);
}

static void tenants__without_a_file(void **state)
{
	struct lslm_error err;
	struct tenants *t;

	assert_ok(tenants_open(&t, NULL, &err), &err);
	assert_true(tenants_are_open(t));
	assert_true(tenant_is_admin(tenants_find(t, NULL)));
	tenants_close(t);
}

static void tenants_open__bad_lines(void **state)
{
	static const char *const bad[] = {
		"",
		"# nothing\n",
		"lonely-token\n",
		"short a\n",
		"good-token good\nsecret-token na/me\n",
		"secret-token name concurrent=0\n",
		"secret-token name concurrent=-1\n",
		"secret-token name concurrent=1x\n",
		"secret-token name tokens_per_minute=99999999999999999999\n",
		"secret-token name whatever\n",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct lslm_error err = { 0 };
		struct tenants *t;

		put(bad[i]);
		if (tenants_open(&t, path, &err) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
		assert_non_null(strstr(err.text, path));
		assert_null(strstr(err.text, "secret"));
	}
}

static void tenant_take__concurrent(void **state)
{
	struct tenants *t = open_with("some-token a concurrent=3\n");
	struct tenant *a = tenants_find(t, "Bearer some-token");
	unsigned int wait = 0;

	assert_int_equal(tenant_take(a, 2, 1, &wait), TENANT_FINE);
	assert_int_equal(tenant_take(a, 2, 1, &wait), TENANT_CONCURRENT);
	assert_true(wait > 0);
	assert_int_equal(tenant_take(a, 1, 1, &wait), TENANT_FINE);
	tenant_give(a, 2, 100, 1);
	assert_int_equal(tenant_take(a, 2, 1, &wait), TENANT_FINE);
	assert_int_equal(tenant_take(a, 4, 1, &wait), TENANT_CONCURRENT);
	tenants_close(t);
}

static void tenant_take__tokens_per_minute(void **state)
{
	struct tenants *t = open_with("some-token a tokens_per_minute=60\n");
	struct tenant *a = tenants_find(t, "Bearer some-token");
	unsigned int wait = 0;

	assert_int_equal(tenant_take(a, 1, 100, &wait), TENANT_FINE);
	tenant_give(a, 1, 90, 100);
	assert_int_equal(tenant_take(a, 1, 100, &wait), TENANT_TOKENS);
	assert_in_range(wait, 30, 32);
	assert_int_equal(tenant_take(a, 1, 129, &wait), TENANT_TOKENS);
	assert_int_equal(tenant_take(a, 1, 131, &wait), TENANT_FINE);
	tenants_close(t);
}

static void tenants_reload__keeps_tenants(void **state)
{
	struct tenants *t = open_with("old-token a concurrent=1\n");
	struct tenant *a = tenants_find(t, "Bearer old-token");
	struct lslm_error err;
	unsigned int wait;

	assert_int_equal(tenant_take(a, 1, 1, &wait), TENANT_FINE);
	put("broken\n");
	assert_int_equal(tenants_reload(t, &err), -EINVAL);
	assert_ptr_equal(tenants_find(t, "Bearer old-token"), a);
	put("new-token b\nother-token a concurrent=2\n");
	assert_ok(tenants_reload(t, &err), &err);
	assert_null(tenants_find(t, "Bearer old-token"));
	assert_ptr_equal(tenants_find(t, "Bearer other-token"), a);
	assert_int_equal(tenant_take(a, 1, 1, &wait), TENANT_FINE);
	assert_int_equal(tenant_take(a, 1, 1, &wait), TENANT_CONCURRENT);
	tenants_close(t);
}

static int note_salt(void *arg, const struct kv_hash *salt, const char *cloud_token,
		     const char *peer_token, struct lslm_error *err)
{
	char *seen = arg;

	sprintf(seen + strlen(seen), "%02x %s %s, ", salt->b[0], cloud_token ? cloud_token : "-",
		peer_token ? peer_token : "-");
	return 0;
}

static void tenants_each_salt__of_a_line_or_a_file(void **state)
{
	char file[] = "/tmp/lslm-salt-XXXXXX", text[512], seen[256] = "";
	const int fd = mkstemp(file);
	struct lslm_error err = { 0 };
	struct tenant_store store;
	struct tenants *t;

	assert_true(fd >= 0);
	for (int i = 0; i < 32; i++)
		assert_int_equal(write(fd, "c3", 2), 2);
	sprintf(text,
		"token-of-a a salt=%064d cloud_token=/x/a\ntoken-of-b b salt=%s peer_token=/x/b\ntoken-of-c c\n",
		7, file);
	t = open_with(text);
	assert_true(tenants_have_salts(t));
	assert_ok(tenants_each_salt(t, note_salt, seen, &err), &err);
	assert_string_equal(seen, "00 /x/a -, c3 - /x/b, ");
	tenant_store(tenants_find(t, "Bearer token-of-b"), &store);
	assert_int_equal(store.salt.b[31], 0xc3);
	/* Others may read it, or it is none: the old ones stay. */
	assert_int_equal(fchmod(fd, 0644), 0);
	assert_int_equal(tenants_reload(t, &err), -EACCES);
	assert_non_null(strstr(err.text, "line 2"));
	assert_int_equal(fchmod(fd, 0600) + ftruncate(fd, 63), 0);
	assert_int_equal(tenants_reload(t, &err), -EINVAL);
	assert_null(strstr(err.text, "c3c3"));
	tenant_store(tenants_find(t, "Bearer token-of-b"), &store);
	assert_int_equal(store.salt.b[31], 0xc3);
	put("token-of-a a cloud_token=/x/a\n");
	assert_int_equal(tenants_reload(t, &err), -EINVAL);
	put("token-of-a a\n");
	assert_ok(tenants_reload(t, &err), &err);
	tenants_close(t);
	t = open_with("token-of-a a\n");
	assert_false(tenants_have_salts(t));
	tenants_close(t);
	close(fd);
	unlink(file);
}

static int make(void **state)
{
	int fd = mkstemp(path);

	return fd < 0 ? -1 : close(fd);
}

static int drop(void **state)
{
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tenants_find__by_token),
		cmocka_unit_test(tenants__without_a_file),
		cmocka_unit_test(tenants_open__bad_lines),
		cmocka_unit_test(tenant_take__concurrent),
		cmocka_unit_test(tenant_take__tokens_per_minute),
		cmocka_unit_test(tenants_reload__keeps_tenants),
		cmocka_unit_test(tenants_each_salt__of_a_line_or_a_file),
	};

	return cmocka_run_group_tests(tests, make, drop);
}
