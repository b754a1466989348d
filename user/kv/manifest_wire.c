// SPDX-License-Identifier: MIT
/* A manifest as bytes, signed: docs/protocol.md, "Manifest". */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hex.h"
#include "kv/manifest.h"
#include "kv/manifest_internal.h"

_Static_assert(crypto_sign_PUBLICKEYBYTES == MANIFEST_PUBKEY_BYTES, "Ed25519");
_Static_assert(crypto_sign_SECRETKEYBYTES == MANIFEST_SECKEY_BYTES, "Ed25519");
_Static_assert(crypto_sign_BYTES == MANIFEST_SIG_BYTES, "Ed25519");

static const char magic[8] = { 'L', 'S', 'L', 'M', 'M', 'A', 'N', 'I' };
static const char sign_domain[] = "lslm manifest signature v1";

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_HEADER_BYTES = 12,
	AT_SIZE = 16,
	AT_FLAGS = 24,
	AT_BLOCK_TOKENS = 28,
	AT_N_LAYER = 32,
	AT_N_HEAD_KV = 36,
	AT_HEAD_DIM = 40,
	AT_N_TOKENS = 44,
	AT_N_STRIPES = 48,
	AT_RESERVED = 52,
	AT_AREA_BYTES = 56,
	AT_CREATED = 64,
	AT_MODEL = 72,
	AT_TOKENIZER = 104,
	AT_ROPE = 136,
	AT_MAP = 168,
	AT_SALT = 200,
	AT_KEY = 232,
	AT_PUBLISHER = 264,
	HEADER_BYTES = 296,

	SECTION_HEADER_BYTES = 16,
	SECTION_ALIGN = 8,
	SECTION_MUST_UNDERSTAND = 1,

	LEVEL_HEADER_BYTES = 16,
	LEVEL_UNIT_BLOCK = 0,
	LEVEL_UNIT_STRIPE = 1,
	PROOF_VERSION = 1,
	PROOF_HEADER_BYTES = 8,
	PLACE_BYTES = 16, /* offset and length of a stripe */
	UNIT_BYTES = 4, /* length of a unit, where it travels encoded */
};

enum section_type {
	SECTION_TITLE = 1,
	SECTION_TOKENS = 2,
	SECTION_LEVEL = 3,
	SECTION_PROOF = 4,
	SECTION_RUN = 5,
	SECTION_LAST = SECTION_RUN, /* that is known */
};

static size_t padded(size_t n)
{
	return (n + SECTION_ALIGN - 1) & ~(size_t)(SECTION_ALIGN - 1);
}

/* No overflow: limits on tokens and layers keep it below 2^35, and it is 64 bits wide everywhere. */
static uint64_t level_payload(const struct manifest *m, enum kv_level level)
{
	uint64_t unit = KV_HASH_BYTES, head = LEVEL_HEADER_BYTES;

	if (!kv_level_is_plain(level)) {
		unit += UNIT_BYTES;
		head += KV_HASH_BYTES;
	}
	return head + (uint64_t)m->n_stripes * PLACE_BYTES + manifest_units(m, level) * unit;
}

/* Encoding */

uint64_t manifest_level_bytes(const struct manifest *m, const struct manifest_level *lv)
{
	return SECTION_HEADER_BYTES + padded(level_payload(m, lv->level));
}

int manifest_encoded_size(const struct manifest *m, size_t *size, struct lslm_error *err)
{
	size_t title = strnlen(m->title, sizeof(m->title));
	uint64_t n = HEADER_BYTES + MANIFEST_SIG_BYTES;

	if (title)
		n += SECTION_HEADER_BYTES + padded(title);
	n += SECTION_HEADER_BYTES + padded((size_t)m->n_tokens * sizeof(*m->tokens));
	for (uint32_t i = 0; i < m->n_levels; i++)
		n += manifest_level_bytes(m, &m->levels[i]);
	if (m->proof.metric)
		n += SECTION_HEADER_BYTES + PROOF_HEADER_BYTES + PROOF_BYTES;
	if (!kv_run_is_none(&m->run))
		n += SECTION_HEADER_BYTES + KV_RUN_BYTES;
	if (n > MANIFEST_MAX_BYTES)
		return error_set(err, -E2BIG,
				 "manifest of %u tokens and %u layers has %llu bytes, at most %d "
				 "are allowed; use a shorter context or fewer levels",
				 m->n_tokens, m->geo.n_layer, (unsigned long long)n,
				 MANIFEST_MAX_BYTES);
	*size = (size_t)n;
	return 0;
}

static void put_header(uint8_t *p, const struct manifest *m, size_t size)
{
	memcpy(p + AT_MAGIC, magic, sizeof(magic));
	put_le32(p + AT_VERSION, MANIFEST_VERSION);
	put_le32(p + AT_HEADER_BYTES, HEADER_BYTES);
	put_le64(p + AT_SIZE, size);
	put_le32(p + AT_BLOCK_TOKENS, KV_BLOCK_TOKENS);
	put_le32(p + AT_N_LAYER, m->model_geo.n_layer);
	put_le32(p + AT_N_HEAD_KV, m->model_geo.n_head_kv);
	put_le32(p + AT_HEAD_DIM, m->model_geo.head_dim);
	put_le32(p + AT_N_TOKENS, m->n_tokens);
	put_le32(p + AT_N_STRIPES, m->n_stripes);
	put_le64(p + AT_AREA_BYTES, m->area_bytes);
	put_le64(p + AT_CREATED, m->created);
	memcpy(p + AT_MODEL, m->identity.model.b, KV_HASH_BYTES);
	memcpy(p + AT_TOKENIZER, m->identity.tokenizer.b, KV_HASH_BYTES);
	memcpy(p + AT_ROPE, m->identity.rope.b, KV_HASH_BYTES);
	memcpy(p + AT_MAP, m->identity.map.b, KV_HASH_BYTES);
	memcpy(p + AT_SALT, m->identity.salt.b, KV_HASH_BYTES);
	memcpy(p + AT_KEY, m->key.b, KV_HASH_BYTES);
	memcpy(p + AT_PUBLISHER, m->publisher, MANIFEST_PUBKEY_BYTES);
}

static uint8_t *put_section(uint8_t *p, enum section_type type, uint32_t flags, uint64_t length)
{
	put_le32(p, type);
	put_le32(p + 4, flags);
	put_le64(p + 8, length);
	return p + SECTION_HEADER_BYTES;
}

static uint32_t unit_code(enum kv_level level)
{
	return level == KV_LEVEL_P ? LEVEL_UNIT_STRIPE : LEVEL_UNIT_BLOCK;
}

static uint8_t *put_level(uint8_t *p, const struct manifest *m, const struct manifest_level *lv)
{
	const size_t n = manifest_units(m, lv->level);
	const uint64_t payload = level_payload(m, lv->level);
	uint8_t *const end = p + manifest_level_bytes(m, lv);

	/* Whoever knows none but f16 may read that; a coarser one is not needed by anybody. */
	p = put_section(p, SECTION_LEVEL, lv->level == KV_LEVEL_F16 ? SECTION_MUST_UNDERSTAND : 0,
			payload);
	put_le32(p, lv->level);
	put_le32(p + 4, unit_code(lv->level));
	p += LEVEL_HEADER_BYTES;
	if (lv->unit_bytes) {
		memcpy(p, lv->calibration.b, KV_HASH_BYTES);
		p += KV_HASH_BYTES;
	}
	for (uint32_t s = 0; s < m->n_stripes; s++, p += PLACE_BYTES) {
		put_le64(p, lv->offset[s]);
		put_le64(p + 8, lv->length[s]);
	}
	memcpy(p, lv->digest, n * KV_HASH_BYTES);
	p += n * KV_HASH_BYTES;
	for (size_t i = 0; lv->unit_bytes && i < n; i++, p += UNIT_BYTES)
		put_le32(p, lv->unit_bytes[i]);
	return end;
}

static void put_sections(uint8_t *p, const struct manifest *m)
{
	size_t title = strlen(m->title);

	if (title) {
		p = put_section(p, SECTION_TITLE, 0, title);
		memcpy(p, m->title, title);
		p += padded(title);
	}
	p = put_section(p, SECTION_TOKENS, SECTION_MUST_UNDERSTAND, (uint64_t)m->n_tokens * 4);
	for (uint32_t i = 0; i < m->n_tokens; i++)
		put_le32(p + (size_t)i * 4, (uint32_t)m->tokens[i]);
	p += padded((size_t)m->n_tokens * 4);
	for (uint32_t i = 0; i < m->n_levels; i++)
		p = put_level(p, m, &m->levels[i]);
	if (m->proof.metric) {
		/* Whoever does not know it takes the context for one through a map that was not named. */
		p = put_section(p, SECTION_PROOF, 0, PROOF_HEADER_BYTES + PROOF_BYTES);
		put_le32(p, PROOF_VERSION);
		proof_put(p + PROOF_HEADER_BYTES, &m->proof);
		p += PROOF_HEADER_BYTES + PROOF_BYTES;
	}
	if (!kv_run_is_none(&m->run)) {
		p = put_section(p, SECTION_RUN, SECTION_MUST_UNDERSTAND, KV_RUN_BYTES);
		kv_run_put(p, &m->run);
	}
}

/*
 * What is signed: a domain string and the digest of all that precedes the signature, so that a
 * manifest of any size is signed and verified without a copy of it.
 */
enum { MESSAGE_BYTES = sizeof(sign_domain) - 1 + KV_HASH_BYTES };

static void signed_message(uint8_t message[MESSAGE_BYTES], const void *data, size_t size)
{
	struct kv_hash h = kv_digest(data, size - MANIFEST_SIG_BYTES);

	memcpy(message, sign_domain, sizeof(sign_domain) - 1);
	memcpy(message + sizeof(sign_domain) - 1, h.b, sizeof(h.b));
}

/* A manifest that this program writes is one that it reads. */
static int check_encodable(const struct manifest *m, struct lslm_error *err)
{
	size_t title = strnlen(m->title, sizeof(m->title));
	uint64_t end = 0;
	int ret = manifest_check_sizes(m, err);

	if (ret == 0)
		ret = manifest_check_title((const uint8_t *)m->title, title, err);
	if (ret == 0)
		ret = manifest_check_tokens(m, err);
	if (ret == 0 && !m->n_levels)
		ret = error_set(err, -EINVAL, "a context without a level");
	if (ret == 0 && !kv_run_is_none(&m->run) && !manifest_is_mapped(m))
		ret = error_set(err, -EINVAL, "a run of layers of no other model");
	if (ret == 0 && m->proof.metric && !manifest_is_mapped(m))
		ret = error_set(err, -EINVAL, "an evaluation of a map, and no map");
	if (ret == 0)
		ret = manifest_check_levels(m, &end, err);
	if (ret == 0 && m->area_bytes != end)
		ret = error_set(err, -EINVAL, "size of the stripe area is wrong");
	return ret;
}

int manifest_encode(struct manifest *m, const uint8_t seckey[MANIFEST_SECKEY_BYTES], uint8_t **data,
		    size_t *size, struct lslm_error *err)
{
	uint8_t message[MESSAGE_BYTES];
	uint8_t *p;
	size_t n;
	int ret;

	ret = check_encodable(m, err);
	if (ret == 0)
		ret = manifest_encoded_size(m, &n, err);
	if (ret < 0)
		return ret;
	p = calloc(1, n);
	if (!p)
		return error_set(err, -ENOMEM, "out of memory for a manifest of %zu bytes", n);
	m->key = kv_key(&m->identity, m->tokens, m->n_tokens);
	crypto_sign_ed25519_sk_to_pk(m->publisher, seckey);
	put_header(p, m, n);
	put_sections(p + HEADER_BYTES, m);
	signed_message(message, p, n);
	crypto_sign_detached(m->signature, NULL, message, sizeof(message), seckey);
	memcpy(p + n - MANIFEST_SIG_BYTES, m->signature, MANIFEST_SIG_BYTES);
	*data = p;
	*size = n;
	return 0;
}

/* Parsing */

/* The part of the header that says what the bytes are. */
static int check_envelope(const uint8_t *p, size_t size, struct lslm_error *err)
{
	if (size < HEADER_BYTES + MANIFEST_SIG_BYTES ||
	    memcmp(p + AT_MAGIC, magic, sizeof(magic)) != 0)
		return error_set(err, -EINVAL, "is no manifest");
	if (get_le32(p + AT_VERSION) != MANIFEST_VERSION)
		return error_set(err, -EINVAL, "manifest is of version %u, this program reads %d",
				 get_le32(p + AT_VERSION), MANIFEST_VERSION);
	if (size > MANIFEST_MAX_BYTES || get_le64(p + AT_SIZE) != size)
		return error_set(err, -EINVAL,
				 "manifest says that it has %llu bytes, there are %zu",
				 (unsigned long long)get_le64(p + AT_SIZE), size);
	if (get_le32(p + AT_HEADER_BYTES) != HEADER_BYTES || get_le32(p + AT_FLAGS) ||
	    get_le32(p + AT_RESERVED) || get_le32(p + AT_BLOCK_TOKENS) != KV_BLOCK_TOKENS)
		return error_set(err, -EINVAL,
				 "manifest's header has a field that version %d does not allow",
				 MANIFEST_VERSION);
	return 0;
}

static void get_header(struct manifest *m, const uint8_t *p)
{
	m->model_geo.n_layer = get_le32(p + AT_N_LAYER);
	m->model_geo.n_head_kv = get_le32(p + AT_N_HEAD_KV);
	m->model_geo.head_dim = get_le32(p + AT_HEAD_DIM);
	m->n_tokens = get_le32(p + AT_N_TOKENS);
	m->n_stripes = get_le32(p + AT_N_STRIPES);
	m->area_bytes = get_le64(p + AT_AREA_BYTES);
	m->created = get_le64(p + AT_CREATED);
	memcpy(m->identity.model.b, p + AT_MODEL, KV_HASH_BYTES);
	memcpy(m->identity.tokenizer.b, p + AT_TOKENIZER, KV_HASH_BYTES);
	memcpy(m->identity.rope.b, p + AT_ROPE, KV_HASH_BYTES);
	memcpy(m->identity.map.b, p + AT_MAP, KV_HASH_BYTES);
	memcpy(m->identity.salt.b, p + AT_SALT, KV_HASH_BYTES);
	memcpy(m->key.b, p + AT_KEY, KV_HASH_BYTES);
	memcpy(m->publisher, p + AT_PUBLISHER, MANIFEST_PUBKEY_BYTES);
}

struct section {
	uint32_t type;
	uint32_t flags;
	const uint8_t *data;
	size_t length;
};

/* Take the section at *p and step over it. */
static int next_section(const uint8_t **p, const uint8_t *end, struct section *sec,
			struct lslm_error *err)
{
	size_t left = (size_t)(end - *p);
	uint64_t length;

	if (left < SECTION_HEADER_BYTES)
		return error_set(err, -EINVAL, "manifest has %zu bytes after its last section",
				 left);
	left -= SECTION_HEADER_BYTES;
	sec->type = get_le32(*p);
	sec->flags = get_le32(*p + 4);
	length = get_le64(*p + 8);
	sec->data = *p + SECTION_HEADER_BYTES;
	if (length > left || padded((size_t)length) > left)
		return error_set(err, -EINVAL, "manifest's section %u is longer than the manifest",
				 sec->type);
	sec->length = (size_t)length;
	for (size_t i = sec->length; i < padded(sec->length); i++)
		if (sec->data[i])
			return error_set(err, -EINVAL, "manifest's section %u has dirty padding",
					 sec->type);
	if (sec->flags & ~(uint32_t)SECTION_MUST_UNDERSTAND)
		return error_set(err, -EINVAL, "manifest's section %u has unknown flags %#x",
				 sec->type, sec->flags);
	*p = sec->data + padded(sec->length);
	return 0;
}

static int get_title(struct manifest *m, const struct section *sec, struct lslm_error *err)
{
	int ret;

	if (sec->flags)
		return error_set(err, -EINVAL, "title has the flags %#x, must be 0", sec->flags);
	if (!sec->length)
		return error_set(err, -EINVAL, "title is there and empty");
	ret = manifest_check_title(sec->data, sec->length, err);
	if (ret < 0)
		return ret;
	memcpy(m->title, sec->data, sec->length);
	return 0;
}

static int get_tokens(struct manifest *m, const struct section *sec, struct lslm_error *err)
{
	if (sec->flags != SECTION_MUST_UNDERSTAND)
		return error_set(err, -EINVAL, "tokens have the flags %#x, must be 1", sec->flags);
	if (sec->length != (uint64_t)m->n_tokens * 4)
		return error_set(err, -EINVAL, "manifest has %zu bytes of tokens for %u tokens",
				 sec->length, m->n_tokens);
	m->tokens = malloc(m->n_tokens * sizeof(*m->tokens));
	if (!m->tokens)
		return error_set(err, -ENOMEM, "out of memory for %u tokens", m->n_tokens);
	for (uint32_t i = 0; i < m->n_tokens; i++)
		m->tokens[i] = (int32_t)get_le32(sec->data + (size_t)i * 4);
	return manifest_check_tokens(m, err);
}

/* From a payload of the right size, behind its header. */
static void fill_level(const struct manifest *m, struct manifest_level *lv, const uint8_t *p)
{
	const size_t n = manifest_units(m, lv->level);

	if (lv->unit_bytes) {
		memcpy(lv->calibration.b, p, KV_HASH_BYTES);
		p += KV_HASH_BYTES;
	}
	for (uint32_t s = 0; s < m->n_stripes; s++, p += PLACE_BYTES) {
		lv->offset[s] = get_le64(p);
		lv->length[s] = get_le64(p + 8);
	}
	memcpy(lv->digest, p, n * KV_HASH_BYTES);
	p += n * KV_HASH_BYTES;
	for (size_t i = 0; lv->unit_bytes && i < n; i++, p += UNIT_BYTES)
		lv->unit_bytes[i] = get_le32(p);
}

/* *skipped is set for a level that this program does not know and need not. */
static int get_level(struct manifest *m, const struct section *sec, bool *skipped,
		     struct lslm_error *err)
{
	struct manifest_level *lv = &m->levels[m->n_levels];
	const uint8_t *p = sec->data;
	uint32_t level;

	if (sec->length < LEVEL_HEADER_BYTES)
		return error_set(err, -EINVAL, "manifest's level has %zu bytes", sec->length);
	level = get_le32(p);
	if (!kv_level_name(level)) {
		if (sec->flags & SECTION_MUST_UNDERSTAND)
			return error_set(err, -EINVAL,
					 "manifest needs level %u, which this program does not "
					 "read; a newer one is needed",
					 level);
		*skipped = true;
		return 0;
	}
	if (m->n_levels && m->levels[m->n_levels - 1].level >= level)
		return error_set(err, -EINVAL, "manifest's levels are not in order");
	if (get_le32(p + 4) != unit_code(level) || get_le64(p + 8))
		return error_set(err, -EINVAL, "level %s: unknown form", kv_level_name(level));
	if (sec->length != level_payload(m, level))
		return error_set(err, -EINVAL, "level %s has %zu bytes, its size must be %llu",
				 kv_level_name(level), sec->length,
				 (unsigned long long)level_payload(m, level));
	m->n_levels++;
	if (manifest_alloc_level(m, lv, level) < 0)
		return error_set(err, -ENOMEM, "out of memory for a manifest of %u stripes",
				 m->n_stripes);
	fill_level(m, lv, p + LEVEL_HEADER_BYTES);
	return 0;
}

/* Of another version: not known, as if it were not there. */
static int get_proof(struct manifest *m, const struct section *sec, struct lslm_error *err)
{
	if (sec->flags)
		return error_set(err, -EINVAL, "evaluation has the flags %#x, must be 0",
				 sec->flags);
	if (sec->length < PROOF_HEADER_BYTES || get_le32(sec->data + 4))
		return error_set(err, -EINVAL, "evaluation: unknown form");
	if (!manifest_is_mapped(m))
		return error_set(err, -EINVAL, "an evaluation of a map, and no map");
	if (get_le32(sec->data) != PROOF_VERSION)
		return 0;
	if (sec->length != PROOF_HEADER_BYTES + PROOF_BYTES)
		return error_set(err, -EINVAL, "evaluation has %zu bytes, must have %d",
				 sec->length, PROOF_HEADER_BYTES + PROOF_BYTES);
	if (!get_le32(sec->data + PROOF_HEADER_BYTES))
		return error_set(err, -EINVAL, "evaluation is there and empty");
	return proof_get(&m->proof, sec->data + PROOF_HEADER_BYTES, err);
}

static int get_section(struct manifest *m, const struct section *sec, bool *skipped,
		       struct lslm_error *err)
{
	switch (sec->type) {
	case SECTION_TITLE:
		return get_title(m, sec, err);
	case SECTION_TOKENS:
		return get_tokens(m, sec, err);
	case SECTION_LEVEL:
		return get_level(m, sec, skipped, err);
	case SECTION_PROOF:
		return get_proof(m, sec, err);
	case SECTION_RUN:
		return 0; /* find_run() has taken it */
	}
	if (sec->flags & SECTION_MUST_UNDERSTAND)
		return error_set(err, -EINVAL,
				 "manifest has section %u, which this program does not know and "
				 "must not ignore; a newer one is needed",
				 sec->type);
	*skipped = true;
	return 0;
}

static int get_run(struct manifest *m, const struct section *sec, struct lslm_error *err)
{
	if (sec->flags != SECTION_MUST_UNDERSTAND)
		return error_set(err, -EINVAL, "run of layers has the flags %#x, must be 1",
				 sec->flags);
	if (sec->length != KV_RUN_BYTES || kv_run_get(&m->run, sec->data))
		return error_set(err, -EINVAL, "run of layers: unknown form");
	if (kv_run_is_none(&m->run) || !manifest_is_mapped(m))
		return error_set(err, -EINVAL, "a run of layers of no other model");
	return 0;
}

/* Before all others, since stripes are laid out by it. */
static int find_run(struct manifest *m, const uint8_t *p, const uint8_t *end,
		    struct lslm_error *err)
{
	struct section sec = { 0 };
	int ret = 0;

	/* What cannot be read is told of when all are. */
	while (p < end && !ret && !next_section(&p, end, &sec, NULL))
		if (sec.type == SECTION_RUN)
			ret = get_run(m, &sec, err);
	/* manifest_check_sizes() says whether it can be. */
	m->geo = kv_run_geometry(&m->run, &m->model_geo);
	return ret;
}

/* Sections come in order of type and none that is known but levels repeats, so a context has one encoding. */
static int get_sections(struct manifest *m, const uint8_t *p, const uint8_t *end,
			struct lslm_error *err)
{
	bool skipped = false;
	uint32_t last = 0;
	uint64_t known = 0;
	int ret;

	while (p < end) {
		struct section sec = { 0 };

		ret = next_section(&p, end, &sec, err);
		if (ret < 0)
			return ret;
		if (sec.type < last ||
		    (sec.type == last && sec.type != SECTION_LEVEL && sec.type <= SECTION_LAST))
			return error_set(err, -EINVAL, "manifest's sections are not in order");
		last = sec.type;
		ret = get_section(m, &sec, &skipped, err);
		if (ret < 0)
			return ret;
	}
	if (!m->tokens)
		return error_set(err, -EINVAL, "manifest has no tokens");
	if (!m->n_levels)
		return error_set(err, -EINVAL,
				 "context is on offer at no level that this program reads; a newer "
				 "one is needed");
	ret = manifest_check_levels(m, &known, err);
	if (ret < 0)
		return ret;
	/* What was skipped may own more of the area. */
	if (m->area_bytes < known || (m->area_bytes > known && !skipped) ||
	    m->area_bytes >= MANIFEST_AREA_LIMIT)
		return error_set(err, -EINVAL, "size of the stripe area is wrong");
	return 0;
}

int manifest_parse(struct manifest **out, const void *data, size_t size, struct lslm_error *err)
{
	const uint8_t *p = data, *end;
	struct manifest *m;
	int ret;

	*out = NULL;
	ret = check_envelope(p, size, err);
	if (ret < 0)
		return ret;
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	get_header(m, p);
	end = p + size - MANIFEST_SIG_BYTES;
	memcpy(m->signature, end, MANIFEST_SIG_BYTES);
	ret = find_run(m, p + HEADER_BYTES, end, err);
	if (ret == 0)
		ret = manifest_check_sizes(m, err);
	if (ret == 0)
		ret = get_sections(m, p + HEADER_BYTES, end, err);
	if (ret < 0) {
		manifest_free(m);
		return ret;
	}
	*out = m;
	return 0;
}

/* Trust */

int manifest_verify(const void *data, size_t size, const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES],
		    size_t n_trusted, struct lslm_error *err)
{
	const uint8_t *p = data, *publisher = p + AT_PUBLISHER;
	uint8_t message[MESSAGE_BYTES];
	char name[KV_HASH_TEXT];
	size_t i;
	int ret;

	ret = check_envelope(p, size, err);
	if (ret < 0)
		return ret;
	if (!n_trusted)
		return error_set(
			err, -EKEYREJECTED,
			"no publisher is trusted; name the public key of one with --trust");
	hex_format(name, publisher, MANIFEST_PUBKEY_BYTES);
	for (i = 0; i < n_trusted; i++)
		if (memcmp(trusted[i], publisher, MANIFEST_PUBKEY_BYTES) == 0)
			break;
	if (i == n_trusted)
		return error_set(err, -EKEYREJECTED,
				 "context is signed by publisher %.16s..., which is not trusted; "
				 "name its whole public key with --trust to accept it",
				 name);
	signed_message(message, data, size);
	if (crypto_sign_verify_detached(p + size - MANIFEST_SIG_BYTES, message, sizeof(message),
					publisher) != 0)
		return error_set(err, -EKEYREJECTED,
				 "signature of publisher %.16s... is wrong: the manifest was "
				 "damaged or changed; fetch or publish it again",
				 name);
	return 0;
}
