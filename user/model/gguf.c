// SPDX-License-Identifier: MIT
#include "model/gguf.h"

#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lslm/page.h"
#include "model/gguf_internal.h"

enum {
	DEFAULT_ALIGNMENT = 32,
	MAX_DIMS = 4,
	/* Length field, one byte of key, type tag, one byte of value. */
	MIN_PAIR_BYTES = 8 + 1 + 4 + 1,
	/* Length field, one byte of name, n_dims, one dimension, type, offset. */
	MIN_INFO_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
	/* More than any one field of a real file's metadata takes; only for the error line. */
	MAX_FIELD_BYTES = INT32_MAX,
};

typedef unsigned long long ull; /* what printf calls it */

/* --- the cursor --- */

const void *gguf_take(struct gguf_cursor *c, uint64_t n)
{
	const uint8_t *p = c->base + c->at;

	if (n <= c->size - c->at) {
		c->at += n;
		return p;
	}
	if (n > MAX_FIELD_BYTES)
		error_set(c->err, -EINVAL, "%s %llu of %llu claims %llu bytes; the file is damaged",
			  c->what, (ull)c->index + 1, (ull)c->total, (ull)n);
	else
		error_set(
			c->err, -EINVAL,
			"the file ends inside %s %llu of %llu (%llu bytes wanted, %zu left); it is "
			"cut short or damaged",
			c->what, (ull)c->index + 1, (ull)c->total, (ull)n, c->size - c->at);
	return NULL;
}

int gguf_take_u32(struct gguf_cursor *c, uint32_t *out)
{
	const void *p = gguf_take(c, sizeof(*out));

	if (!p)
		return -EINVAL;
	memcpy(out, p, sizeof(*out));
	*out = le32toh(*out);
	return 0;
}

int gguf_take_u64(struct gguf_cursor *c, uint64_t *out)
{
	const void *p = gguf_take(c, sizeof(*out));

	if (!p)
		return -EINVAL;
	memcpy(out, p, sizeof(*out));
	*out = le64toh(*out);
	return 0;
}

int gguf_take_str(struct gguf_cursor *c, struct gguf_str *out)
{
	uint64_t len;

	if (gguf_take_u64(c, &len))
		return -EINVAL;
	out->ptr = gguf_take(c, len);
	out->len = len;
	return out->ptr ? 0 : -EINVAL;
}

/* --- parsing, in the order of the file --- */

static int parse_version(struct gguf *g, struct gguf_cursor *c)
{
	const char *magic = gguf_take(c, 4);

	if (!magic || gguf_take_u32(c, &g->version))
		return -EINVAL;
	if (memcmp(magic, "GGUF", 4))
		return error_set(c->err, -EINVAL,
				 "not a GGUF file (it starts with %02x %02x %02x %02x)",
				 (uint8_t)magic[0], (uint8_t)magic[1], (uint8_t)magic[2],
				 (uint8_t)magic[3]);
	if (g->version == 2 || g->version == 3)
		return 0;
	if (g->version == __builtin_bswap32(2) || g->version == __builtin_bswap32(3))
		return error_set(c->err, -EINVAL,
				 "a big-endian GGUF file; convert it to little-endian");
	return error_set(c->err, -EINVAL,
			 "GGUF version %u; only 2 and 3 are read, convert the file again",
			 g->version);
}

/* A count that the rest of the file cannot hold is refused before anything is allocated for it. */
static int parse_count(struct gguf_cursor *c, const char *what, size_t min_bytes, size_t *out)
{
	uint64_t n;

	if (gguf_take_u64(c, &n))
		return -EINVAL;
	if (n > (c->size - c->at) / min_bytes)
		return error_set(
			c->err, -EINVAL,
			"claims %llu %ss, more than %zu bytes can hold; the file is damaged or "
			"cut short",
			(ull)n, what, c->size);
	*out = (size_t)n;
	return 0;
}

static int check_name(const struct gguf_cursor *c, const struct gguf_str *s)
{
	if (s->len && !memchr(s->ptr, 0, s->len))
		return 0;
	return error_set(c->err, -EINVAL, "%s %llu of %llu has %s name; the file is damaged",
			 c->what, (ull)c->index + 1, (ull)c->total,
			 s->len ? "a NUL in its" : "an empty");
}

static int parse_pairs(struct gguf *g, struct gguf_cursor *c)
{
	size_t n = g->n_kv, twice;
	int ret;

	c->what = "key";
	c->total = n;
	g->n_kv = 0;
	g->keys = calloc(n + 1, sizeof(*g->keys));
	g->values = calloc(n + 1, sizeof(*g->values));
	if (!g->keys || !g->values)
		return error_set(c->err, -ENOMEM, "no memory for %zu keys", n);
	for (; g->n_kv < n; g->n_kv++) {
		struct gguf_str *key = &g->keys[g->n_kv];

		c->index = g->n_kv;
		if (gguf_take_str(c, key) || check_name(c, key))
			return -EINVAL;
		ret = gguf_value_parse(&g->values[g->n_kv], c);
		if (ret)
			return error_prefix(c->err, ret, "%.*s", GGUF_NAME_ARG(*key));
	}
	ret = gguf_index_build(&g->key_index, g->keys, n, &twice);
	if (ret == -EEXIST)
		return error_set(c->err, -EINVAL, "key %.*s occurs twice; the file is damaged",
				 GGUF_NAME_ARG(g->keys[twice]));
	return ret ? error_sys(c->err, ret, "cannot index %zu keys", n) : 0;
}

static int check_pairs(struct gguf *g, struct gguf_cursor *c)
{
	uint32_t parts = 0;
	int ret;

	g->alignment = DEFAULT_ALIGNMENT;
	ret = gguf_get_u32(g, "general.alignment", &g->alignment);
	/* Multiples of 8, says the specification; kernels rely on it for aligned loads. */
	if (ret == -EINVAL || g->alignment < 8 || (g->alignment & (g->alignment - 1)))
		return error_set(
			c->err, -EINVAL,
			"general.alignment must be a power of two from 8 up; the file is damaged");
	if (!gguf_get_u32(g, "split.count", &parts) && parts > 1)
		return error_set(c->err, -EINVAL,
				 "one part of a model in %u files; merge them into one first",
				 parts);
	return 0;
}

/* Dimensions, type and the bytes they come to. offset is still relative to the data. */
static int parse_shape(struct gguf_tensor *t, struct gguf_cursor *c)
{
	uint64_t elements = 1, bytes;
	uint32_t type;

	if (gguf_take_u32(c, &t->n_dims))
		return -EINVAL;
	if (t->n_dims < 1 || t->n_dims > MAX_DIMS)
		return error_set(c->err, -EINVAL, "has %u dimensions; 1 to %d are possible",
				 t->n_dims, MAX_DIMS);
	for (unsigned int i = 0; i < MAX_DIMS; i++) {
		t->ne[i] = 1;
		if (i < t->n_dims && gguf_take_u64(c, &t->ne[i]))
			return -EINVAL;
		if (!t->ne[i] || __builtin_mul_overflow(elements, t->ne[i], &elements))
			return error_set(c->err, -EINVAL,
					 "its dimensions make no sense (%llu at %u)", (ull)t->ne[i],
					 i);
	}
	if (gguf_take_u32(c, &type) || gguf_take_u64(c, &t->offset))
		return -EINVAL;
	if (!gguf_type_name(type))
		return error_set(c->err, -EINVAL,
				 "has type %u, which is not supported; requantise the model", type);
	t->type = type;
	if (t->ne[0] % gguf_type_block(type))
		return error_set(c->err, -EINVAL,
				 "a row of %llu is no multiple of %s's block of %u", (ull)t->ne[0],
				 gguf_type_name(type), gguf_type_block(type));
	if (__builtin_mul_overflow(elements / gguf_type_block(type), gguf_type_block_bytes(type),
				   &bytes) ||
	    bytes > SIZE_MAX)
		return error_set(c->err, -EINVAL, "its dimensions make no sense (%llu elements)",
				 (ull)elements);
	t->size = (size_t)bytes;
	return 0;
}

static int parse_infos(struct gguf *g, struct gguf_cursor *c)
{
	size_t n = g->n_tensors, twice;
	int ret;

	c->what = "tensor info";
	c->total = n;
	g->tensors = calloc(n + 1, sizeof(*g->tensors));
	g->names = calloc(n + 1, sizeof(*g->names));
	if (!g->tensors || !g->names)
		return error_set(c->err, -ENOMEM, "no memory for %zu tensors", n);
	for (size_t i = 0; i < n; i++) {
		c->index = i;
		if (gguf_take_str(c, &g->names[i]) || check_name(c, &g->names[i]))
			return -EINVAL;
		if (parse_shape(&g->tensors[i], c))
			return error_prefix(c->err, -EINVAL, "tensor %.*s",
					    GGUF_NAME_ARG(g->names[i]));
	}
	ret = gguf_index_build(&g->tensor_index, g->names, n, &twice);
	if (ret == -EEXIST)
		return error_set(c->err, -EINVAL, "tensor %.*s occurs twice; the file is damaged",
				 GGUF_NAME_ARG(g->names[twice]));
	return ret ? error_sys(c->err, ret, "cannot index %zu tensors", n) : 0;
}

/* Names in the file have no NUL behind them, and callers want C strings. */
static int copy_names(struct gguf *g, struct lslm_error *err)
{
	size_t total = 1;
	char *p;

	for (size_t i = 0; i < g->n_tensors; i++)
		total += g->names[i].len + 1;
	p = g->name_bytes = malloc(total);
	if (!p)
		return error_set(err, -ENOMEM, "no memory for the names of %zu tensors",
				 g->n_tensors);
	for (size_t i = 0; i < g->n_tensors; i++) {
		memcpy(p, g->names[i].ptr, g->names[i].len);
		p[g->names[i].len] = 0;
		g->names[i].ptr = g->tensors[i].name = p;
		p += g->names[i].len + 1;
	}
	return 0;
}

/*
 * Writers pack tensors one behind the other. If the offsets say the same as the
 * sizes, it is the file's end that is missing; if not, one of them is a lie.
 */
static int outside(const struct gguf *g, const struct gguf_tensor *t, uint64_t start,
		   struct lslm_error *err)
{
	uint64_t end = start, next = 0;

	for (size_t i = 0; i < g->n_tensors; i++) {
		const struct gguf_tensor *u = &g->tensors[i];

		if (u->offset != next || __builtin_add_overflow(start + next, u->size, &end) ||
		    end > INT64_MAX)
			return error_set(
				err, -EINVAL,
				"tensor %s: %zu bytes at offset %llu lie outside the file; the "
				"file is damaged",
				t->name, t->size, (ull)t->offset);
		next = (end - start + g->alignment - 1) & ~(uint64_t)(g->alignment - 1);
	}
	return error_set(err, -EINVAL,
			 "the file has %zu of %llu bytes; it is cut short, copy it again", g->size,
			 (ull)end);
}

static void advise(const struct gguf *g, const void *data, size_t size, int advice)
{
	const uintptr_t page = lslm_page_size();
	const uintptr_t start = (uintptr_t)data & ~(page - 1);

	if (g->mapped)
		madvise((void *)start, (uintptr_t)data + size - start, advice);
}

static int place_tensors(struct gguf *g, size_t at, struct lslm_error *err)
{
	uint64_t start = ((uint64_t)at + g->alignment - 1) & ~(uint64_t)(g->alignment - 1);

	for (size_t i = 0; i < g->n_tensors; i++) {
		struct gguf_tensor *t = &g->tensors[i];
		uint64_t from;

		if (t->offset % g->alignment)
			return error_set(
				err, -EINVAL,
				"tensor %s: offset %llu is not aligned to %u; the file is damaged",
				t->name, (ull)t->offset, g->alignment);
		if (__builtin_add_overflow(start, t->offset, &from) || from > g->size ||
		    t->size > g->size - from)
			return outside(g, t, start, err);
	}
	for (size_t i = 0; i < g->n_tensors; i++) {
		g->tensors[i].offset += start;
		g->tensors[i].data = g->data + g->tensors[i].offset;
	}
	if (start < g->size)
		advise(g, g->data + start, g->size - start, MADV_RANDOM);
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
	const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int check_overlap(const struct gguf *g, struct lslm_error *err)
{
	const struct gguf_tensor **order = malloc((g->n_tensors + 1) * sizeof(*order));
	int ret = 0;

	if (!order)
		return error_set(err, -ENOMEM, "no memory for %zu tensors", g->n_tensors);
	for (size_t i = 0; i < g->n_tensors; i++)
		order[i] = &g->tensors[i];
	qsort(order, g->n_tensors, sizeof(*order), by_offset);
	for (size_t i = 1; i < g->n_tensors && !ret; i++)
		if (order[i]->offset - order[i - 1]->offset < order[i - 1]->size)
			ret = error_set(err, -EINVAL,
					"tensors %s and %s overlap; the file is damaged",
					order[i - 1]->name, order[i]->name);
	free(order);
	return ret;
}

static int parse(struct gguf *g, struct lslm_error *err)
{
	struct gguf_cursor c = {
		.base = g->data, .size = g->size, .what = "header", .total = 1, .err = err
	};
	int ret;

	ret = parse_version(g, &c);
	if (!ret)
		ret = parse_count(&c, "tensor", MIN_INFO_BYTES, &g->n_tensors);
	if (!ret)
		ret = parse_count(&c, "key", MIN_PAIR_BYTES, &g->n_kv);
	if (!ret)
		ret = parse_pairs(g, &c);
	if (!ret)
		ret = check_pairs(g, &c);
	if (!ret)
		ret = parse_infos(g, &c);
	if (!ret)
		ret = copy_names(g, err);
	if (!ret)
		ret = place_tensors(g, c.at, err);
	if (!ret)
		ret = check_overlap(g, err);
	return ret;
}

/* --- opening --- */

static struct gguf *create(const char *path)
{
	struct gguf *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->fd = -1;
	g->path = strdup(path);
	if (!g->path) {
		free(g);
		return NULL;
	}
	return g;
}

static int map(struct gguf *g, struct lslm_error *err)
{
	struct stat st;
	void *p;

	g->fd = open(g->path, O_RDONLY | O_CLOEXEC);
	if (g->fd < 0 || fstat(g->fd, &st) < 0)
		return error_sys(err, -errno, "cannot open");
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "not a regular file");
	if (!st.st_size)
		return error_set(err, -EINVAL, "the file is empty");
	if ((uint64_t)st.st_size > SIZE_MAX)
		return error_set(err, -EFBIG, "too large for this machine's address space");
	g->size = (size_t)st.st_size;
	p = mmap(NULL, g->size, PROT_READ, MAP_PRIVATE, g->fd, 0);
	if (p == MAP_FAILED)
		return error_sys(err, -errno, "cannot map");
	g->data = p;
	g->mapped = true;
	return 0;
}

int gguf_open(struct gguf **out, const char *path, struct lslm_error *err)
{
	struct gguf *g = create(path);
	int ret;

	if (!g)
		return error_set(err, -ENOMEM, "%s: no memory", path);
	ret = map(g, err);
	if (!ret)
		ret = parse(g, err);
	if (ret) {
		gguf_close(g);
		return error_prefix(err, ret, "%s", path);
	}
	*out = g;
	return 0;
}

int gguf_open_mem(struct gguf **out, const void *data, size_t size, struct lslm_error *err)
{
	struct gguf *g = create("(memory)");
	int ret;

	if (!g)
		return error_set(err, -ENOMEM, "no memory");
	g->data = data;
	g->size = size;
	ret = parse(g, err);
	if (ret) {
		gguf_close(g);
		return ret;
	}
	*out = g;
	return 0;
}

void gguf_close(struct gguf *g)
{
	if (!g)
		return;
	/* A value whose parsing failed has freed itself and is not counted. */
	for (size_t i = 0; i < g->n_kv; i++)
		gguf_value_free(&g->values[i]);
	gguf_index_free(&g->key_index);
	gguf_index_free(&g->tensor_index);
	free(g->keys);
	free(g->values);
	free(g->tensors);
	free(g->names);
	free(g->name_bytes);
	if (g->mapped)
		munmap((void *)g->data, g->size);
	if (g->fd >= 0)
		close(g->fd);
	free(g->path);
	free(g);
}

/* --- accessors --- */

const char *gguf_path(const struct gguf *g)
{
	return g->path;
}

size_t gguf_file_size(const struct gguf *g)
{
	return g->size;
}

const void *gguf_file_data(const struct gguf *g)
{
	return g->data;
}

void gguf_forget(const struct gguf *g, const void *data, size_t size)
{
	advise(g, data, size, MADV_DONTNEED);
}

void gguf_read_all(const struct gguf *g)
{
	advise(g, g->data, g->size, MADV_NORMAL);
}

void gguf_will_read(const struct gguf *g, const void *data, size_t size)
{
	advise(g, data, size, MADV_WILLNEED);
}

int gguf_fd(const struct gguf *g)
{
	return g->fd;
}

unsigned int gguf_version(const struct gguf *g)
{
	return g->version;
}

size_t gguf_n_tensors(const struct gguf *g)
{
	return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i)
{
	return &g->tensors[i];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
	int64_t i = gguf_index_find(&g->tensor_index, name, strlen(name));

	return i < 0 ? NULL : &g->tensors[i];
}
