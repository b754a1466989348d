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
	LEVEL_UNIT_STRIPE = 1,
	PROOF_VERSION = 1,
	PROOF_HEADER_BYTES = 8,
	RUN_BYTES = 16,
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

/* Leaves room for everything else in the 63 bits of a file's size. */
#define AREA_LIMIT (UINT64_C(1) << 62)

static size_t padded(size_t n)
{
	return (n + SECTION_ALIGN - 1) & ~(size_t)(SECTION_ALIGN - 1);
}

static size_t units_of(const struct manifest *m, enum kv_level level)
{
	return (size_t)m->n_stripes * kv_level_units(&m->geo, level);
}

/* No overflow: limits on tokens and layers keep it below 2^35, and it is 64 bits wide everywhere. */
static uint64_t level_payload(const struct manifest *m, enum kv_level level)
{
	uint64_t unit = KV_HASH_BYTES, head = LEVEL_HEADER_BYTES;

	if (!kv_level_is_plain(level)) {
		unit += UNIT_BYTES;
		head += KV_HASH_BYTES;
	}
	return head + (uint64_t)m->n_stripes * PLACE_BYTES + units_of(m, level) * unit;
}

/* What an encoded unit has at most. */
static uint32_t unit_bound(const struct kv_geometry *geo, enum kv_level level, uint32_t unit)
{
	const uint64_t bytes = kv_level_units(geo, level) == geo->n_layer ?
				       kv_unit_bytes(geo, KV_LEVEL_F16, unit) :
				       kv_stripe_bytes(geo, KV_LEVEL_F16);

	return 2 * bytes < UINT32_MAX ? (uint32_t)(2 * bytes) : UINT32_MAX;
}

size_t manifest_unit_bytes(const struct manifest *m, const struct manifest_level *lv,
			   uint32_t stripe, uint32_t unit)
{
	return lv->unit_bytes ? lv->unit_bytes[(size_t)stripe * lv->n_units + unit] :
				kv_unit_bytes(&m->geo, lv->level, unit);
}

uint64_t manifest_unit_offset(const struct manifest *m, const struct manifest_level *lv,
			      uint32_t stripe, uint32_t unit)
{
	uint64_t at = 0;

	if (!lv->unit_bytes)
		return kv_unit_offset(&m->geo, lv->level, unit);
	for (uint32_t i = 0; i < unit; i++)
		at += manifest_unit_bytes(m, lv, stripe, i);
	return at;
}

/* Where a level begins behind what ends there. */
static uint64_t level_start(uint64_t end)
{
	return (end + MANIFEST_LEVEL_ALIGN - 1) & ~(uint64_t)(MANIFEST_LEVEL_ALIGN - 1);
}

/* Stripe follows stripe, without a gap, so this is all of them. Returns where they end. */
static uint64_t place_level(struct manifest *m, struct manifest_level *lv, uint64_t at)
{
	for (uint32_t s = 0; s < m->n_stripes; s++) {
		lv->offset[s] = at;
		lv->length[s] = manifest_unit_offset(m, lv, s, lv->n_units);
		at += lv->length[s];
	}
	return at;
}

void manifest_place(struct manifest *m, uint32_t n)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < n; i++)
		end = place_level(m, &m->levels[i], level_start(end));
	m->area_bytes = end;
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
	int ret = kv_geometry_check(&m->model_geo, err);

	if (ret == 0)
		ret = kv_run_check(&m->run, &m->model_geo, err);
	if (ret == 0)
		ret = kv_geometry_check(&m->geo, err);
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

/* Units of a size that can be, and stripes where their sizes put them; *end goes behind the level. */
static int check_level(const struct manifest *m, const struct manifest_level *lv, uint64_t *end,
		       struct lslm_error *err)
{
	uint64_t at = level_start(*end);

	for (size_t i = 0; lv->unit_bytes && i < units_of(m, lv->level); i++) {
		const uint32_t bound = unit_bound(&m->geo, lv->level, (uint32_t)(i % lv->n_units));

		if (!lv->unit_bytes[i] || lv->unit_bytes[i] > bound)
			return error_set(err, -EINVAL,
					 "level %s: unit %zu has %u bytes, not 1 to %u",
					 kv_level_name(lv->level), i, lv->unit_bytes[i], bound);
	}
	for (uint32_t s = 0; s < m->n_stripes; s++) {
		const uint64_t length = manifest_unit_offset(m, lv, s, lv->n_units);

		if (lv->offset[s] != at || lv->length[s] != length)
			return error_set(err, -EINVAL,
					 "level %s: stripe %u is not where its size puts it",
					 kv_level_name(lv->level), s);
		at += length;
		/* Below 2^59 until here: 2^18 stripes of at most 2^10 units of 32 bits each, or less. */
		if (at >= AREA_LIMIT)
			return error_set(err, -EINVAL, "size of the stripe area is wrong");
	}
	*end = at;
	return 0;
}

static int check_levels(const struct manifest *m, uint64_t *end, struct lslm_error *err)
{
	int ret = 0;

	*end = 0;
	for (uint32_t i = 0; i < m->n_levels && !ret; i++)
		ret = check_level(m, &m->levels[i], end, err);
	return ret;
}

static int alloc_level(const struct manifest *m, struct manifest_level *lv, enum kv_level level)
{
	const size_t n = units_of(m, level);

	/* One more than asked for, because calloc(0) may return NULL. */
	lv->level = level;
	lv->n_units = kv_level_units(&m->geo, level);
	lv->offset = calloc((size_t)m->n_stripes + 1, sizeof(*lv->offset));
	lv->length = calloc((size_t)m->n_stripes + 1, sizeof(*lv->length));
	lv->digest = calloc(n + 1, sizeof(*lv->digest));
	if (!kv_level_is_plain(level))
		lv->unit_bytes = calloc(n + 1, sizeof(*lv->unit_bytes));
	return lv->offset && lv->length && lv->digest &&
			       (lv->unit_bytes || kv_level_is_plain(level)) ?
		       0 :
		       -ENOMEM;
}

int manifest_add_level(struct manifest *m, enum kv_level level, struct lslm_error *err)
{
	const uint32_t n = m->n_levels;
	size_t encoded;
	int ret;

	if (n == MANIFEST_MAX_LEVELS || (n && m->levels[n - 1].level >= level))
		return error_set(err, -EINVAL, "levels of a context must be different");
	m->levels[n].level = level;
	m->n_levels++;
	/* Before memory is taken for what would be too much to write down. */
	ret = manifest_encoded_size(m, &encoded, err);
	if (ret < 0)
		return ret;
	if (alloc_level(m, &m->levels[n], level) < 0)
		return error_set(err, -ENOMEM, "out of memory for a context of %u tokens",
				 m->n_tokens);
	manifest_place(m, m->n_levels);
	return 0;
}

int manifest_new(struct manifest **out, const struct kv_geometry *geo, const int32_t *tokens,
		 uint32_t n_tokens, enum kv_level level, struct lslm_error *err)
{
	return manifest_new_run(out, geo, &(struct kv_run){ 0 }, tokens, n_tokens, level, err);
}

int manifest_new_run(struct manifest **out, const struct kv_geometry *model,
		     const struct kv_run *run, const int32_t *tokens, uint32_t n_tokens,
		     enum kv_level level, struct lslm_error *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	int ret;

	*out = NULL;
	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	m->model_geo = *model;
	m->run = *run;
	m->geo = kv_run_geometry(run, model);
	m->n_tokens = n_tokens;
	m->n_stripes = n_tokens / KV_BLOCK_TOKENS;
	ret = check_sizes(m, err);
	if (ret == 0)
		ret = manifest_add_level(m, level, err);
	if (ret < 0)
		goto err_free;
	m->tokens = malloc(n_tokens * sizeof(*tokens));
	if (!m->tokens) {
		ret = error_set(err, -ENOMEM, "out of memory for a context of %u tokens", n_tokens);
		goto err_free;
	}
	memcpy(m->tokens, tokens, n_tokens * sizeof(*tokens));
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
		free(m->levels[i].unit_bytes);
		free(m->levels[i].digest);
	}
	free(m->tokens);
	free(m);
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
		n += SECTION_HEADER_BYTES + RUN_BYTES;
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
	const size_t n = units_of(m, lv->level);
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
		p = put_section(p, SECTION_RUN, SECTION_MUST_UNDERSTAND, RUN_BYTES);
		put_le32(p, m->run.first);
		put_le32(p + 4, m->run.end);
		put_le32(p + 8, m->run.hidden);
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

static bool is_mapped(const struct manifest *m)
{
	static const struct kv_hash none;

	return !kv_hash_equal(&m->identity.map, &none);
}

/* A manifest that this program writes is one that it reads. */
static int check_encodable(const struct manifest *m, struct lslm_error *err)
{
	size_t title = strnlen(m->title, sizeof(m->title));
	uint64_t end = 0;
	int ret = check_sizes(m, err);

	if (ret == 0)
		ret = check_title((const uint8_t *)m->title, title, err);
	if (ret == 0)
		ret = check_tokens(m, err);
	if (ret == 0 && !m->n_levels)
		ret = error_set(err, -EINVAL, "a context without a level");
	if (ret == 0 && !kv_run_is_none(&m->run) && !is_mapped(m))
		ret = error_set(err, -EINVAL, "a run of layers of no other model");
	if (ret == 0 && m->proof.metric && !is_mapped(m))
		ret = error_set(err, -EINVAL, "an evaluation of a map, and no map");
	if (ret == 0)
		ret = check_levels(m, &end, err);
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

/* From a payload of the right size, behind its header. */
static void fill_level(const struct manifest *m, struct manifest_level *lv, const uint8_t *p)
{
	const size_t n = units_of(m, lv->level);

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
	if (alloc_level(m, lv, level) < 0)
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
	if (!is_mapped(m))
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
	if (sec->length != RUN_BYTES || get_le32(sec->data + 12))
		return error_set(err, -EINVAL, "run of layers: unknown form");
	m->run = (struct kv_run){ get_le32(sec->data), get_le32(sec->data + 4),
				  get_le32(sec->data + 8) };
	if (kv_run_is_none(&m->run) || !is_mapped(m))
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
	if (!ret)
		ret = kv_geometry_check(&m->model_geo, err);
	if (!ret)
		ret = kv_run_check(&m->run, &m->model_geo, err);
	if (!ret)
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
	ret = check_levels(m, &known, err);
	if (ret < 0)
		return ret;
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
	ret = find_run(m, p + HEADER_BYTES, end, err);
	if (ret == 0)
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
	if (memcmp(&m->model_geo, geo, sizeof(*geo)))
		return error_set(err, -ENOEXEC,
				 "context has %u layers of %u KV heads of %u, this model %u of %u "
				 "of %u; publish it again with this model",
				 m->model_geo.n_layer, m->model_geo.n_head_kv,
				 m->model_geo.head_dim, geo->n_layer, geo->n_head_kv,
				 geo->head_dim);
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

bool manifest_map_is_off(const struct manifest *m, struct lslm_error *why)
{
	char text[200];

	if (!is_mapped(m) || !m->proof.metric || proof_holds(&m->proof, text, sizeof(text)))
		return false;
	error_set(why, -ENOEXEC, "the map is off: %s", text);
	return true;
}

const struct manifest_level *manifest_level(const struct manifest *m, enum kv_level level)
{
	for (uint32_t i = 0; i < m->n_levels; i++)
		if (m->levels[i].level == level)
			return &m->levels[i];
	return NULL;
}

const struct kv_hash *manifest_digest(const struct manifest *m, const struct manifest_level *lv,
				      uint32_t stripe, uint32_t unit)
{
	return &lv->digest[(size_t)stripe * kv_level_units(&m->geo, lv->level) + unit];
}
