// SPDX-License-Identifier: MIT
#include "kv/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "kv/manifest_internal.h"

size_t manifest_units(const struct manifest *m, enum kv_level level)
{
	return (size_t)m->n_stripes * kv_level_units(&m->geo, level);
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

int manifest_check_title(const uint8_t *s, size_t n, struct lslm_error *err)
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
int manifest_check_sizes(const struct manifest *m, struct lslm_error *err)
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

int manifest_check_tokens(const struct manifest *m, struct lslm_error *err)
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

	for (size_t i = 0; lv->unit_bytes && i < manifest_units(m, lv->level); i++) {
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
		if (at >= MANIFEST_AREA_LIMIT)
			return error_set(err, -EINVAL, "size of the stripe area is wrong");
	}
	*end = at;
	return 0;
}

int manifest_check_levels(const struct manifest *m, uint64_t *end, struct lslm_error *err)
{
	int ret = 0;

	*end = 0;
	for (uint32_t i = 0; i < m->n_levels && !ret; i++)
		ret = check_level(m, &m->levels[i], end, err);
	return ret;
}

int manifest_alloc_level(const struct manifest *m, struct manifest_level *lv, enum kv_level level)
{
	const size_t n = manifest_units(m, level);

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
	if (manifest_alloc_level(m, &m->levels[n], level) < 0)
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
	ret = manifest_check_sizes(m, err);
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

bool manifest_is_mapped(const struct manifest *m)
{
	return !kv_hash_is_zero(&m->identity.map);
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
	/* A tenant's name is nobody else's to read, not even a part of it. */
	return kv_hash_equal(&theirs->salt, &ours->salt) ?
		       0 :
		       error_set(
			       err, -ENOEXEC,
			       "context is of another tenant; its salt must be the one given here");
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

	if (!manifest_is_mapped(m) || !m->proof.metric ||
	    proof_holds(&m->proof, text, sizeof(text)))
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
