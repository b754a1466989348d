// SPDX-License-Identifier: MIT
/* What a supervisor counts of its couriers' clouds. */
#include "net/breaker.h"
#include "serve/clouds.h"
#include "unit/unit.h"

static struct clouds c;
static struct board_cloud rows[BOARD_CLOUDS];

static int says(const char *name, uint32_t value, uint64_t opened, uint64_t probes)
{
	struct channel_message m = { .value = value, .opened = opened, .probes = probes };

	snprintf(m.text, sizeof(m.text), "%s", name);
	return clouds_take(&c, rows, &m);
}

static void check(uint32_t row, const char *name, uint32_t value, uint64_t opened, uint64_t probes)
{
	assert_string_equal(rows[row].name, name);
	assert_int_equal(rows[row].state, value);
	assert_int_equal(rows[row].opened, opened);
	assert_int_equal(rows[row].probes, probes);
}

static void clouds__counts_go_on_with_the_next_courier(void **state)
{
	clouds_begin(&c);
	assert_int_equal(says("https://a", BREAKER_CLOSED, 0, 0), 0);
	assert_int_equal(says("https://b", BREAKER_OPEN, 1, 0), 0);
	assert_int_equal(says("https://a", BREAKER_OPEN, 2, 7), 0);
	assert_int_equal(says("https://a", BREAKER_HALF_OPEN, 2, 8), 0);
	check(0, "https://a", BREAKER_HALF_OPEN, 2, 8);
	check(1, "https://b", BREAKER_OPEN, 1, 0);
	clouds_begin(&c);
	check(0, "https://a", BREAKER_HALF_OPEN, 2, 8);
	assert_int_equal(says("https://a", BREAKER_CLOSED, 0, 1), 0);
	check(0, "https://a", BREAKER_CLOSED, 2, 9);
	assert_int_equal(says("https://a", BREAKER_OPEN, 1, 1), 0);
	check(0, "https://a", BREAKER_OPEN, 3, 9);
}

static void clouds__refuse_what_is_none(void **state)
{
	char name[16];

	memset(rows, 0, sizeof(rows));
	clouds_begin(&c);
	assert_int_equal(says("", BREAKER_CLOSED, 0, 0), -EPROTO);
	assert_int_equal(says("https://a", BREAKER_STATES, 0, 0), -EPROTO);
	assert_int_equal(*rows[0].name, 0);
	assert_int_equal(says("https://a", BREAKER_OPEN, 5, 5), 0);
	assert_int_equal(says("https://a", BREAKER_OPEN, 4, 5), -EPROTO);
	assert_int_equal(says("https://a", BREAKER_OPEN, 5, 4), -EPROTO);
	check(0, "https://a", BREAKER_OPEN, 5, 5);
	/* There is no room for all; that is no fault of the courier's. */
	for (int i = 0; i < 2 * BOARD_CLOUDS; i++) {
		snprintf(name, sizeof(name), "https://%d", i);
		assert_int_equal(says(name, BREAKER_OPEN, 1, 1), 0);
	}
	check(BOARD_CLOUDS - 1, "https://14", BREAKER_OPEN, 1, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clouds__counts_go_on_with_the_next_courier),
		cmocka_unit_test(clouds__refuse_what_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
