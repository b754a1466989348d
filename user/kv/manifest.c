// SPDX-License-Identifier: MIT
#include "kv/manifest.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hex.h"
#include "base/utf8.h"

_Static_assert(crypto_sign_PUBLICKEYBYTES == MANIFEST_PUBKEY_BYTES, "Ed25519");
_Static_assert(crypto_sign_SECRETKEYBYTES == MANIFEST_SECKEY_BYTES, "Ed25519");
_Static_assert(crypto_sign_BYTES == MANIFEST_SIG_BYTES, "Ed25519");

/* The encoding: docs/protocol.md, "Manifest". */
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
	PLACE_BYTES = 16, /* offset and length of a stripe */
};

enum section_type {
	SECTION_TITLE = 1,
	SECTION_TOKENS = 2,
	SECTION_LEVEL = 3,
};

/* Leaves room for everything else in the 63 bits of a file's size. */
#define AREA_LIMIT (UINT64_C(1) << 62)

static size_t padded(size_t n)
{
	return (n + SECTION_ALIGN - 1) & ~(size_t)(SECTION_ALIGN - 1);
}

/* No overflow: limits on tokens and layers keep it below 2^34, and it is 64 bits wide everywhere. */
static uint64_t level_payload(const struct manifest *m)
{
	return LEVEL_HEADER_BYTES + (uint64_t)m->n_stripes * PLACE_BYTES +
	       (uint64_t)m->n_stripes * m->geo.n_layer * KV_HASH_BYTES;
}

/* One level's share of the stripe area: stripe follows stripe, without a gap. */
static uint64_t level_area(const struct manifest *m, enum kv_level level)
{
	return (uint64_t)kv_stripe_bytes(&m->geo, level) * m->n_stripes;
}

/* Bytes that a terminal or a log could take for more than text. */
static int is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2066 && c <= 0x2069);
}

static int check_title(const uint8_t *s, size_t n, struct lslm_error *err)
{
	uint32_t c;
	size_t len;

	if (n > MANIFEST_MAX_TITLE)
		return error_set(err, -EINVAL, "title has %zu bytes, at most %d are allowed", n,
				 MANIFEST_MAX_TITLE);
	for (; n; s += len, n -= len) {
		len = utf8_next(s, n, &c);
		if (!len)
			return error_set(err, -EINVAL, "title is not valid UTF-8");
		if (is_control(c))
			return error_set(err, -EINVAL, "title holds a control character (U+%04X)",
					 c);
	}
	return 0;
}

void manifest_set_title(struct manifest *m, const char *text)
{
	size_t left = strlen(text), n = 0;

	while (left) {
		uint32_t c = 0;
		size_t len = utf8_next((const uint8_t *)text, left, &c);
		bool good = len && !is_control(c);
		size_t step = len ? len : 1, put = good ? len : 1;

		if (n + put > MANIFEST_MAX_TITLE)
			break;
		memcpy(m->title + n, good ? text : "?", put);
		n += put;
		text += step;
		left -= step;
	}
	memset(m->title + n, 0, sizeof(m->title) - n);
}

/* What a header says, before anything is allocated by it. */
static int check_sizes(const struct manifest *m, struct lslm_error *err)
{
	int ret = kv_geometry_check(&m->geo, err);

	if (ret < 0)
		return ret;
	if (m->n_tokens < 1 || m->n_tokens > KV_MAX_TOKENS)
		return error_set(err, -EINVAL, "number of tokens is %u, must be 1 to %d",
				 m->n_tokens, KV_MAX_TOKENS);
	if (m->n_stripes != m->n_tokens / KV_BLOCK_TOKENS)
		return error_set(err, -EINVAL, "%u stripes do not match %u tokens", m->n_stripes,
				 m->n_tokens);
	return 0;
}

static int check_tokens(const struct manifest *m, struct lslm_error *err)
{
	for (uint32_t i = 0; i < m->n_tokens; i++)
		if (m->tokens[i] < 0)
			return error_set(err, -EINVAL, "token %u has the negative id %d", i,
					 m->tokens[i]);
	return 0;
}

static int check_level(const struct manifest *m, const struct manifest_level *lv,
		       struct lslm_error *err)
{
	uint64_t stripe_bytes = kv_stripe_bytes(&m->geo, lv->level);

	for (uint32_t s = 0; s < m->n_stripes; s++)
		if (lv->offset[s] != s * stripe_bytes || lv->length[s] != stripe_bytes)
			return error_set(err, -EINVAL,
					 "level %s: stripe %u is not where its size puts it",
					 kv_level_name(lv->level), s);
	return 0;
}

static int alloc_level(struct manifest_level *lv, enum kv_level level, uint32_t n_stripes,
		       uint32_t n_layer)
{
	/* One more than asked for, because calloc(0) may return NULL. */
	lv->level = level;
	lv->offset = calloc((size_t)n_stripes + 1, sizeof(*lv->offset));
	lv->length = calloc((size_t)n_stripes + 1, sizeof(*lv->length));
	lv->digest = calloc((size_t)n_stripes * n_layer + 1, sizeof(*lv->digest));
	return lv->offset && lv->length && lv->digest ? 0 : -ENOMEM;
}

int manifest_new(struct manifest **out, const struct kv_geometry *geo, const int32_t *tokens,
		 uint32_t n_tokens, enum kv_level level, struct lslm_error *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	size_t encoded;
	int ret;

	*out = NULL;
	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	m->geo = *geo;
	m->n_tokens = n_tokens;
	m->n_stripes = n_tokens / KV_BLOCK_TOKENS;
	m->n_levels = 1;
	ret = check_sizes(m, err);
	if (ret == 0)
		ret = manifest_encoded_size(m, &encoded, err);
	if (ret < 0)
		goto err_free;
	m->tokens = malloc(n_tokens * sizeof(*tokens));
	if (!m->tokens || alloc_level(&m->levels[0], level, m->n_stripes, geo->n_layer) < 0) {
		ret = error_set(err, -ENOMEM, "out of memory for a context of %u tokens", n_tokens);
		goto err_free;
	}
	memcpy(m->tokens, tokens, n_tokens * sizeof(*tokens));
	for (uint32_t s = 0; s < m->n_stripes; s++) {
		m->levels[0].offset[s] = (uint64_t)kv_stripe_bytes(geo, level) * s;
		m->levels[0].length[s] = kv_stripe_bytes(geo, level);
	}
	m->area_bytes = level_area(m, level);
	*out = m;
	return 0;
err_free:
	manifest_free(m);
	return ret;
}

void manifest_free(struct manifest *m)
{
	if (!m)
		return;
	for (uint32_t i = 0; i < m->n_levels; i++) {
		free(m->levels[i].offset);
		free(m->levels[i].length);
		free(m->levels[i].digest);
	}
	free(m->tokens);
	free(m);
}

/* Encoding */

int manifest_encoded_size(const struct manifest *m, size_t *size, struct lslm_error *err)
{
	size_t title = strnlen(m->title, sizeof(m->title));
	uint64_t n = HEADER_BYTES + MANIFEST_SIG_BYTES;

	if (title)
		n += SECTION_HEADER_BYTES + padded(title);
	n += SECTION_HEADER_BYTES + padded((size_t)m->n_tokens * sizeof(*m->tokens));
	n += m->n_levels * (SECTION_HEADER_BYTES + level_payload(m));
	if (n > MANIFEST_MAX_BYTES)
		return error_set(err, -E2BIG,
				 "manifest of %u tokens and %u layers has %llu bytes, at most %d "
				 "are allowed; use a shorter context",
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
	put_le32(p + AT_N_LAYER, m->geo.n_layer);
	put_le32(p + AT_N_HEAD_KV, m->geo.n_head_kv);
	put_le32(p + AT_HEAD_DIM, m->geo.head_dim);
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

static uint8_t *put_level(uint8_t *p, const struct manifest *m, const struct manifest_level *lv)
{
	size_t n_digests = (size_t)m->n_stripes * m->geo.n_layer;

	p = put_section(p, SECTION_LEVEL, SECTION_MUST_UNDERSTAND, level_payload(m));
	put_le32(p, lv->level);
	put_le32(p + 4, LEVEL_UNIT_BLOCK);
	p += LEVEL_HEADER_BYTES;
	for (uint32_t s = 0; s < m->n_stripes; s++, p += PLACE_BYTES) {
		put_le64(p, lv->offset[s]);
		put_le64(p + 8, lv->length[s]);
	}
	memcpy(p, lv->digest, n_digests * KV_HASH_BYTES);
	return p + n_digests * KV_HASH_BYTES;
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
	int ret = check_sizes(m, err);

	if (ret == 0)
		ret = check_title((const uint8_t *)m->title, title, err);
	if (ret == 0)
		ret = check_tokens(m, err);
	if (ret == 0 && m->n_levels != 1)
		ret = error_set(err, -EINVAL, "%u levels, this version writes one", m->n_levels);
	if (ret == 0)
		ret = check_level(m, &m->levels[0], err);
	if (ret == 0 && m->area_bytes != level_area(m, m->levels[0].level))
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
	m->geo.n_layer = get_le32(p + AT_N_LAYER);
	m->geo.n_head_kv = get_le32(p + AT_N_HEAD_KV);
	m->geo.head_dim = get_le32(p + AT_HEAD_DIM);
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
	ret = check_title(sec->data, sec->length, err);
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
	return check_tokens(m, err);
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
	if (get_le32(p + 4) != LEVEL_UNIT_BLOCK || get_le64(p + 8))
		return error_set(err, -EINVAL, "level %s: unknown form", kv_level_name(level));
	if (sec->length != level_payload(m))
		return error_set(err, -EINVAL, "level %s has %zu bytes, its size must be %llu",
				 kv_level_name(level), sec->length,
				 (unsigned long long)level_payload(m));
	m->n_levels++;
	if (alloc_level(lv, level, m->n_stripes, m->geo.n_layer) < 0)
		return error_set(err, -ENOMEM, "out of memory for a manifest of %u stripes",
				 m->n_stripes);
	p += LEVEL_HEADER_BYTES;
	for (uint32_t s = 0; s < m->n_stripes; s++, p += PLACE_BYTES) {
		lv->offset[s] = get_le64(p);
		lv->length[s] = get_le64(p + 8);
	}
	memcpy(lv->digest, p, (size_t)m->n_stripes * m->geo.n_layer * KV_HASH_BYTES);
	return check_level(m, lv, err);
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
	}
	if (sec->flags & SECTION_MUST_UNDERSTAND)
		return error_set(err, -EINVAL,
				 "manifest has section %u, which this program does not know and "
				 "must not ignore; a newer one is needed",
				 sec->type);
	*skipped = true;
	return 0;
}

/* Sections come in order of type and only levels repeat, so a context has one encoding. */
static int get_sections(struct manifest *m, const uint8_t *p, const uint8_t *end,
			struct lslm_error *err)
{
	bool skipped = false;
	uint32_t last = 0;
	uint64_t known = 0;

	while (p < end) {
		struct section sec = { 0 };
		int ret = next_section(&p, end, &sec, err);

		if (ret < 0)
			return ret;
		if (sec.type < last || (sec.type == last && sec.type < SECTION_LEVEL))
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
	for (uint32_t i = 0; i < m->n_levels; i++)
		known += level_area(m, m->levels[i].level);
	/* What was skipped may own more of the area. */
	if (m->area_bytes < known || (m->area_bytes > known && !skipped) ||
	    m->area_bytes >= AREA_LIMIT)
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
	ret = check_sizes(m, err);
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

static int match_identity(const struct kv_identity *theirs, const struct kv_identity *ours,
			  struct lslm_error *err)
{
	const struct {
		const struct kv_hash *theirs, *ours;
		const char *differs, *advice;
	} parts[] = {
		{ &theirs->model, &ours->model, "made for another model",
		  "publish it again with this model" },
		{ &theirs->tokenizer, &ours->tokenizer, "made with another tokenizer",
		  "publish it again with this model" },
		{ &theirs->rope, &ours->rope, "made with other rope parameters",
		  "publish it again with this model" },
		{ &theirs->map, &ours->map, "made through another cross-model map",
		  "publish it again with this map" },
		{ &theirs->salt, &ours->salt, "of another tenant",
		  "its salt must be the one given here" },
	};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		char a[KV_HASH_TEXT], b[KV_HASH_TEXT];

		if (kv_hash_equal(parts[i].theirs, parts[i].ours))
			continue;
		kv_hash_format(parts[i].theirs, a);
		kv_hash_format(parts[i].ours, b);
		return error_set(err, -ENOEXEC,
				 "context is %s (fingerprint %.8s..., here it is %.8s...); %s",
				 parts[i].differs, a, b, parts[i].advice);
	}
	return 0;
}

int manifest_match(const struct manifest *m, const struct kv_identity *identity,
		   const struct kv_geometry *geo, uint32_t n_vocab, struct lslm_error *err)
{
	struct kv_hash key;
	int ret = match_identity(&m->identity, identity, err);

	if (ret < 0)
		return ret;
	if (m->geo.n_layer != geo->n_layer || m->geo.n_head_kv != geo->n_head_kv ||
	    m->geo.head_dim != geo->head_dim)
		return error_set(err, -ENOEXEC,
				 "context has %u layers of %u KV heads of %u, this model %u of %u "
				 "of %u; publish it again with this model",
				 m->geo.n_layer, m->geo.n_head_kv, m->geo.head_dim, geo->n_layer,
				 geo->n_head_kv, geo->head_dim);
	for (uint32_t i = 0; i < m->n_tokens; i++)
		if ((uint32_t)m->tokens[i] >= n_vocab)
			return error_set(err, -ENOEXEC,
					 "context's token %u has the id %d, this model knows %u; "
					 "publish it again with this model",
					 i, m->tokens[i], n_vocab);
	key = kv_key(identity, m->tokens, m->n_tokens);
	if (!kv_hash_equal(&key, &m->key))
		return error_set(err, -ENOEXEC,
				 "context's key is not that of its tokens; its publisher must "
				 "publish it again");
	return 0;
}

const struct manifest_level *manifest_level(const struct manifest *m, enum kv_level level)
{
	for (uint32_t i = 0; i < m->n_levels; i++)
		if (m->levels[i].level == level)
			return &m->levels[i];
	return NULL;
}

const struct kv_hash *manifest_digest(const struct manifest *m, const struct manifest_level *lv,
				      uint32_t stripe, uint32_t layer)
{
	return &lv->digest[(size_t)stripe * m->geo.n_layer + layer];
}
