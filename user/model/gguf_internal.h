/* SPDX-License-Identifier: MIT */
/*
 * What the files of the GGUF reader share: the bounded cursor, the metadata
 * value, and the index from names to positions. Nothing outside user/model/gguf*.c
 * includes this.
 */
#ifndef LSLM_MODEL_GGUF_INTERNAL_H
#define LSLM_MODEL_GGUF_INTERNAL_H

#include "model/gguf.h"

/* Value types, numbered as in the file. */
enum gguf_value_type {
	GGUF_VALUE_U8 = 0,
	GGUF_VALUE_I8 = 1,
	GGUF_VALUE_U16 = 2,
	GGUF_VALUE_I16 = 3,
	GGUF_VALUE_U32 = 4,
	GGUF_VALUE_I32 = 5,
	GGUF_VALUE_F32 = 6,
	GGUF_VALUE_BOOL = 7,
	GGUF_VALUE_STRING = 8,
	GGUF_VALUE_ARRAY = 9,
	GGUF_VALUE_U64 = 10,
	GGUF_VALUE_I64 = 11,
	GGUF_VALUE_F64 = 12,
};

/*
 * A place in the file that only moves forward and never past the end. what, index
 * and total name the item being read ("key 3 of 24") for the error line.
 */
struct gguf_cursor {
	const uint8_t *base;
	size_t size, at;
	const char *what;
	uint64_t index, total;
	struct lslm_error *err;
};

/*
 * The next n bytes, or NULL with the line set: it calls an absurd length damage and
 * an ordinary one that does not fit any more a file cut short.
 */
const void *gguf_take(struct gguf_cursor *c, uint64_t n);
int gguf_take_u32(struct gguf_cursor *c, uint32_t *out);
int gguf_take_u64(struct gguf_cursor *c, uint64_t *out);
int gguf_take_str(struct gguf_cursor *c, struct gguf_str *out);

/* For error lines: "%.*s" of a name from the file, cut to a bearable length. */
#define GGUF_NAME_ARG(s) ((s).len < 64 ? (int)(s).len : 64), (s).ptr

/*
 * One metadata value. A scalar has elem = type and n = 1; data points at its
 * bytes, at any alignment. A string (type or elem GGUF_VALUE_STRING) starts with
 * its length there; strings of an array are found through at[], offsets from data.
 */
struct gguf_value {
	enum gguf_value_type type, elem;
	uint64_t n;
	const uint8_t *data;
	uint64_t *at;
	const uint8_t *raw; /* type tag to last byte */
	size_t raw_size;
};

/* Read one value with its type tag. On failure nothing is left allocated. */
int gguf_value_parse(struct gguf_value *v, struct gguf_cursor *c);
void gguf_value_free(struct gguf_value *v);

/*
 * Names to positions: open addressing under a keyed hash, so that a file made
 * of colliding names costs no more than another one. build() refuses a name that
 * occurs twice with -EEXIST and its position in *twice.
 */
struct gguf_index {
	const struct gguf_str *names;
	uint32_t *slots; /* position + 1, 0 = free */
	uint32_t mask;
	uint8_t key[16];
};

int gguf_index_build(struct gguf_index *x, const struct gguf_str *names, size_t n, size_t *twice);
void gguf_index_free(struct gguf_index *x);
int64_t gguf_index_find(const struct gguf_index *x, const char *name, size_t len); /* -ENOENT */

struct gguf {
	char *path;
	int fd;
	bool mapped;
	const uint8_t *data;
	size_t size;
	uint32_t version;
	uint32_t alignment;

	size_t n_kv;
	struct gguf_str *keys;
	struct gguf_value *values;
	struct gguf_index key_index;

	size_t n_tensors;
	struct gguf_tensor *tensors;
	struct gguf_str *names; /* of the tensors, into name_bytes */
	char *name_bytes; /* NUL-terminated, one after another */
	struct gguf_index tensor_index;
};

#endif
