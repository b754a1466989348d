// SPDX-License-Identifier: MIT
/* Keys of a session, on a clock of the test's own; the cloud's side is made with net/seal.h. */
#include "unit.h"

#include <sodium.h>

#include "net/keyring.h"
#include "net/seal.h"

#define SECOND 1000000000ULL

enum { EDGE = 7, CLOUD = 9, PAYLOAD = 40, PACKET = PAYLOAD + LSLM_WIRE_OVERHEAD };

static struct grant_keys pair(uint32_t number, uint64_t max_packets, uint32_t lifetime_s)
{
	struct grant_keys k = { .key = number,
				.max_packets = max_packets,
				.lifetime_s = lifetime_s };

	memset(k.to_edge, 0x40 + (int)number, sizeof(k.to_edge));
	memset(k.to_cloud, 0x80 + (int)number, sizeof(k.to_cloud));
	return k;
}

static long seal(struct keyring *k, uint8_t *packet, uint64_t now)
{
	static const uint8_t payload[PAYLOAD] = { 1, 2, 3 };

	return keyring_seal(k, LSLM_OP_REPORT, CLOUD, 5, payload, PAYLOAD, packet, now);
}

/* What a cloud would send. */
static void from_cloud(uint8_t *packet, uint32_t key, uint64_t counter)
{
	const struct lslm_header h = { .opcode = LSLM_OP_PROBE,
				       .version = LSLM_WIRE_VERSION,
				       .key = (uint8_t)key,
				       .session = EDGE,
				       .counter = counter | LSLM_COUNTER_CONTROL };
	const struct grant_keys k = pair(key, 1, 1);
	static const uint8_t payload[PAYLOAD];

	seal_packet(packet, &h, payload, PAYLOAD, k.to_edge);
}

static void keyring_seal__as_specified(void **state)
{
	struct grant_keys first = pair(0, 100, 60);
	uint8_t packet[PACKET], payload[PAYLOAD];
	struct lslm_header h;
	struct keyring k;

	keyring_init(&k, &first, 0);
	for (uint64_t i = 0; i < 3; i++) {
		assert_int_equal(seal(&k, packet, SECOND), PACKET);
		lslm_header_get(&h, packet);
		assert_int_equal(h.opcode, LSLM_OP_REPORT);
		assert_int_equal(h.version, LSLM_WIRE_VERSION);
		assert_int_equal(h.key, 0);
		assert_int_equal(h.flags, 0);
		assert_int_equal(h.session, CLOUD);
		assert_true(h.counter == (LSLM_COUNTER_CONTROL | i));
		assert_int_equal(h.slot, 0);
		assert_int_equal(h.generation, 5);
		assert_true(h.offset == 0);
		assert_int_equal(seal_open(payload, packet, PACKET, first.to_cloud), PAYLOAD);
		assert_int_equal(payload[1], 2);
	}
}

/* By time, and by count: both limits are kept, and the counter goes on with the next key. */
static void keyring_seal__until_it_ends(void **state)
{
	struct grant_keys keys[2] = { pair(0, 4, 60), pair(1, 8, 60) };
	uint8_t packet[PACKET];
	struct lslm_header h;
	struct keyring k;

	keyring_init(&k, &keys[0], 0);
	assert_int_equal(seal(&k, packet, 60 * SECOND - 1), PACKET);
	assert_int_equal(seal(&k, packet, 60 * SECOND), -EKEYEXPIRED);
	for (int i = 1; i < 4; i++)
		assert_int_equal(seal(&k, packet, SECOND), PACKET);
	assert_int_equal(seal(&k, packet, SECOND), -EKEYEXPIRED);
	assert_int_equal(keyring_add(&k, &keys[1], 0, SECOND), 0);
	for (uint64_t i = 4; i < 8; i++) {
		assert_int_equal(seal(&k, packet, SECOND), PACKET);
		lslm_header_get(&h, packet);
		assert_int_equal(h.key, 1);
		assert_true(h.counter == (LSLM_COUNTER_CONTROL | i));
	}
	assert_int_equal(seal(&k, packet, SECOND), -EKEYEXPIRED);
}

static void keyring_is_due__at_three_quarters(void **state)
{
	struct grant_keys first = pair(0, 400, 100);
	uint8_t packet[PACKET];
	struct keyring k;

	keyring_init(&k, &first, 0);
	assert_false(keyring_is_due(&k, 299, 75 * SECOND - 1));
	assert_true(keyring_is_due(&k, 299, 75 * SECOND));
	assert_true(keyring_is_due(&k, 299, 200 * SECOND));
	assert_true(keyring_is_due(&k, 300, 0));
	assert_true(keyring_is_due(&k, 4000, 0));
	for (int i = 0; i < 299; i++)
		seal(&k, packet, 0);
	assert_false(keyring_is_due(&k, 0, 0));
	seal(&k, packet, 0);
	assert_true(keyring_is_due(&k, 0, 0));
}

/* What is used is counted from where the key came in; where it ends does not depend on that. */
static void keyring_add__counts_from_its_start(void **state)
{
	struct grant_keys keys[2] = { pair(0, 400, 100), pair(1, 710, 100) };
	struct keyring k;

	keyring_init(&k, &keys[0], 0);
	assert_int_equal(keyring_add(&k, &keys[1], 710, SECOND), -EPROTO);
	assert_int_equal(keyring_add(&k, &keys[1], 310, SECOND), 0);
	assert_int_equal(keyring_retire(&k, 400, SECOND), 0);
	assert_false(keyring_is_due(&k, 609, SECOND));
	assert_true(keyring_is_due(&k, 610, SECOND));
	/* A reply that was lost is made good by another pair of the same number. */
	keys[1].max_packets = 1010;
	memset(keys[1].to_cloud, 0x99, sizeof(keys[1].to_cloud));
	assert_int_equal(keyring_add(&k, &keys[1], 610, SECOND), 0);
	assert_int_equal(k.newest, 1);
	assert_memory_equal(k.keys[1].to_cloud, keys[1].to_cloud, sizeof(keys[1].to_cloud));
	assert_false(keyring_is_due(&k, 909, SECOND));
	assert_true(keyring_is_due(&k, 910, SECOND));
}

static void keyring_add__only_the_next(void **state)
{
	struct grant_keys keys[4] = { pair(0, 1000, 100), pair(1, 1000, 100), pair(2, 1000, 100),
				      pair(3, 1000, 100) };
	struct keyring k;

	keyring_init(&k, &keys[0], 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(keyring_add(&k, &keys[i], 0, 0), i < 2 ? 0 : -EPROTO);
	/* Two are in use. */
	assert_int_equal(keyring_add(&k, &keys[2], 0, 0), -EPROTO);
	assert_int_equal(keyring_add(&k, &keys[0], 0, 0), -EPROTO);
	assert_false(keyring_is_due(&k, 900, 99 * SECOND));
}

/* The old one ends 10 s after the first word under the new one, or when it is used up. */
static void keyring_retire__in_time(void **state)
{
	struct grant_keys keys[6] = { pair(0, 1000, 100), pair(1, 1000, 100), pair(2, 1000, 100),
				      pair(3, 1000, 100), pair(0, 1000, 100), pair(1, 1000, 100) };
	static const uint8_t zero[LSLM_WIRE_KEY_BYTES];
	uint8_t packet[PACKET];
	uint64_t now = 80 * SECOND;
	struct keyring k;

	keyring_init(&k, &keys[0], 0);
	assert_int_equal(keyring_retire(&k, 0, now), LSLM_WIRE_KEYS);
	assert_int_equal(keyring_add(&k, &keys[1], 0, now), 0);
	assert_int_equal(keyring_retire(&k, 0, now + 11 * SECOND), LSLM_WIRE_KEYS);
	seal(&k, packet, now);
	assert_int_equal(keyring_retire(&k, 0, now + 10 * SECOND - 1), LSLM_WIRE_KEYS);
	assert_int_equal(keyring_retire(&k, 0, now + 10 * SECOND), 0);
	assert_memory_equal(k.keys[0].to_edge, zero, sizeof(zero));
	assert_memory_equal(k.keys[0].to_cloud, zero, sizeof(zero));
	assert_int_equal(keyring_retire(&k, 0, now + 10 * SECOND), LSLM_WIRE_KEYS);
	/* Round the four numbers, the old one over by time or by count. */
	for (uint32_t i = 2; i < 6; i++) {
		now += 100 * SECOND;
		assert_int_equal(keyring_add(&k, &keys[i], i * 10, now), 0);
		assert_int_equal(k.newest, i % 4);
		assert_int_equal(keyring_retire(&k, i * 10, now), (i - 1) % 4);
	}
	assert_int_equal(keyring_add(&k, &keys[2], 100, now), 0);
	assert_int_equal(keyring_retire(&k, 999, now), LSLM_WIRE_KEYS);
	assert_int_equal(keyring_retire(&k, 1000, now), 1);
}

static void keyring_open__once_and_authentic(void **state)
{
	struct grant_keys keys[2] = { pair(0, 100, 60), pair(1, 100, 60) };
	uint8_t packet[PACKET], copy[PACKET];
	struct lslm_header h;
	struct keyring k;

	keyring_init(&k, &keys[0], 0);
	from_cloud(packet, 0, 3);
	memcpy(copy, packet, PACKET);
	for (size_t i = 0; i < PACKET; i++) {
		memcpy(packet, copy, PACKET);
		packet[i] ^= 0x10;
		assert_int_equal(keyring_open(&k, &h, EDGE, packet, PACKET, 0), -EBADMSG);
	}
	for (size_t n = 0; n < PACKET; n++) {
		memcpy(packet, copy, PACKET);
		assert_int_equal(keyring_open(&k, &h, EDGE, packet, n, 0), -EBADMSG);
	}
	memcpy(packet, copy, PACKET);
	assert_int_equal(keyring_open(&k, &h, EDGE, packet, PACKET, 60 * SECOND), -EBADMSG);
	assert_int_equal(keyring_open(&k, &h, EDGE, packet, PACKET, 0), PAYLOAD);
	assert_int_equal(h.opcode, LSLM_OP_PROBE);
	/* Replayed; and as DATA, without the top bit. */
	memcpy(packet, copy, PACKET);
	assert_int_equal(keyring_open(&k, &h, EDGE, packet, PACKET, 0), -EBADMSG);
	/* Of a key that is not there, and then is. */
	from_cloud(packet, 1, 3);
	memcpy(copy, packet, PACKET);
	assert_int_equal(keyring_open(&k, &h, EDGE, packet, PACKET, 0), -EBADMSG);
	assert_int_equal(keyring_add(&k, &keys[1], 0, 0), 0);
	assert_int_equal(keyring_open(&k, &h, EDGE, copy, PACKET, 0), PAYLOAD);
	keyring_wipe(&k);
	from_cloud(packet, 0, 9);
	assert_int_equal(keyring_open(&k, &h, EDGE, packet, PACKET, 0), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keyring_seal__as_specified),
		cmocka_unit_test(keyring_seal__until_it_ends),
		cmocka_unit_test(keyring_is_due__at_three_quarters),
		cmocka_unit_test(keyring_add__counts_from_its_start),
		cmocka_unit_test(keyring_add__only_the_next),
		cmocka_unit_test(keyring_retire__in_time),
		cmocka_unit_test(keyring_open__once_and_authentic),
	};

	return sodium_init() < 0 ? 1 : cmocka_run_group_tests_name("keyring", tests, NULL, NULL);
}
