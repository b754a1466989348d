// SPDX-License-Identifier: MIT
#include <endian.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf_internal.h"

static const unsigned char scalar_size[] = {
	[GGUF_VALUE_U8] = 1,  [GGUF_VALUE_I8] = 1,  [GGUF_VALUE_U16] = 2, [GGUF_VALUE_I16] = 2,
	[GGUF_VALUE_U32] = 4, [GGUF_VALUE_I32] = 4, [GGUF_VALUE_F32] = 4, [GGUF_VALUE_BOOL] = 1,
	[GGUF_VALUE_U64] = 8, [GGUF_VALUE_I64] = 8, [GGUF_VALUE_F64] = 8,
};

static bool is_scalar(uint32_t type)
{
	return type < sizeof(scalar_size) && scalar_size[type];
}

/* Fields stand at any alignment, so loads go through memcpy. */
static uint64_t load(const uint8_t *p, unsigned int size)
{
	uint64_t raw = 0;

	memcpy(&raw, p, size);
	return le64toh(raw);
}

/* --- parsing --- */

/* n * size, or more than any file has. */
static uint64_t saturating_mul(uint64_t n, uint64_t size)
{
	uint64_t bytes;

	return __builtin_mul_overflow(n, size, &bytes) ? UINT64_MAX : bytes;
}

static int parse_strings(struct gguf_value *v, struct gguf_cursor *c)
{
	struct gguf_cursor ahead = *c;
	struct gguf_str s;

	/* A string takes at least its length field, so the file has paid for the table. */
	if (!gguf_take(&ahead, saturating_mul(v->n, sizeof(uint64_t))))
		return -EINVAL;
	v->at = calloc(v->n ? v->n : 1, sizeof(*v->at));
	if (!v->at)
		return error_set(c->err, -ENOMEM, "no memory for the strings of one array");
	for (uint64_t i = 0; i < v->n; i++) {
		v->at[i] = (uint64_t)(c->base + c->at - v->data);
		if (gguf_take_str(c, &s)) {
			gguf_value_free(v);
			return -EINVAL;
		}
	}
	return 0;
}

static int parse_scalars(struct gguf_value *v, struct gguf_cursor *c)
{
	if (!gguf_take(c, saturating_mul(v->n, scalar_size[v->elem])))
		return -EINVAL;
	if (v->elem != GGUF_VALUE_BOOL)
		return 0;
	for (uint64_t i = 0; i < v->n; i++)
		if (v->data[i] > 1)
			return error_set(c->err, -EINVAL,
					 "a bool has the value %u; the file is damaged",
					 v->data[i]);
	return 0;
}

int gguf_value_parse(struct gguf_value *v, struct gguf_cursor *c)
{
	uint32_t type, elem;
	size_t start = c->at;
	int ret;

	*v = (struct gguf_value){ .n = 1, .raw = c->base + start };
	if (gguf_take_u32(c, &type))
		return -EINVAL;
	elem = type;
	if (type == GGUF_VALUE_ARRAY && (gguf_take_u32(c, &elem) || gguf_take_u64(c, &v->n)))
		return -EINVAL;
	v->type = type;
	v->elem = elem;
	v->data = c->base + c->at;
	if (type == GGUF_VALUE_ARRAY && elem == GGUF_VALUE_ARRAY)
		return error_set(c->err, -EINVAL, "arrays of arrays are not supported");
	if (elem == GGUF_VALUE_STRING)
		ret = parse_strings(v, c);
	else if (is_scalar(elem))
		ret = parse_scalars(v, c);
	else
		ret = error_set(c->err, -EINVAL,
				"unknown value type %u; the file is damaged or newer", elem);
	v->raw_size = c->at - start;
	return ret;
}

void gguf_value_free(struct gguf_value *v)
{
	free(v->at);
	v->at = NULL;
}

/* --- reading one element; i is below n --- */

static int element_int(const struct gguf_value *v, size_t i, bool *negative, uint64_t *out)
{
	unsigned int size = is_scalar(v->elem) ? scalar_size[v->elem] : 0;
	uint64_t raw = load(v->data + i * size, size);

	switch (v->elem) {
	case GGUF_VALUE_U8:
	case GGUF_VALUE_U16:
	case GGUF_VALUE_U32:
	case GGUF_VALUE_U64:
		*negative = false;
		break;
	case GGUF_VALUE_I8:
	case GGUF_VALUE_I16:
	case GGUF_VALUE_I32:
	case GGUF_VALUE_I64:
		raw = (uint64_t)((int64_t)(raw << (64 - 8 * size)) >> (64 - 8 * size));
		*negative = (int64_t)raw < 0;
		break;
	default:
		return -EINVAL;
	}
	*out = raw;
	return 0;
}

static int element_float(const struct gguf_value *v, size_t i, double *out)
{
	union {
		uint32_t bits;
		float value;
	} single;
	union {
		uint64_t bits;
		double value;
	} wide;

	if (v->elem == GGUF_VALUE_F32) {
		single.bits = (uint32_t)load(v->data + i * 4, 4);
		*out = single.value;
	} else if (v->elem == GGUF_VALUE_F64) {
		wide.bits = load(v->data + i * 8, 8);
		*out = wide.value;
	} else {
		return -EINVAL;
	}
	return 0;
}

static struct gguf_str element_str(const struct gguf_value *v, size_t i)
{
	const uint8_t *p = v->data + (v->at ? v->at[i] : 0);

	return (struct gguf_str){ .ptr = (const char *)p + 8, .len = load(p, 8) };
}

static int narrow_float(double wide, float *out)
{
	if (isfinite(wide) && fabs(wide) > FLT_MAX)
		return -EINVAL;
	*out = (float)wide;
	return 0;
}

/* --- getters --- */

static const struct gguf_value *find(const struct gguf *g, const char *key)
{
	int64_t i = gguf_index_find(&g->key_index, key, strlen(key));

	return i < 0 ? NULL : &g->values[i];
}

/* The scalar of that key, or NULL with *ret = why not. */
static const struct gguf_value *find_scalar(const struct gguf *g, const char *key, int *ret)
{
	const struct gguf_value *v = find(g, key);

	*ret = !v ? -ENOENT : v->type == GGUF_VALUE_ARRAY ? -EINVAL : 0;
	return *ret ? NULL : v;
}

/* The array of that key if it has an element i, or NULL with *ret = why not. */
static const struct gguf_value *find_array(const struct gguf *g, const char *key, size_t i,
					   int *ret)
{
	const struct gguf_value *v = find(g, key);

	*ret = !v ? -ENOENT : v->type != GGUF_VALUE_ARRAY || i >= v->n ? -EINVAL : 0;
	return *ret ? NULL : v;
}

int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out)
{
	int ret;
	const struct gguf_value *v = find_scalar(g, key, &ret);
	bool negative;
	uint64_t raw;

	if (!v)
		return ret;
	if (element_int(v, 0, &negative, &raw) || negative || raw > UINT32_MAX)
		return -EINVAL;
	*out = (uint32_t)raw;
	return 0;
}

int gguf_get_f32(const struct gguf *g, const char *key, float *out)
{
	int ret;
	const struct gguf_value *v = find_scalar(g, key, &ret);
	double wide;

	if (!v)
		return ret;
	return element_float(v, 0, &wide) ? -EINVAL : narrow_float(wide, out);
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *out)
{
	int ret;
	const struct gguf_value *v = find_scalar(g, key, &ret);

	if (!v)
		return ret;
	if (v->type != GGUF_VALUE_BOOL)
		return -EINVAL;
	*out = v->data[0];
	return 0;
}

int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out)
{
	int ret;
	const struct gguf_value *v = find_scalar(g, key, &ret);

	if (!v)
		return ret;
	if (v->type != GGUF_VALUE_STRING)
		return -EINVAL;
	*out = element_str(v, 0);
	return 0;
}

int64_t gguf_arr_len(const struct gguf *g, const char *key)
{
	const struct gguf_value *v = find(g, key);

	if (!v)
		return -ENOENT;
	return v->type == GGUF_VALUE_ARRAY ? (int64_t)v->n : -EINVAL;
}

int gguf_arr_str(const struct gguf *g, const char *key, size_t i, struct gguf_str *out)
{
	int ret;
	const struct gguf_value *v = find_array(g, key, i, &ret);

	if (!v)
		return ret;
	if (v->elem != GGUF_VALUE_STRING)
		return -EINVAL;
	*out = element_str(v, i);
	return 0;
}

int gguf_arr_i32(const struct gguf *g, const char *key, size_t i, int32_t *out)
{
	int ret;
	const struct gguf_value *v = find_array(g, key, i, &ret);
	bool negative;
	uint64_t raw;

	if (!v)
		return ret;
	if (element_int(v, i, &negative, &raw))
		return -EINVAL;
	if (negative ? (int64_t)raw < INT32_MIN : raw > INT32_MAX)
		return -EINVAL;
	*out = (int32_t)raw;
	return 0;
}

int gguf_arr_f32(const struct gguf *g, const char *key, size_t i, float *out)
{
	int ret;
	const struct gguf_value *v = find_array(g, key, i, &ret);
	double wide;

	if (!v)
		return ret;
	return element_float(v, i, &wide) ? -EINVAL : narrow_float(wide, out);
}

/* --- every pair, for people and for hashing --- */

size_t gguf_n_kv(const struct gguf *g)
{
	return g->n_kv;
}

struct gguf_str gguf_kv_key(const struct gguf *g, size_t i)
{
	return g->keys[i];
}

void gguf_kv_raw(const struct gguf *g, size_t i, const void **data, size_t *size)
{
	*data = g->values[i].raw;
	*size = g->values[i].raw_size;
}

/* Appends the text of element i; writes at most cap bytes with the NUL, returns the new length. */
static size_t element_text(const struct gguf_value *v, size_t i, char *text, size_t len, size_t cap)
{
	bool negative;
	double wide = 0;
	uint64_t raw;
	int n;

	if (v->elem == GGUF_VALUE_STRING) {
		struct gguf_str s = element_str(v, i);
		int most = s.len < cap ? (int)s.len : (int)cap;

		n = snprintf(text + len, cap - len,
			     v->type == GGUF_VALUE_ARRAY ? "\"%.*s\"" : "%.*s", most, s.ptr);
	} else if (v->elem == GGUF_VALUE_BOOL) {
		n = snprintf(text + len, cap - len, "%s", v->data[i] ? "true" : "false");
	} else if (!element_int(v, i, &negative, &raw)) {
		n = snprintf(text + len, cap - len, negative ? "%lld" : "%llu", (long long)raw);
	} else {
		element_float(v, i, &wide);
		n = snprintf(text + len, cap - len, "%.9g", wide);
	}
	return n < 0 ? len : len + (size_t)n < cap ? len + (size_t)n : cap - 1;
}

/* One line of whole characters: control bytes become '?', half a UTF-8 character at the cut goes. */
static void tidy(char *text, size_t len, bool cut)
{
	if (cut) {
		while (len && ((unsigned char)text[len - 1] & 0xc0) == 0x80)
			len--;
		if (len && (unsigned char)text[len - 1] >= 0xc0)
			len--;
		text[len] = 0;
	}
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
}

void gguf_kv_text(const struct gguf *g, size_t i, char *text, size_t cap)
{
	const struct gguf_value *v = &g->values[i];
	size_t len = 0;

	if (!cap)
		return;
	text[0] = 0;
	if (v->type != GGUF_VALUE_ARRAY) {
		len = element_text(v, 0, text, 0, cap);
	} else {
		len = (size_t)snprintf(text, cap, "[%llu]", (unsigned long long)v->n);
		len = len < cap ? len : cap - 1;
		for (uint64_t j = 0; j < v->n && len + 1 < cap; j++) {
			text[len++] = ' ';
			text[len] = 0;
			len = element_text(v, j, text, len, cap);
		}
	}
	tidy(text, len, len + 1 == cap);
}
