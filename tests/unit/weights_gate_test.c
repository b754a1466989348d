// SPDX-License-Identifier: MIT
/* What the gate hands out, in which order, into which slot; one thread plays both sides where nobody has to wait. */
#include "unit.h"

#include <pthread.h>

#include "engine/weights_gate.h"

static struct weights_gate g;

static int teardown(void **state)
{
	weights_gate_destroy(&g);
	return 0;
}

/* The loader's next turn, which must be this one. */
static struct weights_turn expect(uint32_t section, int32_t slot)
{
	struct weights_turn t;

	assert_int_equal(weights_gate_next(&g, false, &t), 1);
	assert_int_equal(t.section, section);
	assert_int_equal(t.slot, slot);
	return t;
}

static void expect_none(int code)
{
	struct weights_turn t;

	assert_int_equal(weights_gate_next(&g, false, &t), code);
}

static void loads(uint32_t section, int32_t slot)
{
	const struct weights_turn t = expect(section, slot);

	weights_gate_loaded(&g, &t);
}

/* The engine needs what is there. */
static void uses(uint32_t section, int32_t slot)
{
	struct lslm_error err = { 0 };
	struct weights_turn t;

	assert_ok(weights_gate_need(&g, section, &t, &err), &err);
	assert_int_equal(t.section, section);
	assert_int_equal(t.slot, slot);
}

static void everything_stays_in_order(void **state)
{
	weights_gate_init(&g, 4, 3, 0);
	for (uint32_t s = 0; s < 4; s++)
		loads(s, -1);
	expect_none(-1);
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t s = 0; s < 4; s++)
			uses(s, -1);
}

/* Layers 0 and 1 stay, 2, 3 and 4 take turns, 5 is the output. */
static void the_rest_takes_turns(void **state)
{
	weights_gate_init(&g, 6, 2, 2);
	loads(0, -1);
	loads(1, -1);
	loads(5, -1);
	loads(2, 0);
	loads(3, 1);
	expect_none(0);
	uses(0, -1);
	uses(1, -1);
	uses(2, 0);
	expect_none(0);
	uses(3, 1);
	loads(4, 0);
	expect_none(0);
	uses(4, 0);
	loads(2, 1);
	uses(5, -1);
	loads(3, 0);
	uses(0, -1);
	expect_none(0);
	uses(2, 1);
}

static void what_is_asked_for_again_is_kept(void **state)
{
	weights_gate_init(&g, 4, 0, 2);
	loads(3, -1);
	loads(0, 0);
	loads(1, 1);
	uses(0, 0);
	uses(0, 0);
	expect_none(0);
}

/* A pass that ends early wants layer 0 next: 2, which was read for nothing, makes room. */
static void a_pass_may_end_early(void **state)
{
	struct weights_turn one, two;

	weights_gate_init(&g, 5, 0, 3);
	loads(4, -1);
	loads(0, 0);
	loads(1, 1);
	two = expect(2, 2);
	uses(0, 0);
	uses(1, 1);
	one = expect(3, 0);
	/* Both are still being read into their slots when the engine goes back to 0. */
	assert_int_equal(two.number, 2);
	weights_gate_loaded(&g, &two);
	weights_gate_loaded(&g, &one);
	uses(2, 2);
	loads(0, 1);
	uses(0, 1);
	loads(1, 2);
	loads(2, 0);
}

static void *late(void *arg)
{
	struct weights_turn t;
	int32_t *slots = arg;

	/* Waits until the engine has asked for a section that is not among those started. */
	while (weights_gate_next(&g, true, &t) > 0) {
		slots[t.section] = t.slot;
		weights_gate_loaded(&g, &t);
	}
	return NULL;
}

static void the_engine_waits_for_what_it_needs(void **state)
{
	static const uint32_t wanted[] = { 0, 1, 2, 3, 7, 0, 6, 1, 1, 5, 2, 0, 7, 4 };
	struct lslm_error err = { 0 };
	int32_t slots[8] = { 0 };
	struct weights_turn t;
	pthread_t thread;

	weights_gate_init(&g, 8, 1, 3);
	assert_int_equal(pthread_create(&thread, NULL, late, slots), 0);
	for (int round = 0; round < 200; round++)
		for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
			assert_ok(weights_gate_need(&g, wanted[i], &t, &err), &err);
			assert_int_equal(t.section, wanted[i]);
			assert_int_equal(t.slot, slots[wanted[i]]);
		}
	weights_gate_stop(&g);
	pthread_join(thread, NULL);
}

/* Slots of turns that nobody wants any more are not given away while they are read into. */
static void a_slot_in_flight_is_not_reused(void **state)
{
	struct weights_turn zero, one;
	struct lslm_error err = { 0 };

	weights_gate_init(&g, 5, 0, 2);
	loads(4, -1);
	zero = expect(0, 0);
	one = expect(1, 1);
	pthread_mutex_lock(&g.lock);
	g.first = 1; /* as an engine that asks for 1, and not for 0, leaves it while it waits */
	g.in_use = true;
	pthread_mutex_unlock(&g.lock);
	expect_none(0);
	weights_gate_loaded(&g, &one);
	expect_none(0);
	weights_gate_loaded(&g, &zero);
	loads(2, 0);
	assert_ok(weights_gate_need(&g, 1, &one, &err), &err);
	assert_int_equal(one.slot, 1);
	expect_none(0);
}

static void an_error_reaches_the_engine(void **state)
{
	const struct lslm_error why = { -EIO, "file: cannot read the weights" };
	struct lslm_error err = { 0 };
	struct weights_turn t;

	weights_gate_init(&g, 4, 3, 0);
	loads(0, -1);
	weights_gate_fail(&g, &why);
	uses(0, -1);
	assert_int_equal(weights_gate_need(&g, 1, &t, &err), -ENOTRECOVERABLE);
	assert_string_equal(err.text, why.text);
	expect_none(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(everything_stays_in_order, teardown),
		cmocka_unit_test_teardown(the_rest_takes_turns, teardown),
		cmocka_unit_test_teardown(what_is_asked_for_again_is_kept, teardown),
		cmocka_unit_test_teardown(a_pass_may_end_early, teardown),
		cmocka_unit_test_teardown(the_engine_waits_for_what_it_needs, teardown),
		cmocka_unit_test_teardown(a_slot_in_flight_is_not_reused, teardown),
		cmocka_unit_test_teardown(an_error_reaches_the_engine, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
