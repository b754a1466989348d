// SPDX-License-Identifier: MIT
/*
 * Everything that reads a context's bytes before its signature counts for anything: the manifest's
 * parser and verifier on the input as it is, and lskv_open() on a file of it.
 *
 * The first byte chooses. A fuzzer does not find magic numbers, sizes and offsets that all agree,
 * so the other modes start from a good manifest or file made here and let the input change it:
 * first how many bytes it loses at the end (two bytes; a manifest's size field goes along), then
 * places to overwrite: position (two bytes), length (one), bytes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "kv/lskv.h"
#include "kv/manifest.h"
#include "unit/context.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t pubkey[MANIFEST_PUBKEY_BYTES], seckey[MANIFEST_SECKEY_BYTES];

static void add_levels(struct manifest *m)
{
	for (int level = KV_LEVEL_Q8; level < KV_LEVELS; level++) {
		struct manifest_level *lv = &m->levels[m->n_levels];

		if (manifest_add_level(m, (enum kv_level)level, NULL) < 0)
			abort();
		for (uint32_t i = 0; lv->unit_bytes && i < m->n_stripes * lv->n_units; i++)
			lv->unit_bytes[i] = 100 + i;
	}
	manifest_place(m, m->n_levels);
}

/* At f16 alone, or at every level, from a relative, with a run of layers that does not travel. */
static uint8_t *good_manifest(uint32_t n_tokens, bool levels, size_t *size)
{
	static const struct kv_run run = { 1, 2, 32 };
	static const int32_t tokens[1024];
	struct manifest *m;
	uint8_t *data;

	if (levels ? manifest_new_run(&m, &context_geo, &run, tokens, n_tokens, KV_LEVEL_F16,
				      NULL) < 0 :
		     context_manifest(&m, n_tokens, "title", NULL) < 0)
		abort();
	if (levels) {
		add_levels(m);
		m->identity = context_identity();
		memset(&m->identity.map, 0x44, sizeof(m->identity.map));
		m->proof = (struct proof){ PROOF_EXACT, 8, 80, 0.7, 0.75, 0.05, 0.01, 0.09 };
	}
	if (manifest_encode(m, seckey, &data, size, NULL) < 0)
		abort();
	manifest_free(m);
	return data;
}

/* The area starts at the next multiple of 4096. */
static uint8_t *good_file(uint32_t n_tokens, size_t *size)
{
	size_t n, area, area_bytes = n_tokens / 64 * 2048;
	uint8_t *manifest = good_manifest(n_tokens, false, &n);
	uint8_t *file;

	area = (64 + n + 4095) / 4096 * 4096;
	file = calloc(1, area + area_bytes);
	memcpy(file, "LSLMLSKV", 8);
	put_le32(file + 8, 1);
	put_le32(file + 12, 64);
	put_le64(file + 16, n);
	put_le64(file + 24, area);
	put_le64(file + 32, area_bytes);
	memcpy(file + 64, manifest, n);
	free(manifest);
	*size = area + area_bytes;
	return file;
}

static void patch(uint8_t *base, size_t base_size, const uint8_t *data, size_t size)
{
	while (size >= 4) {
		size_t at = (data[0] | data[1] << 8) % base_size;
		size_t n = data[2] % 16 + 1;

		data += 3;
		size -= 3;
		for (; n && size && at < base_size; n--, size--)
			base[at++] = *data++;
	}
}

/* Returns the rest of the input. */
static const uint8_t *cut(size_t *base_size, const uint8_t *data, size_t *size)
{
	size_t n = data[0] | data[1] << 8;

	*base_size -= n < *base_size ? n : 0;
	*size -= 2;
	return data + 2;
}

/* Every unit lies in the area, and has a digest. */
static void use_levels(const struct manifest *m)
{
	for (uint32_t i = 0; i < m->n_levels; i++) {
		const struct manifest_level *lv = &m->levels[i];

		for (uint32_t s = 0; s < m->n_stripes; s++)
			for (uint32_t u = 0; u < lv->n_units; u++)
				if (!manifest_digest(m, lv, s, u) ||
				    lv->offset[s] + manifest_unit_offset(m, lv, s, u) +
						    manifest_unit_bytes(m, lv, s, u) >
					    m->area_bytes)
					abort();
	}
}

static void check_manifest(const uint8_t *data, size_t size)
{
	/* Its own allocation, so that a read past the end is seen. */
	uint8_t *copy = malloc(size ? size : 1);
	struct lslm_error err = { 0 };
	struct manifest *m;
	const struct kv_identity id = context_identity();

	memcpy(copy, data, size);
	manifest_verify(copy, size, (const uint8_t(*)[32]) & pubkey, 1, &err);
	if (manifest_parse(&m, copy, size, &err) == 0) {
		uint64_t area;
		uint8_t *again;
		size_t n;

		/* What was accepted can be used to its last field, and re-encoded. */
		use_levels(m);
		manifest_match(m, &id, &m->model_geo, 1 << 20, &err);
		area = m->area_bytes;
		manifest_place(m, m->n_levels);
		/* A larger one is of what was skipped. */
		if (m->area_bytes == area) {
			if (manifest_encode(m, seckey, &again, &n, &err) < 0)
				abort();
			free(again);
		}
		manifest_free(m);
	}
	free(copy);
}

static void check_file(const uint8_t *data, size_t size)
{
	struct lslm_error err = { 0 };
	char path[32];
	struct lskv *f;
	int fd = memfd_create("lskv", MFD_CLOEXEC);

	if (fd < 0 || file_pwrite_all(fd, data, size, 0) < 0)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (lskv_open(&f, path, &err) == 0) {
		const struct manifest *m = lskv_manifest(f);

		/* Every block of an open file is inside it. */
		for (uint32_t s = 0; s < m->n_stripes; s++)
			if (lskv_unit_offset(f, &m->levels[0], s, m->levels[0].n_units) > size)
				abort();
		lskv_close(f);
	}
	close(fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	context_publisher(pubkey, seckey);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t n_tokens[] = { 1, 64, 66, 300 };
	uint32_t tokens;
	bool levels;
	uint8_t *base;
	unsigned int mode;
	size_t n;

	if (size < 3)
		return 0;
	mode = *data % 4;
	tokens = n_tokens[*data / 4 % 4];
	levels = *data / 16 % 2;
	data++;
	size--;
	switch (mode) {
	case 0:
		check_manifest(data, size);
		break;
	case 1:
		check_file(data, size);
		break;
	case 2:
		base = good_manifest(tokens, levels, &n);
		data = cut(&n, data, &size);
		if (n >= 24)
			put_le64(base + 16, n);
		patch(base, n, data, size);
		check_manifest(base, n);
		free(base);
		break;
	case 3:
		base = good_file(tokens, &n);
		data = cut(&n, data, &size);
		patch(base, n, data, size);
		check_file(base, n);
		free(base);
		break;
	}
	return 0;
}
