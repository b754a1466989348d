// SPDX-License-Identifier: MIT
#include "kv/fingerprint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/stamp.h"
#include "lslm/page.h"

/* Hashing */

static int compare_str(struct gguf_str a, struct gguf_str b)
{
	int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

struct pair {
	struct gguf_str key;
	size_t index;
};

static int compare_pairs(const void *a, const void *b)
{
	return compare_str(((const struct pair *)a)->key, ((const struct pair *)b)->key);
}

static int compare_tensors(const void *a, const void *b)
{
	return strcmp((*(const struct gguf_tensor *const *)a)->name,
		      (*(const struct gguf_tensor *const *)b)->name);
}

static bool is_key(struct gguf_str key, const char *name)
{
	return key.len == strlen(name) && memcmp(key.ptr, name, key.len) == 0;
}

static bool changes_results(struct gguf_str key, struct gguf_str arch)
{
	if (is_key(key, "general.architecture") || is_key(key, "general.quantization_version"))
		return true;
	return key.len > arch.len && memcmp(key.ptr, arch.ptr, arch.len) == 0 &&
	       key.ptr[arch.len] == '.';
}

static int hash_metadata(struct hash *h, const struct gguf *g, struct gguf_str arch)
{
	struct pair *pairs = calloc(gguf_n_kv(g) + 1, sizeof(*pairs));
	uint32_t n = 0;

	if (!pairs)
		return -ENOMEM;
	for (size_t i = 0; i < gguf_n_kv(g); i++) {
		pairs[n].key = gguf_kv_key(g, i);
		pairs[n].index = i;
		n += changes_results(pairs[n].key, arch);
	}
	qsort(pairs, n, sizeof(*pairs), compare_pairs);
	hash_u32(h, n);
	for (uint32_t i = 0; i < n; i++) {
		const void *value;
		size_t size;

		gguf_kv_raw(g, pairs[i].index, &value, &size);
		hash_string(h, pairs[i].key.ptr, pairs[i].key.len);
		hash_u64(h, size);
		hash_raw(h, value, size);
	}
	free(pairs);
	return 0;
}

/* Tensors are read once each, front to back: have the next one on its way meanwhile. */
static void read_ahead(const struct gguf *g, const struct gguf_tensor *t)
{
	uintptr_t start = (uintptr_t)t->data & ~(lslm_page_size() - 1);

	if (gguf_fd(g) >= 0)
		madvise((void *)start, (uintptr_t)t->data + t->size - start, MADV_WILLNEED);
}

static int hash_tensors(struct hash *h, const struct gguf *g)
{
	size_t n = gguf_n_tensors(g);
	const struct gguf_tensor **sorted = calloc(n + 1, sizeof(*sorted));

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		sorted[i] = gguf_tensor(g, i);
	qsort(sorted, n, sizeof(*sorted), compare_tensors);
	hash_u32(h, (uint32_t)n);
	for (size_t i = 0; i < n; i++) {
		const struct gguf_tensor *t = sorted[i];

		if (i + 1 < n)
			read_ahead(g, sorted[i + 1]);
		hash_string(h, t->name, strlen(t->name));
		hash_u32(h, t->type);
		hash_u32(h, t->n_dims);
		for (unsigned int d = 0; d < t->n_dims; d++)
			hash_u64(h, t->ne[d]);
		hash_u64(h, t->size);
		hash_raw(h, t->data, t->size);
	}
	free(sorted);
	return 0;
}

static int hash_model(const struct gguf *g, struct kv_hash *out, struct lslm_error *err)
{
	struct gguf_str arch;
	struct hash h;
	int ret;

	if (gguf_get_str(g, "general.architecture", &arch) < 0)
		return error_set(err, -EINVAL, "%s: has no general.architecture", gguf_path(g));
	hash_start(&h, "lslm model v1");
	ret = hash_metadata(&h, g, arch);
	if (ret == 0)
		ret = hash_tensors(&h, g);
	hash_finish(&h, out->b);
	return ret < 0 ? error_set(err, ret, "%s: out of memory", gguf_path(g)) : 0;
}

/* The cache: magic, stamp, fingerprint, digest of all that. */
static const char cache_magic[8] = { 'L', 'S', 'L', 'M', 'F', 'P', 'R', '1' };

enum {
	ENTRY_STAMP = 8,
	ENTRY_FINGERPRINT = 48,
	ENTRY_CHECK = 80,
	ENTRY_BYTES = 112,
};

static void put_stamp(uint8_t *entry, const struct stamp *s)
{
	memcpy(entry, cache_magic, sizeof(cache_magic));
	stamp_put(s, entry + ENTRY_STAMP);
}

static char *cache_path(const struct stamp *s, bool create)
{
	char *dir, *path;
	int n;

	if (file_xdg_path(&dir, FILE_XDG_CACHE, "fingerprints", NULL) < 0)
		return NULL;
	if (create)
		file_mkdirs(dir, 0700, NULL);
	n = asprintf(&path, "%s/%llx-%llx", dir, (unsigned long long)s->dev,
		     (unsigned long long)s->ino);
	free(dir);
	return n < 0 ? NULL : path;
}

static bool cache_get(const struct stamp *s, struct kv_hash *out)
{
	uint8_t expected[ENTRY_FINGERPRINT];
	char *path = cache_path(s, false), *entry;
	struct kv_hash check;
	size_t size;
	bool good;

	if (!path)
		return false;
	good = file_read(path, ENTRY_BYTES, &entry, &size, NULL) == 0;
	free(path);
	if (!good)
		return false;
	put_stamp(expected, s);
	good = size == ENTRY_BYTES && memcmp(entry, expected, sizeof(expected)) == 0;
	if (good) {
		check = kv_digest(entry, ENTRY_CHECK);
		good = memcmp(entry + ENTRY_CHECK, check.b, sizeof(check.b)) == 0;
		memcpy(out->b, entry + ENTRY_FINGERPRINT, sizeof(out->b));
	}
	free(entry);
	return good;
}

static void cache_put(const struct stamp *s, const struct kv_hash *fingerprint)
{
	uint8_t entry[ENTRY_BYTES];
	struct kv_hash check;
	struct timespec now;
	char *path;

	clock_gettime(CLOCK_REALTIME, &now);
	if ((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec < s->ctime + 2000000000)
		return;
	path = cache_path(s, true);
	if (!path)
		return;
	put_stamp(entry, s);
	memcpy(entry + ENTRY_FINGERPRINT, fingerprint->b, sizeof(fingerprint->b));
	check = kv_digest(entry, ENTRY_CHECK);
	memcpy(entry + ENTRY_CHECK, check.b, sizeof(check.b));
	file_write(path, entry, sizeof(entry), 0600, FILE_REPLACE, NULL);
	free(path);
}

int fingerprint_model(const struct gguf *g, struct kv_hash *out, bool *cached,
		      struct lslm_error *err)
{
	struct stamp before, after;
	bool stamped = !stamp_of(gguf_fd(g), &before);
	bool hit = stamped && cache_get(&before, out);
	int ret;

	if (cached)
		*cached = hit;
	if (hit)
		return 0;
	gguf_read_all(g);
	ret = hash_model(g, out, err);
	if (ret < 0 || !stamped)
		return ret;
	if (stamp_of(gguf_fd(g), &after) || !stamp_equal(&before, &after))
		return error_set(err, -EAGAIN, "%s: changed while it was read; try again",
				 gguf_path(g));
	cache_put(&after, out);
	return 0;
}
