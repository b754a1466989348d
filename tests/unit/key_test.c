// SPDX-License-Identifier: MIT
#include "unit/unit.h"
#include "unit/context.h"

#include "kv/geometry.h"
#include "kv/key.h"

static void assert_hash(const struct kv_hash *h, const char *expected)
{
	char text[KV_HASH_TEXT];

	kv_hash_format(h, text);
	assert_string_equal(text, expected);
}

/* Computed with Python's hashlib from the byte tables of docs/protocol.md. */
static void key__documented_example(void **state)
{
	const struct kv_identity id = context_identity();
	int32_t tokens[66];
	struct kv_hash key;

	for (int i = 0; i < 66; i++)
		tokens[i] = i + 1;
	key = kv_key_root(&id);
	assert_hash(&key, "7286622756daf12082b114f69d575ad1857133c22744777b5e2a6b9c21182f98");
	key = kv_key(&id, tokens, 64);
	assert_hash(&key, "d6b4c649015f793352a6a82e881cf908f31fc1e63aafd7f8b1d4e14b9c9808c9");
	key = kv_key(&id, tokens, 66);
	assert_hash(&key, "2565c2088a9308d09666ea295a66d0c36ae749cb1548670122e602c655779c6c");
}

static void key__is_the_chain_of_links(void **state)
{
	const struct kv_identity id = context_identity();
	int32_t tokens[200];
	struct kv_hash key, chain;

	for (int i = 0; i < 200; i++)
		tokens[i] = 7 * i;
	chain = kv_key_root(&id);
	key = kv_key(&id, tokens, 0);
	assert_true(kv_hash_equal(&key, &chain));
	for (uint32_t s = 0; s < 3; s++) {
		chain = kv_key_link(&chain, tokens + 64 * s, 64);
		key = kv_key(&id, tokens, 64 * (s + 1));
		assert_true(kv_hash_equal(&key, &chain));
	}
	chain = kv_key_link(&chain, tokens + 192, 8);
	key = kv_key(&id, tokens, 200);
	assert_true(kv_hash_equal(&key, &chain));
}

static void key__depends_on_every_input(void **state)
{
	const struct kv_identity id = context_identity();
	int32_t tokens[70] = { 0 };
	const struct kv_hash key = kv_key(&id, tokens, 70);
	struct kv_hash other;

	for (size_t i = 0; i < sizeof(id); i++) {
		struct kv_identity changed = id;

		((uint8_t *)&changed)[i] ^= 1;
		other = kv_key(&changed, tokens, 70);
		assert_false(kv_hash_equal(&key, &other));
	}
	for (int i = 0; i < 70; i++) {
		tokens[i] ^= 1;
		other = kv_key(&id, tokens, 70);
		assert_false(kv_hash_equal(&key, &other));
		tokens[i] ^= 1;
	}
	other = kv_key(&id, tokens, 69);
	assert_false(kv_hash_equal(&key, &other));
}

static void digest__known_value(void **state)
{
	struct kv_hash h = kv_digest("abc", 3);

	assert_hash(&h, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
	h = kv_digest(NULL, 0);
	assert_hash(&h, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
}

static void hash_parse__both_sides(void **state)
{
	static const char good[] =
		"00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
	char text[80];
	struct kv_hash h;

	assert_int_equal(kv_hash_parse(&h, good), 0);
	assert_int_equal(h.b[1], 0x11);
	assert_int_equal(h.b[31], 0xff);
	snprintf(text, sizeof(text), "%s0", good);
	assert_int_equal(kv_hash_parse(&h, text), -EINVAL);
	snprintf(text, sizeof(text), "%.63s", good);
	assert_int_equal(kv_hash_parse(&h, text), -EINVAL);
	snprintf(text, sizeof(text), "%.63sg", good);
	assert_int_equal(kv_hash_parse(&h, text), -EINVAL);
	assert_int_equal(kv_hash_parse(&h, ""), -EINVAL);
}

static void hash_begins__table(void **state)
{
	const struct kv_hash h = { { 0xab, 0xcd, [31] = 0xef } };
	char text[KV_HASH_TEXT + 1];

	assert_true(kv_hash_begins(&h, "a"));
	assert_true(kv_hash_begins(&h, "AbCd"));
	assert_false(kv_hash_begins(&h, "b"));
	assert_false(kv_hash_begins(&h, "abce"));
	assert_false(kv_hash_begins(&h, ""));
	kv_hash_format(&h, text);
	assert_true(kv_hash_begins(&h, text));
	strcpy(text + KV_HASH_TEXT - 1, "0");
	assert_false(kv_hash_begins(&h, text));
}

static void hash_equal__last_byte(void **state)
{
	struct kv_hash a = { { 0 } }, b = a;

	assert_true(kv_hash_equal(&a, &b));
	b.b[31] = 1;
	assert_false(kv_hash_equal(&a, &b));
}

static void hash_is_zero__every_byte(void **state)
{
	struct kv_hash h = { { 0 } };

	assert_true(kv_hash_is_zero(&h));
	for (int i = 0; i < KV_HASH_BYTES; i++) {
		h.b[i] = 1;
		assert_false(kv_hash_is_zero(&h));
		h.b[i] = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(key__documented_example),
		cmocka_unit_test(key__is_the_chain_of_links),
		cmocka_unit_test(key__depends_on_every_input),
		cmocka_unit_test(digest__known_value),
		cmocka_unit_test(hash_parse__both_sides),
		cmocka_unit_test(hash_begins__table),
		cmocka_unit_test(hash_equal__last_byte),
		cmocka_unit_test(hash_is_zero__every_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
