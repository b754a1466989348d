// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "engine/prefix_tree.h"

enum { BLOCKS = 6, N = KV_BLOCK_TOKENS };

static const struct kv_geometry geo = { .n_layer = 2, .n_head_kv = 2, .head_dim = 16 };
static struct kvpool *pool;
static struct prefix_tree *tree;
static const struct prefix_scope mine = { .tenant = 1 };

static int setup(void **state)
{
	struct lslm_error err = { 0 };

	assert_ok(kvpool_create(&pool, &geo, BLOCKS * kv_stripe_bytes(&geo, KV_LEVEL_F16), &err),
		  &err);
	assert_int_equal(kvpool_size(pool), BLOCKS);
	assert_ok(prefix_tree_create(&tree, pool, 0.5, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	prefix_tree_destroy(tree);
	kvpool_destroy(pool);
	return 0;
}

/* n tokens: `first` all along, and what makes them different from position `at` on. */
static const int32_t *text(int32_t first, uint32_t at, int32_t then)
{
	static int32_t tokens[8][4 * N];
	static int turn;
	int32_t *t = tokens[turn++ % 8];

	for (uint32_t i = 0; i < 4 * N; i++)
		t[i] = i < at ? first : then;
	return t;
}

/*
 * A sequence of n tokens computes them all, and lets go of its blocks; returned are those that the
 * tree has.
 */
static void learn(const struct prefix_scope *scope, const int32_t *tokens, uint32_t n,
		  uint32_t blocks[4])
{
	uint32_t n_blocks = (n + N - 1) / N;

	for (uint32_t i = 0; i < n_blocks; i++) {
		int block = kvpool_take(pool);

		assert_true(block >= 0);
		blocks[i] = (uint32_t)block;
		blocks[i] = prefix_tree_put(tree, scope, tokens, n, blocks, i);
	}
	while (n_blocks)
		kvpool_drop(pool, blocks[--n_blocks]);
}

static uint32_t find(const struct prefix_scope *scope, const int32_t *tokens, uint32_t n)
{
	struct prefix_found found;
	uint32_t blocks[4];

	prefix_tree_find(tree, scope, tokens, n, blocks, &found);
	for (uint32_t i = 0; i < found.n_blocks; i++)
		kvpool_drop(pool, blocks[i]);
	if (found.copy_tokens)
		kvpool_drop(pool, found.copy);
	return found.n_blocks * N + found.copy_tokens;
}

static void find__gives_the_longest_prefix(void **state)
{
	uint32_t blocks[4];

	assert_int_equal(find(&mine, text(7, 4 * N, 0), 200), 0);
	learn(&mine, text(7, 4 * N, 0), 2 * N + 10, blocks);
	assert_int_equal(find(&mine, text(7, 4 * N, 0), 200), 2 * N + 10);
	assert_int_equal(find(&mine, text(7, 4 * N, 0), N + 3), N + 3);
	assert_int_equal(find(&mine, text(7, N, 8), 200), N);
	assert_int_equal(find(&mine, text(7, N + 20, 8), 200), N + 20);
	assert_int_equal(find(&mine, text(7, 20, 8), 200), 20);
	assert_int_equal(find(&mine, text(8, 20, 8), 200), 0);
	assert_int_equal(kvpool_idle_blocks(pool), 3);
}

static void find__stays_within_tenant_and_context(void **state)
{
	const struct prefix_scope other = { .tenant = 2 };
	const struct prefix_scope context = { .tenant = 1, .context = { { 1 } } };
	const struct prefix_scope salted = { .tenant = 1, .salt = { { 1 } } };
	uint32_t blocks[4];

	learn(&mine, text(7, 4 * N, 0), N, blocks);
	learn(&context, text(7, 4 * N, 0), N / 2, blocks);
	assert_int_equal(find(&other, text(7, 4 * N, 0), 200), 0);
	assert_int_equal(find(&salted, text(7, 4 * N, 0), 200), 0);
	assert_int_equal(find(&context, text(7, 4 * N, 0), 200), N / 2);
	assert_int_equal(find(&mine, text(7, 4 * N, 0), 200), N);
}

static void put__keeps_one_of_two_that_are_the_same(void **state)
{
	uint32_t first[4], second[4];

	learn(&mine, text(7, 4 * N, 0), 2 * N, first);
	learn(&mine, text(7, 4 * N, 0), 2 * N, second);
	assert_int_equal(first[0], second[0]);
	assert_int_equal(first[1], second[1]);
	assert_int_equal(kvpool_free_blocks(pool), BLOCKS - 2);
	/* What only begins another one is not kept, whichever came first. */
	learn(&mine, text(7, 4 * N, 0), 9, second);
	assert_int_equal(kvpool_free_blocks(pool), BLOCKS - 2);
	learn(&mine, text(3, 4 * N, 0), 9, first);
	learn(&mine, text(3, 4 * N, 0), 30, second);
	assert_int_equal(kvpool_free_blocks(pool), BLOCKS - 3);
	assert_int_equal(find(&mine, text(3, 4 * N, 0), 200), 30);
}

/* One block that grows while its sequence goes on. */
static void put__lets_a_block_grow(void **state)
{
	const int32_t *tokens = text(7, 70, 8);
	uint32_t blocks[4] = { (uint32_t)kvpool_take(pool) };

	prefix_tree_put(tree, &mine, tokens, 5, blocks, 0);
	assert_int_equal(find(&mine, tokens, 200), 5);
	prefix_tree_put(tree, &mine, tokens, 41, blocks, 0);
	assert_int_equal(find(&mine, tokens, 200), 41);
	prefix_tree_put(tree, &mine, tokens, N, blocks, 0);
	assert_int_equal(find(&mine, tokens, 200), N);
	assert_int_equal(prefix_tree_evict(tree), -ENOSPC);
	kvpool_drop(pool, blocks[0]);
	assert_int_equal(prefix_tree_evict(tree), 0);
	assert_int_equal(kvpool_free_blocks(pool), BLOCKS);
}

static void evict__takes_what_is_cheapest(void **state)
{
	uint32_t blocks[4];

	learn(&mine, text(1, 4 * N, 0), N, blocks); /* asked for often */
	learn(&mine, text(2, 4 * N, 0), N, blocks);
	learn(&mine, text(3, 4 * N, 0), 3, blocks); /* soon computed again */
	learn(&mine, text(4, 4 * N, 0), 2 * N, blocks); /* its end is dearer than its beginning */
	for (int i = 0; i < 5; i++)
		find(&mine, text(1, 4 * N, 0), 200);
	assert_int_equal(prefix_tree_evict(tree), 0);
	assert_int_equal(find(&mine, text(3, 4 * N, 0), 200), 0);
	assert_int_equal(prefix_tree_evict(tree), 0);
	assert_int_equal(find(&mine, text(2, 4 * N, 0), 200), 0);
	/* Of a path the last one goes first, although it is worth more than the one before. */
	for (int i = 0; i < 500; i++)
		find(&mine, text(1, 4 * N, 0), 200);
	assert_int_equal(prefix_tree_evict(tree), 0);
	assert_int_equal(find(&mine, text(4, 4 * N, 0), 200), N);
	assert_int_equal(prefix_tree_evict(tree), 0);
	assert_int_equal(find(&mine, text(4, 4 * N, 0), 200), 0);
	assert_int_equal(find(&mine, text(1, 4 * N, 0), 200), N);
	assert_int_equal(prefix_tree_evicted(tree), 4);
}

static void evict__spares_what_is_in_use(void **state)
{
	struct prefix_found found;
	uint32_t blocks[4];

	learn(&mine, text(1, 4 * N, 0), 2 * N, blocks);
	prefix_tree_find(tree, &mine, text(1, 4 * N, 0), N, blocks, &found);
	assert_int_equal(found.n_blocks, 1);
	assert_int_equal(prefix_tree_evict(tree), 0);
	assert_int_equal(prefix_tree_evict(tree), -ENOSPC);
	assert_true(kvpool_in_use(pool, blocks[0]));
	kvpool_drop(pool, blocks[0]);
	assert_int_equal(kvpool_idle_blocks(pool), 1);
	assert_int_equal(prefix_tree_evict(tree), 0);
}

static void copy__takes_the_first_tokens_of_every_layer(void **state)
{
	const size_t half = kv_half_bytes(&geo, KV_LEVEL_F16), row = geo.head_dim * 2;
	const uint32_t from = (uint32_t)kvpool_take(pool), to = (uint32_t)kvpool_take(pool);
	uint8_t *a = kvpool_stripe(pool, from), *b = kvpool_stripe(pool, to);

	assert_int_equal(kvpool_block(pool, a), from);
	for (size_t i = 0; i < kv_stripe_bytes(&geo, KV_LEVEL_F16); i++) {
		a[i] = (uint8_t)(1 + i % 251);
		b[i] = 0;
	}
	kvpool_copy(pool, to, from, 5);
	for (uint32_t i = 0; i < 2 * geo.n_layer; i++)
		for (uint32_t h = 0; h < geo.n_head_kv; h++) {
			const size_t at = i * half + h * N * row;

			assert_memory_equal(a + at, b + at, 5 * row);
			assert_int_equal(b[at + 5 * row], 0);
			assert_int_equal(b[at + N * row - 1], 0);
		}
}

static void pool__has_no_more_than_it_has(void **state)
{
	for (int i = 0; i < BLOCKS; i++)
		assert_true(kvpool_take(pool) >= 0);
	assert_int_equal(kvpool_take(pool), -ENOSPC);
	kvpool_drop(pool, 3);
	assert_int_equal(kvpool_take(pool), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(find__gives_the_longest_prefix, setup, teardown),
		cmocka_unit_test_setup_teardown(find__stays_within_tenant_and_context, setup,
						teardown),
		cmocka_unit_test_setup_teardown(put__keeps_one_of_two_that_are_the_same, setup,
						teardown),
		cmocka_unit_test_setup_teardown(put__lets_a_block_grow, setup, teardown),
		cmocka_unit_test_setup_teardown(evict__takes_what_is_cheapest, setup, teardown),
		cmocka_unit_test_setup_teardown(evict__spares_what_is_in_use, setup, teardown),
		cmocka_unit_test_setup_teardown(copy__takes_the_first_tokens_of_every_layer, setup,
						teardown),
		cmocka_unit_test_setup_teardown(pool__has_no_more_than_it_has, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
