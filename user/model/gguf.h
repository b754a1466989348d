/* SPDX-License-Identifier: MIT */
/*
 * GGUF: the file format of models, versions 2 and 3, little-endian.
 *
 * Layout (after ggml's specification, docs/gguf.md): magic "GGUF", u32 version,
 * u64 tensor count, u64 key count; the key-value pairs; the tensor infos (name,
 * dimensions, type, offset); padding to general.alignment (default 32); tensor
 * data. The reader maps the file and hands out pointers into the mapping:
 * nothing is copied and quantised tensors stay quantised.
 *
 * Trust: the file is hostile. Every count, length, offset and product is checked
 * against the file's size before anything is read or allocated, and nothing is
 * allocated in proportion to a number that the file has not paid for in bytes.
 * A file that is accepted can be used without further bounds checks.
 *
 * Ownership: everything returned by an accessor lives as long as the gguf.
 * A gguf is immutable after open, so threads share it freely.
 */
#ifndef LSLM_MODEL_GGUF_H
#define LSLM_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct gguf;

/* Tensor types, numbered as in the file. Others are refused by number. */
enum gguf_type {
	GGUF_F32 = 0,
	GGUF_F16 = 1,
	GGUF_Q4_0 = 2,
	GGUF_Q4_1 = 3,
	GGUF_Q5_0 = 6,
	GGUF_Q5_1 = 7,
	GGUF_Q8_0 = 8,
	GGUF_Q4_K = 12,
	GGUF_Q5_K = 13,
	GGUF_Q6_K = 14,
	GGUF_BF16 = 30,
};

/* ne[0] is the row length (contiguous); unused dimensions are 1. */
struct gguf_tensor {
	const char *name;
	enum gguf_type type;
	unsigned int n_dims;
	uint64_t ne[4];
	const void *data;
	size_t size; /* bytes */
	uint64_t offset; /* of data, from the start of the file */
};

/* A string in the file: not NUL-terminated, may hold any byte. */
struct gguf_str {
	const char *ptr;
	size_t len;
};

/*
 * Open and validate. -EINVAL with a line for a file that is not a GGUF this
 * project reads, -errno for one that cannot be opened or mapped. Refused are, each
 * with its own line: a wrong magic, version or byte order; a count, length, product
 * or offset that the file cannot hold; an empty name, one with a NUL, one that
 * occurs twice; arrays of arrays; an alignment that is no power of two from 8 up;
 * a tensor type not listed above, a row that is no whole number of blocks; tensors
 * that are misaligned, overlap, or reach past the end; one part of a split model.
 * "cut short" in a line means a file that ended too early, "damaged" one that
 * contradicts itself; where the bytes do not tell, the line says both.
 *
 * The file is mapped, private and read-only. Whoever shrinks it afterwards makes
 * the next touch of the lost part raise SIGBUS, as with any mapping.
 *
 * gguf_open_mem() reads from memory that the caller keeps unchanged (used by the
 * fuzzer); it must be aligned like the tensors are to be.
 */
int gguf_open(struct gguf **out, const char *path, struct lslm_error *err);
int gguf_open_mem(struct gguf **out, const void *data, size_t size, struct lslm_error *err);
void gguf_close(struct gguf *g);

const char *gguf_path(const struct gguf *g); /* "(memory)" for gguf_open_mem */
size_t gguf_file_size(const struct gguf *g);
const void *gguf_file_data(const struct gguf *g);
int gguf_fd(const struct gguf *g); /* the open file, or -1; not for closing */
/* data is not needed for now: its pages of a mapped file need no memory until it is touched again. */
void gguf_forget(const struct gguf *g, const void *data, size_t size);
/*
 * How the tensors of a mapped file will be read. As opened, only a row here and there is wanted, and nothing is read
 * ahead of it; gguf_read_all() is for whoever goes through all of them. gguf_will_read() has the pages of some bytes
 * fetched in the background.
 */
void gguf_read_all(const struct gguf *g);
void gguf_will_read(const struct gguf *g, const void *data, size_t size);
unsigned int gguf_version(const struct gguf *g);

/* Tensors in file order. gguf_tensor_find() returns NULL where there is none. */
size_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name);

/*
 * Metadata by key. Integer getters accept every integer type whose value fits,
 * float getters f32 and f64. Return 0, -ENOENT when the key is absent, -EINVAL
 * when it has another type or does not fit; *out is written on success only.
 */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out);
int gguf_get_f32(const struct gguf *g, const char *key, float *out);
int gguf_get_bool(const struct gguf *g, const char *key, bool *out);
int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out);

/*
 * Arrays. gguf_arr_len() returns the length or -ENOENT / -EINVAL; elements are
 * read one by one with the conversions above. String arrays are indexed at open,
 * so access is O(1).
 */
int64_t gguf_arr_len(const struct gguf *g, const char *key);
int gguf_arr_str(const struct gguf *g, const char *key, size_t i, struct gguf_str *out);
int gguf_arr_i32(const struct gguf *g, const char *key, size_t i, int32_t *out);
int gguf_arr_f32(const struct gguf *g, const char *key, size_t i, float *out);

/* Every pair in file order, for `lslm inspect`: key and the value as text (cut to cap). */
size_t gguf_n_kv(const struct gguf *g);
struct gguf_str gguf_kv_key(const struct gguf *g, size_t i);
void gguf_kv_text(const struct gguf *g, size_t i, char *text, size_t cap);
/* Key and raw encoded value bytes (type tag included), for fingerprinting. */
void gguf_kv_raw(const struct gguf *g, size_t i, const void **data, size_t *size);

/* "Q4_K" and so on; NULL for a type that is not in the enum. */
const char *gguf_type_name(enum gguf_type type);
/* Elements and bytes of one quantisation block: 32 and 34 for Q8_0, 1 and 4 for F32. */
unsigned int gguf_type_block(enum gguf_type type);
size_t gguf_type_block_bytes(enum gguf_type type);
/* Bytes of a row of n elements, n a multiple of the block. */
size_t gguf_row_bytes(enum gguf_type type, uint64_t n);

#endif
