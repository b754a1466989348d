// SPDX-License-Identifier: MIT
/* Which contents a pass may go in with; on the twin of the module's buffers. */
#include "unit/unit.h"

#include "engine/gate.h"
#include "engine/sequence.h"
#include "kv/buffer.h"

static struct lslm_error err;

static uint32_t holds_of(struct buffer *b)
{
	struct buffer_info info;

	assert_ok(buffer_query(b, &info, &err), &err);
	return info.holds;
}

static uint64_t generation_of(struct buffer *b)
{
	struct buffer_info info;

	assert_ok(buffer_query(b, &info, &err), &err);
	return info.generation;
}

static struct sequence sharing(struct buffer *b)
{
	return (struct sequence){
		.segments = { { .buffer = b, .generation = generation_of(b) } },
		.n_segments = 1,
	};
}

static struct buffer *make(void)
{
	struct buffer *b;

	assert_ok(buffer_create(&b, BUFFER_MEMFD, 8192, 0, &err), &err);
	return b;
}

static void gate_enter__holds_once_what_parts_share(void **state)
{
	struct buffer *b = make();
	struct sequence one = sharing(b), two = sharing(b);
	const struct engine_part parts[] = { { .seq = &one }, { .seq = &two } };
	uint32_t at = 7;

	assert_ok(gate_enter(parts, 2, &at, &err), &err);
	assert_int_equal(holds_of(b), 1);
	gate_leave(parts, 2);
	assert_int_equal(holds_of(b), 0);
	buffer_close(b);
}

static void gate_enter__refuses_what_was_lost(void **state)
{
	struct buffer *whole = make(), *lost = make();
	struct sequence one = sharing(whole), two = sharing(lost);
	const struct engine_part parts[] = { { .seq = &one }, { .seq = &two } };
	uint64_t generation;
	uint32_t at = 7;

	assert_ok(buffer_purge(lost, &generation, &err), &err);
	assert_int_equal(gate_enter(parts, 2, &at, &err), -ESTALE);
	assert_int_equal(at, 1);
	assert_int_equal(holds_of(whole), 0);
	assert_int_equal(holds_of(lost), 0);
	buffer_close(whole);
	buffer_close(lost);
}

/* Lost, and there again: retained says that nothing was lost since, and is true. */
static void gate_enter__refuses_what_was_replaced(void **state)
{
	struct buffer *b = make();
	struct sequence one = sharing(b);
	const struct engine_part part = { .seq = &one };
	uint64_t generation;
	bool retained;
	uint32_t at = 7;

	assert_ok(buffer_purge(b, &generation, &err), &err);
	assert_ok(buffer_will_need(b, &retained, &generation, &err), &err);
	assert_false(retained);
	assert_ok(buffer_hold(b, &retained, &generation, &err), &err);
	assert_true(retained);
	assert_int_not_equal(generation, one.segments[0].generation);
	assert_ok(buffer_release(b, &err), &err);

	assert_int_equal(gate_enter(&part, 1, &at, &err), -ESTALE);
	assert_int_equal(at, 0);
	assert_int_equal(holds_of(b), 0);
	one = sharing(b);
	assert_ok(gate_enter(&part, 1, &at, &err), &err);
	gate_leave(&part, 1);
	buffer_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gate_enter__holds_once_what_parts_share),
		cmocka_unit_test(gate_enter__refuses_what_was_lost),
		cmocka_unit_test(gate_enter__refuses_what_was_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
