// SPDX-License-Identifier: MIT
/*
 * The GGUF reader against files written byte by byte here: one good file for every
 * accessor, and one bad file per rule with the line it must be refused with.
 */
#include "unit/unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "model/gguf.h"

/* --- a writer that can lie --- */

struct file {
	_Alignas(64) uint8_t data[8192];
	size_t len;
};

static void put(struct file *f, const void *p, size_t n)
{
	assert_true(f->len + n <= sizeof(f->data));
	memcpy(f->data + f->len, p, n);
	f->len += n;
}

/* Little-endian, n bytes. */
static void put_le(struct file *f, uint64_t v, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		put(f, &(uint8_t){ v >> (8 * i) }, 1);
}

static void put_str(struct file *f, const char *s)
{
	put_le(f, strlen(s), 8);
	put(f, s, strlen(s));
}

static void put_head(struct file *f, uint32_t version, uint64_t tensors, uint64_t keys)
{
	put(f, "GGUF", 4);
	put_le(f, version, 4);
	put_le(f, tensors, 8);
	put_le(f, keys, 8);
}

/* A scalar of the given value type and width. */
static void put_kv(struct file *f, const char *key, uint32_t type, uint64_t value,
		   unsigned int width)
{
	put_str(f, key);
	put_le(f, type, 4);
	put_le(f, value, width);
}

static void put_array(struct file *f, const char *key, uint32_t elem, uint64_t n)
{
	put_str(f, key);
	put_le(f, 9, 4);
	put_le(f, elem, 4);
	put_le(f, n, 8);
}

static void put_info(struct file *f, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
		     uint64_t offset)
{
	put_str(f, name);
	put_le(f, 2, 4);
	put_le(f, ne0, 8);
	put_le(f, ne1, 8);
	put_le(f, type, 4);
	put_le(f, offset, 8);
}

static void pad(struct file *f, size_t alignment)
{
	while (f->len % alignment)
		put_le(f, 0, 1);
}

static void put_data(struct file *f, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put_le(f, i, 1);
}

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 };

/* --- the good file --- */

static uint64_t f64_bits(double d)
{
	uint64_t u;

	memcpy(&u, &d, sizeof(u));
	return u;
}

static void put_good(struct file *f, uint32_t version)
{
	put_head(f, version, 2, 18);
	put_kv(f, "u8", U8, 200, 1);
	put_kv(f, "i8", I8, -5, 1);
	put_kv(f, "u16", U16, 65535, 2);
	put_kv(f, "i16", I16, -300, 2);
	put_kv(f, "u32", U32, 0xffffffff, 4);
	put_kv(f, "i32", I32, 77, 4);
	put_kv(f, "f32", F32, 0x3fc00000, 4);
	put_kv(f, "true", BOOL, 1, 1);
	put_kv(f, "false", BOOL, 0, 1);
	put_str(f, "str");
	put_le(f, STR, 4);
	put_str(f, "a\nb");
	put_kv(f, "u64", U64, 1ULL << 32, 8);
	put_kv(f, "i64", I64, -1, 8);
	put_kv(f, "f64", F64, f64_bits(0.25), 8);
	put_kv(f, "f64.large", F64, f64_bits(1e300), 8);
	put_array(f, "arr.str", STR, 3);
	put_str(f, "one");
	put_str(f, "");
	put_str(f, "thr\xc3\xa9");
	put_array(f, "arr.i64", I64, 3);
	put_le(f, -7, 8);
	put_le(f, INT32_MAX, 8);
	put_le(f, 1ULL << 31, 8);
	put_array(f, "arr.f32", F32, 1);
	put_le(f, 0xbf800000, 4);
	put_array(f, "arr.empty", STR, 0);
	put_info(f, "a.weight", GGUF_F32, 4, 3, 0);
	put_info(f, "b.weight", GGUF_Q8_0, 64, 2, 64);
	pad(f, 32);
	put_data(f, 64 + 2 * 68);
}

static void gguf_get__converts_and_refuses(void **state)
{
	struct file f = { .len = 0 };
	struct lslm_error err = { 0 };
	struct gguf_str s;
	struct gguf *g;
	uint32_t u = 1;
	float x = 1;
	bool b;

	put_good(&f, 3);
	assert_ok(gguf_open_mem(&g, f.data, f.len, &err), &err);
	assert_int_equal(gguf_version(g), 3);
	assert_int_equal(gguf_n_kv(g), 18);
	assert_string_equal(gguf_path(g), "(memory)");
	assert_int_equal(gguf_fd(g), -1);

	assert_int_equal(gguf_get_u32(g, "u8", &u), 0);
	assert_int_equal(u, 200);
	assert_int_equal(gguf_get_u32(g, "u16", &u), 0);
	assert_int_equal(u, 65535);
	assert_int_equal(gguf_get_u32(g, "u32", &u), 0);
	assert_int_equal(u, 0xffffffff);
	assert_int_equal(gguf_get_u32(g, "i32", &u), 0);
	assert_int_equal(u, 77);
	for (const char **k = (const char *[]){ "i8", "i16", "u64", "i64", "f32", "true", "str",
						"arr.i64", NULL };
	     *k; k++)
		assert_int_equal(gguf_get_u32(g, *k, &u), -EINVAL);
	assert_int_equal(u, 77);
	assert_int_equal(gguf_get_u32(g, "none", &u), -ENOENT);

	assert_int_equal(gguf_get_f32(g, "f32", &x), 0);
	assert_true(x == 1.5f);
	assert_int_equal(gguf_get_f32(g, "f64", &x), 0);
	assert_true(x == 0.25f);
	assert_int_equal(gguf_get_f32(g, "f64.large", &x), -EINVAL);
	assert_int_equal(gguf_get_f32(g, "u32", &x), -EINVAL);
	assert_int_equal(gguf_get_f32(g, "arr.f32", &x), -EINVAL);
	assert_int_equal(gguf_get_f32(g, "none", &x), -ENOENT);

	assert_int_equal(gguf_get_bool(g, "true", &b), 0);
	assert_true(b);
	assert_int_equal(gguf_get_bool(g, "false", &b), 0);
	assert_false(b);
	assert_int_equal(gguf_get_bool(g, "u8", &b), -EINVAL);
	assert_int_equal(gguf_get_bool(g, "none", &b), -ENOENT);

	assert_int_equal(gguf_get_str(g, "str", &s), 0);
	assert_int_equal(s.len, 3);
	assert_memory_equal(s.ptr, "a\nb", 3);
	assert_int_equal(gguf_get_str(g, "arr.str", &s), -EINVAL);
	assert_int_equal(gguf_get_str(g, "u8", &s), -EINVAL);
	assert_int_equal(gguf_get_str(g, "none", &s), -ENOENT);
	gguf_close(g);
}

static void gguf_arr__reads_elements(void **state)
{
	struct file f = { .len = 0 };
	struct lslm_error err = { 0 };
	struct gguf_str s;
	struct gguf *g;
	int32_t i = 0;
	float x = 0;

	put_good(&f, 2);
	assert_ok(gguf_open_mem(&g, f.data, f.len, &err), &err);
	assert_int_equal(gguf_version(g), 2);
	assert_int_equal(gguf_arr_len(g, "arr.str"), 3);
	assert_int_equal(gguf_arr_len(g, "arr.empty"), 0);
	assert_int_equal(gguf_arr_len(g, "u8"), -EINVAL);
	assert_int_equal(gguf_arr_len(g, "none"), -ENOENT);

	assert_int_equal(gguf_arr_str(g, "arr.str", 0, &s), 0);
	assert_memory_equal(s.ptr, "one", s.len);
	assert_int_equal(gguf_arr_str(g, "arr.str", 1, &s), 0);
	assert_int_equal(s.len, 0);
	assert_int_equal(gguf_arr_str(g, "arr.str", 2, &s), 0);
	assert_int_equal(s.len, 5);
	assert_int_equal(gguf_arr_str(g, "arr.str", 3, &s), -EINVAL);
	assert_int_equal(gguf_arr_str(g, "arr.empty", 0, &s), -EINVAL);
	assert_int_equal(gguf_arr_str(g, "arr.i64", 0, &s), -EINVAL);
	assert_int_equal(gguf_arr_str(g, "str", 0, &s), -EINVAL);
	assert_int_equal(gguf_arr_str(g, "none", 0, &s), -ENOENT);

	assert_int_equal(gguf_arr_i32(g, "arr.i64", 0, &i), 0);
	assert_int_equal(i, -7);
	assert_int_equal(gguf_arr_i32(g, "arr.i64", 1, &i), 0);
	assert_int_equal(i, INT32_MAX);
	assert_int_equal(gguf_arr_i32(g, "arr.i64", 2, &i), -EINVAL);
	assert_int_equal(gguf_arr_i32(g, "arr.i64", 3, &i), -EINVAL);
	assert_int_equal(gguf_arr_i32(g, "arr.str", 0, &i), -EINVAL);

	assert_int_equal(gguf_arr_f32(g, "arr.f32", 0, &x), 0);
	assert_true(x == -1);
	assert_int_equal(gguf_arr_f32(g, "arr.f32", 1, &x), -EINVAL);
	assert_int_equal(gguf_arr_f32(g, "arr.i64", 0, &x), -EINVAL);
	gguf_close(g);
}

static void gguf_tensor__points_into_the_file(void **state)
{
	struct file f = { .len = 0 };
	struct lslm_error err = { 0 };
	const struct gguf_tensor *t;
	struct gguf *g;

	put_good(&f, 3);
	assert_ok(gguf_open_mem(&g, f.data, f.len, &err), &err);
	assert_int_equal(gguf_n_tensors(g), 2);
	t = gguf_tensor_find(g, "b.weight");
	assert_non_null(t);
	assert_ptr_equal(t, gguf_tensor(g, 1));
	assert_string_equal(t->name, "b.weight");
	assert_int_equal(t->type, GGUF_Q8_0);
	assert_int_equal(t->n_dims, 2);
	assert_int_equal(t->ne[0], 64);
	assert_int_equal(t->ne[1], 2);
	assert_int_equal(t->ne[2], 1);
	assert_int_equal(t->ne[3], 1);
	assert_int_equal(t->size, 2 * 68);
	assert_ptr_equal(t->data, f.data + f.len - 2 * 68);
	assert_ptr_equal(t->data, (const uint8_t *)gguf_file_data(g) + t->offset);
	assert_int_equal(t->offset + t->size, gguf_file_size(g));
	assert_null(gguf_tensor_find(g, "b.weigh"));
	assert_null(gguf_tensor_find(g, "c.weight"));
	gguf_close(g);
}

static void gguf_kv_text__is_one_line(void **state)
{
	static const struct {
		size_t i, cap;
		const char *text;
	} cases[] = {
		{ 0, 64, "200" },
		{ 1, 64, "-5" },
		{ 4, 64, "4294967295" },
		{ 6, 64, "1.5" },
		{ 7, 64, "true" },
		{ 9, 64, "a?b" },
		{ 9, 3, "a?" },
		{ 10, 64, "4294967296" },
		{ 11, 64, "-1" },
		{ 14, 64, "[3] \"one\" \"\" \"thr\xc3\xa9\"" },
		{ 14, 18, "[3] \"one\" \"\" \"thr" }, /* not half of the last character */
		{ 14, 6, "[3] \"" },
		{ 14, 1, "" },
		{ 15, 64, "[3] -7 2147483647 2147483648" },
		{ 17, 64, "[0]" },
	};
	struct file f = { .len = 0 };
	struct lslm_error err = { 0 };
	char text[64];
	const void *raw;
	struct gguf *g;
	size_t size;

	put_good(&f, 3);
	assert_ok(gguf_open_mem(&g, f.data, f.len, &err), &err);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memset(text, 'x', sizeof(text));
		gguf_kv_text(g, cases[i].i, text, cases[i].cap);
		assert_string_equal(text, cases[i].text);
	}
	gguf_kv_text(g, 0, NULL, 0);
	assert_int_equal(gguf_kv_key(g, 9).len, 3);
	gguf_kv_raw(g, 9, &raw, &size);
	assert_int_equal(size, 4 + 8 + 3);
	assert_memory_equal((const uint8_t *)raw + 12, "a\nb", 3);
	gguf_kv_raw(g, 15, &raw, &size);
	assert_int_equal(size, 4 + 4 + 8 + 3 * 8);
	gguf_close(g);
}

static void gguf_open_mem__cut_anywhere_is_refused(void **state)
{
	struct file f = { .len = 0 };
	struct lslm_error err = { 0 };
	struct gguf *g;

	put_good(&f, 3);
	for (size_t n = 0; n < f.len; n++) {
		/* A copy of exactly n bytes, so that the sanitizer sees the first byte read beyond. */
		void *copy = malloc(n + 1);

		memcpy(copy, f.data, n);
		assert_int_equal(gguf_open_mem(&g, copy, n, &err), -EINVAL);
		if (!strstr(err.text, "cut short"))
			fail_msg("cut at %zu: %s", n, err.text);
		free(copy);
	}
}

/* --- one bad file per rule --- */

static void bad_magic(struct file *f)
{
	put(f, "GGJT", 4);
	put_le(f, 3, 4);
	put_data(f, 16);
}

static void bad_version_1(struct file *f)
{
	put_head(f, 1, 0, 0);
}

static void bad_version_4(struct file *f)
{
	put_head(f, 4, 0, 0);
}

static void bad_big_endian(struct file *f)
{
	put_head(f, 0x03000000, 0, 0);
}

static void bad_tensor_count(struct file *f)
{
	put_head(f, 3, UINT64_MAX, 0);
}

static void bad_key_count(struct file *f)
{
	put_head(f, 3, 0, 2);
	put_kv(f, "k", U32, 0, 4);
}

static void bad_key_length(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_le(f, UINT64_MAX, 8);
	put_data(f, 64);
}

static void bad_empty_key(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "", U32, 0, 4);
}

static void bad_key_nul(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_le(f, 3, 8);
	put(f, "a\0b", 3);
	put_le(f, U32, 4);
	put_le(f, 0, 4);
}

static void bad_duplicate_key(struct file *f)
{
	put_head(f, 3, 0, 3);
	put_kv(f, "same", U32, 0, 4);
	put_kv(f, "other", U32, 0, 4);
	put_kv(f, "same", U8, 0, 1);
}

static void bad_value_type(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "k", 13, 0, 8);
}

static void bad_element_type(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_array(f, "k", 0x80000000, 0);
}

static void bad_bool(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "k", BOOL, 2, 1);
}

static void bad_bool_array(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_array(f, "k", BOOL, 3);
	put_le(f, 0x020100, 3);
}

static void bad_nested_array(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_array(f, "k", ARR, 1);
	put_data(f, 16);
}

static void bad_array_product(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_array(f, "k", U64, (UINT64_MAX / 8) + 2); /* times 8 wraps round to 8 */
	put_data(f, 64);
}

static void bad_string_array_count(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_array(f, "k", STR, UINT64_MAX / 8 + 2);
	put_data(f, 64);
}

static void bad_string_in_array(struct file *f)
{
	put_head(f, 3, 0, 2);
	put_array(f, "k", STR, 2);
	put_str(f, "fine");
	put_le(f, 1ULL << 40, 8);
	put_data(f, 64);
}

static void bad_alignment_not_power(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "general.alignment", U32, 48, 4);
}

static void bad_alignment_zero(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "general.alignment", U32, 0, 4);
}

static void bad_alignment_small(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "general.alignment", U32, 4, 4);
}

static void bad_alignment_type(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "general.alignment", F32, 32, 4);
}

static void bad_split(struct file *f)
{
	put_head(f, 3, 0, 1);
	put_kv(f, "split.count", U16, 2, 2);
}

static void bad_tensor_name_empty(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "", GGUF_F32, 8, 1, 0);
	put_data(f, 128);
}

static void bad_tensor_twice(struct file *f)
{
	put_head(f, 3, 2, 0);
	put_info(f, "w", GGUF_F32, 8, 1, 0);
	put_info(f, "w", GGUF_F32, 8, 1, 32);
	put_data(f, 256);
}

static void bad_dims(struct file *f, uint32_t n_dims)
{
	put_head(f, 3, 1, 0);
	put_str(f, "w");
	put_le(f, n_dims, 4);
	for (int i = 0; i < 5; i++)
		put_le(f, 1, 8);
	put_data(f, 128);
}

static void bad_dims_0(struct file *f)
{
	bad_dims(f, 0);
}

static void bad_dims_5(struct file *f)
{
	bad_dims(f, 5);
}

static void bad_dim_zero(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", GGUF_F32, 8, 0, 0);
	put_data(f, 128);
}

static void bad_dim_product(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", GGUF_F32, 1ULL << 33, 1ULL << 31, 0); /* wraps round to 0 */
	put_data(f, 128);
}

static void bad_byte_product(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", GGUF_F32, 1ULL << 32, 1ULL << 30, 0); /* elements fit, bytes wrap */
	put_data(f, 128);
}

static void bad_tensor_type(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", 10, 256, 1, 0);
	put_data(f, 128);
}

static void bad_tensor_type_gap(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", 4, 256, 1, 0);
	put_data(f, 128);
}

static void bad_tensor_type_huge(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", UINT32_MAX, 256, 1, 0);
	put_data(f, 128);
}

static void bad_row(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", GGUF_Q4_K, 128, 2, 0);
	put_data(f, 256);
}

static void bad_misaligned(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", GGUF_F32, 2, 1, 16);
	put_data(f, 128);
}

static void bad_offset_wraps(struct file *f)
{
	put_head(f, 3, 1, 0);
	put_info(f, "w", GGUF_F32, 2, 1, UINT64_MAX - 31);
	put_data(f, 128);
}

static void bad_offset_outside(struct file *f)
{
	put_head(f, 3, 2, 0);
	put_info(f, "v", GGUF_F32, 8, 1, 0);
	put_info(f, "w", GGUF_F32, 8, 1, 1 << 20);
	put_data(f, 256);
}

static void bad_size_outside(struct file *f)
{
	put_head(f, 3, 2, 0);
	put_info(f, "v", GGUF_F32, 1 << 20, 1, 0);
	put_info(f, "w", GGUF_F32, 8, 1, 32);
	put_data(f, 256);
}

static void bad_overlap(struct file *f)
{
	put_head(f, 3, 3, 0);
	put_info(f, "u", GGUF_F32, 8, 1, 64);
	put_info(f, "v", GGUF_F32, 9, 1, 0); /* one float into w */
	put_info(f, "w", GGUF_F32, 8, 1, 32);
	put_data(f, 256);
}

static void bad_end(struct file *f)
{
	put_head(f, 3, 2, 0);
	put_info(f, "v", GGUF_F32, 9, 1, 0);
	put_info(f, "w", GGUF_F32, 8, 1, 64);
	pad(f, 32);
	put_data(f, 64 + 31);
}

#define RULE(make, line)          \
	{                         \
#make, make, line \
	}

static void gguf_open_mem__refuses(void **state)
{
	static const struct {
		const char *name;
		void (*make)(struct file *f);
		const char *line;
	} rules[] = {
		RULE(bad_magic, "not a GGUF file"),
		RULE(bad_version_1, "GGUF version 1;"),
		RULE(bad_version_4, "GGUF version 4;"),
		RULE(bad_big_endian, "big-endian"),
		RULE(bad_tensor_count, "claims 18446744073709551615 tensors"),
		RULE(bad_key_count, "claims 2 keys"),
		RULE(bad_key_length, "key 1 of 1 claims 18446744073709551615 bytes"),
		RULE(bad_empty_key, "key 1 of 1 has an empty name"),
		RULE(bad_key_nul, "key 1 of 1 has a NUL in its name"),
		RULE(bad_duplicate_key, "key same occurs twice"),
		RULE(bad_value_type, "k: unknown value type 13"),
		RULE(bad_element_type, "k: unknown value type 2147483648"),
		RULE(bad_bool, "k: a bool has the value 2"),
		RULE(bad_bool_array, "k: a bool has the value 2"),
		RULE(bad_nested_array, "k: arrays of arrays"),
		RULE(bad_array_product, "claims 18446744073709551615 bytes; the file is damaged"),
		RULE(bad_string_array_count,
		     "claims 18446744073709551615 bytes; the file is damaged"),
		RULE(bad_string_in_array, "claims 1099511627776 bytes; the file is damaged"),
		RULE(bad_alignment_not_power, "power of two"),
		RULE(bad_alignment_zero, "power of two"),
		RULE(bad_alignment_small, "power of two"),
		RULE(bad_alignment_type, "power of two"),
		RULE(bad_split, "one part of a model in 2 files"),
		RULE(bad_tensor_name_empty, "tensor info 1 of 1 has an empty name"),
		RULE(bad_tensor_twice, "tensor w occurs twice"),
		RULE(bad_dims_0, "tensor w: has 0 dimensions"),
		RULE(bad_dims_5, "tensor w: has 5 dimensions"),
		RULE(bad_dim_zero, "tensor w: its dimensions make no sense"),
		RULE(bad_dim_product, "tensor w: its dimensions make no sense"),
		RULE(bad_byte_product, "tensor w: its dimensions make no sense"),
		RULE(bad_tensor_type, "tensor w: has type 10, which is not supported"),
		RULE(bad_tensor_type_gap, "tensor w: has type 4, which is not supported"),
		RULE(bad_tensor_type_huge, "tensor w: has type 4294967295, which is not supported"),
		RULE(bad_row, "tensor w: a row of 128 is no multiple of Q4_K's block of 256"),
		RULE(bad_misaligned, "tensor w: offset 16 is not aligned to 32"),
		RULE(bad_offset_wraps,
		     "tensor w: 8 bytes at offset 18446744073709551584 lie outside"),
		RULE(bad_offset_outside, "tensor w: 32 bytes at offset 1048576 lie outside"),
		RULE(bad_size_outside, "tensor v: 4194304 bytes at offset 0 lie outside"),
		RULE(bad_overlap, "tensors v and w overlap"),
		RULE(bad_end, "the file has 223 of 224 bytes; it is cut short"),
	};

	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		struct file f = { .len = 0 };
		struct lslm_error err = { 0 };
		struct gguf *g = NULL;

		rules[i].make(&f);
		assert_int_equal(gguf_open_mem(&g, f.data, f.len, NULL), -EINVAL);
		assert_int_equal(gguf_open_mem(&g, f.data, f.len, &err), -EINVAL);
		assert_null(g);
		assert_int_equal(err.code, -EINVAL);
		if (!strstr(err.text, rules[i].line))
			fail_msg("%s: \"%s\" does not say \"%s\"", rules[i].name, err.text,
				 rules[i].line);
	}
}

/* What stands just inside a bound is accepted. */
static void gguf_open_mem__accepts_the_odd(void **state)
{
	struct file f = { .len = 0 };
	struct lslm_error err = { 0 };
	struct gguf *g;

	/* No data section at all, and not even its padding. */
	put_head(&f, 3, 0, 1);
	put_kv(&f, "k", U8, 0, 1);
	assert_ok(gguf_open_mem(&g, f.data, f.len, &err), &err);
	gguf_close(g);

	/* A gap, tensors out of order, an own alignment, the last one up to the last byte. */
	f.len = 0;
	put_head(&f, 3, 2, 1);
	put_kv(&f, "general.alignment", U32, 8, 4);
	put_info(&f, "b", GGUF_F32, 3, 1, 40);
	put_info(&f, "a", GGUF_F32, 2, 1, 0);
	pad(&f, 8);
	put_data(&f, 52);
	assert_ok(gguf_open_mem(&g, f.data, f.len, &err), &err);
	assert_int_equal(gguf_tensor(g, 0)->offset + 12, f.len);
	gguf_close(g);
	assert_int_equal(gguf_open_mem(&g, f.data, f.len - 1, &err), -EINVAL);
}

/* --- files --- */

static char path[] = "/tmp/lslm-gguf-test-XXXXXX";

static void write_file(const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	close(fd);
}

static void gguf_open__maps_and_explains(void **state)
{
	struct file f = { .len = 0 };
	struct lslm_error err = { 0 };
	char line[600];
	struct gguf *g;

	put_good(&f, 3);
	write_file(f.data, f.len);
	assert_ok(gguf_open(&g, path, &err), &err);
	assert_string_equal(gguf_path(g), path);
	assert_true(gguf_fd(g) >= 0);
	assert_int_equal(gguf_file_size(g), f.len);
	assert_memory_equal(gguf_file_data(g), f.data, f.len);
	gguf_close(g);

	write_file(f.data, f.len - 1);
	assert_int_equal(gguf_open(&g, path, &err), -EINVAL);
	snprintf(line, sizeof(line),
		 "%s: the file has %zu of %zu bytes; it is cut short, copy it again", path,
		 f.len - 1, f.len);
	assert_string_equal(err.text, line);

	write_file("", 0);
	assert_int_equal(gguf_open(&g, path, &err), -EINVAL);
	assert_non_null(strstr(err.text, "the file is empty"));
	assert_int_equal(gguf_open(&g, "/tmp", &err), -EINVAL);
	assert_string_equal(err.text, "/tmp: not a regular file");
	assert_int_equal(gguf_open(&g, "/nowhere/m.gguf", &err), -ENOENT);
	assert_string_equal(err.text, "/nowhere/m.gguf: cannot open: No such file or directory");
	gguf_close(NULL);
}

static int make_path(void **state)
{
	int fd = mkstemp(path);

	return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
	return unlink(path);
}

static void gguf_type__knows_its_blocks(void **state)
{
	static const struct {
		enum gguf_type type;
		const char *name;
		unsigned int block;
		size_t bytes, row_of_512;
	} types[] = {
		{ GGUF_F32, "F32", 1, 4, 2048 },      { GGUF_F16, "F16", 1, 2, 1024 },
		{ GGUF_BF16, "BF16", 1, 2, 1024 },    { GGUF_Q8_0, "Q8_0", 32, 34, 544 },
		{ GGUF_Q4_0, "Q4_0", 32, 18, 288 },   { GGUF_Q4_1, "Q4_1", 32, 20, 320 },
		{ GGUF_Q5_0, "Q5_0", 32, 22, 352 },   { GGUF_Q5_1, "Q5_1", 32, 24, 384 },
		{ GGUF_Q4_K, "Q4_K", 256, 144, 288 }, { GGUF_Q5_K, "Q5_K", 256, 176, 352 },
		{ GGUF_Q6_K, "Q6_K", 256, 210, 420 },
	};

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		assert_string_equal(gguf_type_name(types[i].type), types[i].name);
		assert_int_equal(gguf_type_block(types[i].type), types[i].block);
		assert_int_equal(gguf_type_block_bytes(types[i].type), types[i].bytes);
		assert_int_equal(gguf_row_bytes(types[i].type, 512), types[i].row_of_512);
	}
	assert_null(gguf_type_name(4));
	assert_null(gguf_type_name(31));
	assert_int_equal(gguf_type_block(4), 0);
	assert_int_equal(gguf_row_bytes(4, 512), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gguf_get__converts_and_refuses),
		cmocka_unit_test(gguf_arr__reads_elements),
		cmocka_unit_test(gguf_tensor__points_into_the_file),
		cmocka_unit_test(gguf_kv_text__is_one_line),
		cmocka_unit_test(gguf_open_mem__cut_anywhere_is_refused),
		cmocka_unit_test(gguf_open_mem__refuses),
		cmocka_unit_test(gguf_open_mem__accepts_the_odd),
		cmocka_unit_test_setup_teardown(gguf_open__maps_and_explains, make_path,
						remove_path),
		cmocka_unit_test(gguf_type__knows_its_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
