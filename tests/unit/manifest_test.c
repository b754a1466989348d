// SPDX-License-Identifier: MIT
#include "unit/unit.h"
#include "unit/context.h"

#include "base/hex.h"
#include "kv/manifest.h"

/* Positions in the encoding, from the tables of docs/protocol.md and not from the code. */
enum {
	HEADER = 296,
	TITLE = HEADER, /* section "tiny", padded to 8 */
	TOKENS = TITLE + 16 + 8,
	LEVEL = TOKENS + 16 + 66 * 4,
	SIGNATURE = LEVEL + 16 + 16 + 16 + 64,
	SIZE = SIGNATURE + 64,
};

struct encoded {
	uint8_t pubkey[MANIFEST_PUBKEY_BYTES];
	uint8_t seckey[MANIFEST_SECKEY_BYTES];
	uint8_t *data;
	size_t size;
};

static int setup(void **state)
{
	struct encoded *e = calloc(1, sizeof(*e));
	struct lslm_error err = { 0 };
	struct manifest *m;

	context_publisher(e->pubkey, e->seckey);
	assert_ok(context_manifest(&m, 66, "tiny", &err), &err);
	assert_ok(manifest_encode(m, e->seckey, &e->data, &e->size, &err), &err);
	manifest_free(m);
	assert_int_equal(e->size, SIZE);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct encoded *e = *state;

	free(e->data);
	free(e);
	return 0;
}

static void resign(struct encoded *e)
{
	static const char domain[] = "lslm manifest signature v1";
	struct kv_hash h = kv_digest(e->data, e->size - 64);
	uint8_t message[sizeof(domain) - 1 + 32];

	memcpy(message, domain, sizeof(domain) - 1);
	memcpy(message + sizeof(domain) - 1, h.b, 32);
	crypto_sign_detached(e->data + e->size - 64, NULL, message, sizeof(message), e->seckey);
}

/* Replace `remove` bytes at `at` by `insert` bytes of data; the size field follows. */
static void splice(struct encoded *e, size_t at, size_t remove, const void *data, size_t insert)
{
	size_t size = e->size - remove + insert;
	uint8_t *p = malloc(size);

	memcpy(p, e->data, at);
	memcpy(p + at, data, insert);
	memcpy(p + at + insert, e->data + at + remove, e->size - at - remove);
	free(e->data);
	e->data = p;
	e->size = size;
	put_le64(p + 16, size);
}

static void put_section(uint8_t *p, uint32_t type, uint32_t flags, uint64_t length)
{
	put_le32(p, type);
	put_le32(p + 4, flags);
	put_le64(p + 8, length);
}

static void assert_refused(const struct encoded *e, const char *line)
{
	struct lslm_error err = { 0 };
	struct manifest *m;

	assert_int_equal(manifest_parse(&m, e->data, e->size, &err), -EINVAL);
	assert_null(m);
	if (line)
		assert_string_equal(err.text, line);
}

static void assert_accepted(const struct encoded *e)
{
	struct lslm_error err = { 0 };
	struct manifest *m;

	assert_ok(manifest_parse(&m, e->data, e->size, &err), &err);
	manifest_free(m);
}

static void encode__round_trip(void **state)
{
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	struct kv_identity id = context_identity();
	struct manifest *m;
	struct kv_hash key;
	uint8_t *again;
	size_t size;

	assert_ok(manifest_parse(&m, e->data, e->size, &err), &err);
	assert_memory_equal(&m->identity, &id, sizeof(id));
	key = kv_key(&id, m->tokens, 66);
	assert_true(kv_hash_equal(&m->key, &key));
	assert_memory_equal(&m->geo, &context_geo, sizeof(m->geo));
	assert_int_equal(m->n_tokens, 66);
	assert_int_equal(m->tokens[65], 66);
	assert_int_equal(m->n_stripes, 1);
	assert_int_equal(m->n_levels, 1);
	assert_int_equal(m->area_bytes, 2048);
	assert_int_equal(m->created, 1700000000);
	assert_string_equal(m->title, "tiny");
	assert_memory_equal(m->publisher, e->pubkey, 32);
	assert_memory_equal(m->signature, e->data + SIGNATURE, 64);
	assert_ptr_equal(manifest_level(m, KV_LEVEL_F16), &m->levels[0]);
	assert_null(manifest_level(m, 7));
	assert_ptr_equal(manifest_digest(m, &m->levels[0], 0, 1), &m->levels[0].digest[1]);
	assert_ok(manifest_encode(m, e->seckey, &again, &size, &err), &err);
	assert_int_equal(size, e->size);
	assert_memory_equal(again, e->data, size);
	free(again);
	manifest_free(m);
}

/* docs/protocol.md prints this; a change here is a change of the format. */
static void encode__documented_example(void **state)
{
	struct encoded *e = *state;
	struct kv_hash h = kv_digest(e->data, e->size - 64);
	char text[2 * 64 + 1];

	kv_hash_format(&h, text);
	assert_string_equal(text,
			    "f5a645390e2424e6c7bea938660954ffb7c110f4af21bf50cecf930bc19aea2d");
	hex_format(text, e->data + 232, 32);
	assert_string_equal(text,
			    "2565c2088a9308d09666ea295a66d0c36ae749cb1548670122e602c655779c6c");
	hex_format(text, e->pubkey, 32);
	assert_string_equal(text,
			    "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
	hex_format(text, e->data + SIGNATURE, 64);
	assert_string_equal(
		text,
		"01f54a058669a2640d705b1e3da92225c7a52d908ab4075600fc7882c475c440c20940bf6e3d8dbade1b57dc56ad6cfaa9072e4a27318bee92f2c055f858b90b");
}

static void encode__sizes(void **state)
{
	static const uint32_t n_tokens[] = { 1, 2, 63, 64, 65, 127, 128, 1000 };
	struct encoded *e = *state;

	for (size_t i = 0; i < ARRAY_LEN(n_tokens); i++) {
		struct lslm_error err = { 0 };
		struct manifest *m, *back;
		size_t size, predicted;
		uint8_t *data;

		assert_ok(context_manifest(&m, n_tokens[i], "", &err), &err);
		assert_ok(manifest_encoded_size(m, &predicted, &err), &err);
		assert_ok(manifest_encode(m, e->seckey, &data, &size, &err), &err);
		assert_int_equal(size, predicted);
		assert_ok(manifest_parse(&back, data, size, &err), &err);
		assert_int_equal(back->n_stripes, n_tokens[i] / 64);
		assert_memory_equal(back->tokens, m->tokens, 4 * n_tokens[i]);
		assert_string_equal(back->title, "");
		manifest_free(back);
		manifest_free(m);
		free(data);
	}
}

static void encode__refuses_what_parse_would(void **state)
{
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	struct manifest *m;
	uint8_t *data;
	size_t size;

	assert_ok(context_manifest(&m, 66, "two\nlines", &err), &err);
	assert_int_equal(manifest_encode(m, e->seckey, &data, &size, &err), -EINVAL);
	assert_string_equal(err.text, "title holds a control character (U+000A)");
	strcpy(m->title, "fine");
	m->tokens[3] = -1;
	assert_int_equal(manifest_encode(m, e->seckey, &data, &size, &err), -EINVAL);
	assert_string_equal(err.text, "token 3 has the negative id -1");
	m->tokens[3] = 1;
	m->levels[0].length[0]--;
	assert_int_equal(manifest_encode(m, e->seckey, &data, &size, &err), -EINVAL);
	m->levels[0].length[0]++;
	m->area_bytes++;
	assert_int_equal(manifest_encode(m, e->seckey, &data, &size, &err), -EINVAL);
	manifest_free(m);
}

static void new__limits(void **state)
{
	const struct kv_geometry wide = { KV_MAX_LAYERS, 1, 1 }, none = { 0, 1, 1 };
	struct lslm_error err = { 0 };
	int32_t token = 1;
	struct manifest *m;

	assert_int_equal(manifest_new(&m, &context_geo, &token, 0, KV_LEVEL_F16, &err), -EINVAL);
	assert_int_equal(manifest_new(&m, &none, &token, 1, KV_LEVEL_F16, &err), -EINVAL);
	assert_null(m);
	/* Refused by its numbers, so that the tokens are never looked at. */
	assert_int_equal(manifest_new(&m, &context_geo, &token, KV_MAX_TOKENS + 1, KV_LEVEL_F16,
				      &err),
			 -EINVAL);
	assert_int_equal(manifest_new(&m, &wide, &token, KV_MAX_TOKENS, KV_LEVEL_F16, &err),
			 -E2BIG);
	manifest_free(NULL);
}

static void parse__every_truncation(void **state)
{
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	struct manifest *m;

	for (size_t n = 0; n < e->size; n++) {
		/* A copy of exactly n bytes, so that the sanitizer sees a read past them. */
		uint8_t *cut = malloc(n ? n : 1);

		memcpy(cut, e->data, n);
		assert_int_equal(manifest_parse(&m, cut, n, &err), -EINVAL);
		if (n >= HEADER + 64) {
			/* The same with a size field that goes along with it. */
			put_le64(cut + 16, n);
			assert_int_equal(manifest_parse(&m, cut, n, &err), -EINVAL);
		}
		free(cut);
	}
}

static void parse__trailing_bytes(void **state)
{
	struct encoded *e = *state;
	char line[128];

	splice(e, e->size, 0, "\0\0\0\0\0\0\0\0", 8);
	assert_refused(e, "manifest has 8 bytes after its last section");
	put_le64(e->data + 16, e->size - 8);
	snprintf(line, sizeof(line), "manifest says that it has %zu bytes, there are %zu",
		 e->size - 8, e->size);
	assert_refused(e, line);
}

/* One 32-bit field changed, signed again: the parser has to see it by itself. */
static void parse__fields(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		const char *line;
	} cases[] = {
		{ 0, 0x4d4c534b, "is no manifest" },
		{ 4, 0x494e414e, "is no manifest" },
		{ 8, 2, "manifest is of version 2, this program reads 1" },
		{ 8, 0, "manifest is of version 0, this program reads 1" },
		{ 12, 304, "manifest's header has a field that version 1 does not allow" },
		{ 20, 1, NULL }, /* high half of the size */
		{ 24, 1, "manifest's header has a field that version 1 does not allow" },
		{ 28, 128, "manifest's header has a field that version 1 does not allow" },
		{ 52, 1, "manifest's header has a field that version 1 does not allow" },
		{ 32, 0, "geometry: number of layers is 0, must be 1 to 1024" },
		{ 32, 3, NULL },
		{ 36, 2, "level f16: stripe 0 is not where its size puts it" },
		{ 40, 1025, "geometry: head size is 1025, must be 1 to 1024" },
		{ 44, 0, "number of tokens is 0, must be 1 to 16777216" },
		{ 44, 67, "manifest has 264 bytes of tokens for 67 tokens" },
		{ 44, 0xffffffff, "number of tokens is 4294967295, must be 1 to 16777216" },
		{ 48, 0, "0 stripes do not match 66 tokens" },
		{ 48, 2, "2 stripes do not match 66 tokens" },
		{ 56, 2047, "size of the stripe area is wrong" },
		{ 56, 2049, "size of the stripe area is wrong" },
		{ 60, 1, "size of the stripe area is wrong" },
		{ TITLE, 9, "manifest's sections are not in order" },
		{ TITLE + 4, 1, "title has the flags 0x1, must be 0" },
		{ TOKENS + 4, 0, "tokens have the flags 0, must be 1" },
		{ LEVEL + 4, 2, "manifest's section 3 has unknown flags 0x2" },
		{ TITLE + 4, 2, "manifest's section 1 has unknown flags 0x2" },
		{ TITLE + 8, 0, "title is there and empty" },
		{ TITLE + 8, 3, "manifest's section 1 has dirty padding" },
		{ TITLE + 12, 1, "manifest's section 1 is longer than the manifest" },
		{ TITLE + 16, 0x0a797461, "title holds a control character (U+000A)" },
		{ TITLE + 16, 0x80808080, "title is not valid UTF-8" },
		{ TITLE + 20, 1, "manifest's section 1 has dirty padding" },
		{ TOKENS, 1, "manifest's sections are not in order" },
		{ TOKENS + 8, 263, "manifest has 263 bytes of tokens for 66 tokens" },
		{ TOKENS + 12, 0xffffffff, "manifest's section 2 is longer than the manifest" },
		{ TOKENS + 16 + 4 * 65, 0x80000000, "token 65 has the negative id -2147483648" },
		{ LEVEL, 2, "manifest's sections are not in order" },
		{ LEVEL, 9,
		  "manifest has section 9, which this program does not know and must not ignore; a "
		  "newer one is needed" },
		{ LEVEL + 8, 8, NULL },
		{ LEVEL + 8, 104, NULL },
		{ LEVEL + 16, 1, "level q8: stripe 0 is not where its size puts it" },
		{ LEVEL + 16, 4, "level p: unknown form" },
		{ LEVEL + 16, KV_LEVELS,
		  "manifest needs level 5, which this program does not read; a newer one is "
		  "needed" },
		{ LEVEL + 20, 1, "level f16: unknown form" },
		{ LEVEL + 24, 1, "level f16: unknown form" },
		{ LEVEL + 32, 64, "level f16: stripe 0 is not where its size puts it" },
		{ LEVEL + 36, 1, "level f16: stripe 0 is not where its size puts it" },
		{ LEVEL + 40, 2047, "level f16: stripe 0 is not where its size puts it" },
	};
	struct encoded *e = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint32_t old = get_le32(e->data + cases[i].at);

		assert_int_not_equal(old, cases[i].value);
		put_le32(e->data + cases[i].at, cases[i].value);
		resign(e);
		assert_refused(e, cases[i].line);
		put_le32(e->data + cases[i].at, old);
	}
	assert_accepted(e);
}

/* Two stripes at f16, q4, e and p; units of e and p have 7, 8, ... bytes. */
static void make_levels(struct encoded *e)
{
	static const enum kv_level more[] = { KV_LEVEL_Q4, KV_LEVEL_E, KV_LEVEL_P };
	struct lslm_error err = { 0 };
	struct manifest *m;

	free(e->data);
	assert_ok(context_manifest(&m, 130, "", &err), &err);
	for (size_t i = 0; i < ARRAY_LEN(more); i++) {
		struct manifest_level *lv = &m->levels[i + 1];

		assert_ok(manifest_add_level(m, more[i], &err), &err);
		for (uint32_t u = 0; lv->unit_bytes && u < 2 * lv->n_units; u++)
			lv->unit_bytes[u] = 7 + u;
		for (uint32_t u = 0; u < 2 * lv->n_units; u++)
			lv->digest[u].b[0] = (uint8_t)(more[i] * 16 + u);
		lv->calibration.b[31] = (uint8_t)more[i];
		if (!lv->unit_bytes)
			lv->calibration.b[31] = 0;
	}
	manifest_place(m, m->n_levels);
	assert_ok(manifest_encode(m, e->seckey, &e->data, &e->size, &err), &err);
	manifest_free(m);
}

/* Where the payload of the n-th level begins. */
static size_t level_at(const struct encoded *e, uint32_t n)
{
	size_t at = HEADER;

	while (get_le32(e->data + at) != 3 || n--)
		at += 16 + (get_le64(e->data + at + 8) + 7) / 8 * 8;
	return at + 16;
}

static void encode__round_trip_of_levels(void **state)
{
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	const struct manifest_level *lv;
	struct manifest *m;
	uint64_t all = 0;
	uint8_t *again;
	size_t size;

	make_levels(e);
	assert_ok(manifest_parse(&m, e->data, e->size, &err), &err);
	assert_int_equal(m->n_levels, 4);
	lv = manifest_level(m, KV_LEVEL_E);
	assert_int_equal(lv->n_units, 2);
	assert_int_equal(lv->length[1], 9 + 10);
	assert_int_equal(lv->offset[1], lv->offset[0] + 7 + 8);
	assert_int_equal(manifest_unit_offset(m, lv, 1, 1), 9);
	assert_int_equal(manifest_digest(m, lv, 1, 1)->b[0], 16 * KV_LEVEL_E + 3);
	assert_int_equal(lv->calibration.b[31], KV_LEVEL_E);
	lv = manifest_level(m, KV_LEVEL_P);
	assert_int_equal(lv->n_units, 1);
	assert_int_equal(lv->length[1], 8);
	assert_int_equal(m->area_bytes, lv->offset[1] + 8);
	assert_null(manifest_level(m, KV_LEVEL_Q8));
	for (uint32_t i = 0; i < m->n_levels; i++)
		all += manifest_level_bytes(m, &m->levels[i]);
	/* Nothing else but header, tokens and signature. */
	assert_int_equal(all, e->size - HEADER - (16 + 130 * 4) - 64);
	assert_ok(manifest_encode(m, e->seckey, &again, &size, &err), &err);
	assert_int_equal(size, e->size);
	assert_memory_equal(again, e->data, size);
	free(again);
	manifest_free(m);
}

/* Whoever knows none but f16 skips the others: bit 0 is clear there. */
static void encode__only_f16_must_be_understood(void **state)
{
	struct encoded *e = *state;

	make_levels(e);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(get_le32(e->data + level_at(e, i) - 12), !i);
}

static void parse__fields_of_levels(void **state)
{
	/* Of the level so far behind the first; the header has 16 bytes, that of e and p 32 more. */
	static const struct {
		uint32_t level;
		size_t at;
		uint32_t value;
		const char *line;
	} cases[] = {
		{ 1, 0, KV_LEVEL_F16, "manifest's levels are not in order" },
		{ 1, 0, KV_LEVEL_E, "level e has 176 bytes, its size must be 224" },
		{ 1, 4, 1, "level q4: unknown form" },
		{ 1, 16, 4097, "level q4: stripe 0 is not where its size puts it" },
		{ 1, 24, 1, "level q4: stripe 0 is not where its size puts it" },
		{ 2, 4, 1, "level e: unknown form" },
		{ 2, 8, 1, "level e: unknown form" },
		{ 2, 48, 0, "level e: stripe 0 is not where its size puts it" },
		{ 2, 52, 0x80000000, "level e: stripe 0 is not where its size puts it" },
		{ 2, 48 + 8, 16, "level e: stripe 0 is not where its size puts it" },
		{ 2, 48 + 16, 1, "level e: stripe 1 is not where its size puts it" },
		/* Lengths of units stand behind two places and four digests. */
		{ 2, 48 + 32 + 128, 0, "level e: unit 0 has 0 bytes, not 1 to 2048" },
		{ 2, 48 + 32 + 128 + 4, 2049, "level e: unit 1 has 2049 bytes, not 1 to 2048" },
		{ 2, 48 + 32 + 128 + 12, 0xffffffff,
		  "level e: unit 3 has 4294967295 bytes, not 1 to 2048" },
		{ 2, 48 + 32 + 128 + 4, 9, "level e: stripe 0 is not where its size puts it" },
		{ 3, 4, 0, "level p: unknown form" },
		{ 3, 48 + 32 + 64, 4097, "level p: unit 0 has 4097 bytes, not 1 to 4096" },
		{ 3, 48 + 32 + 64 + 4, 9, "level p: stripe 1 is not where its size puts it" },
	};
	struct encoded *e = *state;

	make_levels(e);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t *at = e->data + level_at(e, cases[i].level) + cases[i].at;
		uint32_t old = get_le32(at);

		assert_int_not_equal(old, cases[i].value);
		put_le32(at, cases[i].value);
		resign(e);
		assert_refused(e, cases[i].line);
		put_le32(at, old);
	}
	assert_accepted(e);
}

static void parse__sections_missing_or_twice(void **state)
{
	struct encoded *e = *state;
	uint8_t copy[512];

	/* Tokens twice. */
	memcpy(copy, e->data + TOKENS, LEVEL - TOKENS);
	splice(e, LEVEL, 0, copy, LEVEL - TOKENS);
	assert_refused(e, "manifest's sections are not in order");
	splice(e, LEVEL, LEVEL - TOKENS, "", 0);
	assert_accepted(e);
	/* The same level twice. */
	memcpy(copy, e->data + LEVEL, SIGNATURE - LEVEL);
	splice(e, SIGNATURE, 0, copy, SIGNATURE - LEVEL);
	assert_refused(e, "manifest's levels are not in order");
	splice(e, SIGNATURE, SIGNATURE - LEVEL, "", 0);
	assert_accepted(e);
	/* No level, no tokens, no title: only the last is allowed. */
	splice(e, LEVEL, SIGNATURE - LEVEL, "", 0);
	assert_refused(e, "context is on offer at no level that this program reads; a newer one "
			  "is needed");
	splice(e, LEVEL, 0, copy, SIGNATURE - LEVEL);
	memcpy(copy, e->data + TOKENS, LEVEL - TOKENS);
	splice(e, TOKENS, LEVEL - TOKENS, "", 0);
	assert_refused(e, "manifest has no tokens");
	splice(e, TOKENS, 0, copy, LEVEL - TOKENS);
	splice(e, TITLE, TOKENS - TITLE, "", 0);
	assert_accepted(e);
}

/* What a later version may add without breaking this one. */
static void parse__unknown_sections(void **state)
{
	struct encoded *e = *state;
	uint8_t extra[32] = { 0 };

	put_section(extra, 77, 0, 11);
	memcpy(extra + 16, "hello world", 11);
	splice(e, SIGNATURE, 0, extra, 32);
	assert_accepted(e);
	/* It may own a part of the stripe area. */
	put_le64(e->data + 56, 4096);
	assert_accepted(e);
	put_le64(e->data + 56, (UINT64_C(1) << 62) - 1);
	assert_accepted(e);
	put_le64(e->data + 56, UINT64_C(1) << 62);
	assert_refused(e, "size of the stripe area is wrong");
	put_le64(e->data + 56, 2047);
	assert_refused(e, "size of the stripe area is wrong");
	put_le64(e->data + 56, 2048);
	e->data[SIGNATURE + 4] = 1;
	assert_refused(e, "manifest has section 77, which this program does not know and must not "
			  "ignore; a newer one is needed");
	e->data[SIGNATURE + 4] = 0;
	e->data[SIGNATURE + 31] = 1;
	assert_refused(e, "manifest's section 77 has dirty padding");
	e->data[SIGNATURE + 31] = 0;
	/* A level of a later version, of any size. */
	put_section(e->data + SIGNATURE, 3, 0, 16);
	memset(e->data + SIGNATURE + 16, 0, 16);
	put_le32(e->data + SIGNATURE + 16, 5);
	assert_accepted(e);
	put_section(e->data + SIGNATURE, 3, 0, 15);
	assert_refused(e, "manifest's level has 15 bytes");
}

static void parse__random_damage(void **state)
{
	struct encoded *e = *state;
	uint32_t random = 1;

	/* Any one flipped bit is refused by parse or by verify; none may crash either. */
	for (size_t i = 0; i < e->size * 8; i++) {
		const uint8_t(*trusted)[32] = (const uint8_t(*)[32]) & e->pubkey;
		struct manifest *m = NULL;

		e->data[i / 8] ^= 1 << i % 8;
		manifest_parse(&m, e->data, e->size, NULL);
		manifest_free(m);
		assert_int_not_equal(manifest_verify(e->data, e->size, trusted, 1, NULL), 0);
		e->data[i / 8] ^= 1 << i % 8;
	}
	for (int round = 0; round < 20000; round++) {
		struct manifest *m = NULL;
		uint8_t old[4];
		size_t at[4];

		for (int k = 0; k < 4; k++) {
			random = random * 1664525 + 1013904223;
			at[k] = (random >> 8) % (HEADER + 64);
			old[k] = e->data[at[k]];
			e->data[at[k]] = (uint8_t)(random >> 24);
		}
		manifest_parse(&m, e->data, e->size, NULL);
		manifest_free(m);
		for (int k = 3; k >= 0; k--)
			e->data[at[k]] = old[k];
	}
	assert_accepted(e);
}

static void title__table(void **state)
{
	static const struct {
		const char *title;
		int ret;
	} cases[] = {
		{ "Handbook of hall 3", 0 },
		{ "Betriebshandbuch \xc3\xbc", 0 },
		{ "\xe6\x89\x8b\xe5\x86\x8c \xf0\x9f\x94\xa7", 0 },
		{ "\xc2\xa0", 0 },
		{ "tab\t", -EINVAL },
		{ "\x7f", -EINVAL },
		{ "\xc2\x9b", -EINVAL }, /* C1: a terminal's CSI */
		{ "\xe2\x80\xae", -EINVAL }, /* right-to-left override */
		{ "\xe2\x80\xa8", -EINVAL }, /* line separator */
		{ "\xe2\x81\xa6", -EINVAL }, /* isolate */
		{ "\xe2\x80\xaf", 0 },
		{ "\x80", -EINVAL },
		{ "\xc3", -EINVAL },
		{ "\xc3(", -EINVAL },
		{ "\xc0\xaf", -EINVAL }, /* overlong */
		{ "\xe0\x9f\xbf", -EINVAL },
		{ "\xf0\x8f\xbf\xbf", -EINVAL },
		{ "\xed\xa0\x80", -EINVAL }, /* surrogate */
		{ "\xed\x9f\xbf", 0 },
		{ "\xee\x80\x80", 0 },
		{ "\xf4\x8f\xbf\xbf", 0 },
		{ "\xf4\x90\x80\x80", -EINVAL }, /* beyond U+10FFFF */
		{ "\xf8\x88\x80\x80\x80", -EINVAL },
		{ "\xff", -EINVAL },
	};
	struct encoded *e = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct lslm_error err = { 0 };
		struct manifest *m;
		uint8_t *data;
		size_t size;
		int ret;

		assert_ok(context_manifest(&m, 5, cases[i].title, &err), &err);
		ret = manifest_encode(m, e->seckey, &data, &size, &err);
		if (ret != cases[i].ret)
			fail_msg("title %zu: %d: %s", i, ret, err.text);
		if (ret == 0)
			free(data);
		manifest_free(m);
	}
}

static void title__longest(void **state)
{
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	uint8_t section[16 + 136] = { 0 };
	struct manifest *m;
	uint8_t *data;
	char title[128];
	size_t size;

	memset(title, 'x', 127);
	title[127] = 0;
	assert_ok(context_manifest(&m, 5, title, &err), &err);
	assert_ok(manifest_encode(m, e->seckey, &data, &size, &err), &err);
	free(data);
	memset(m->title, 'x', sizeof(m->title)); /* not terminated */
	assert_int_equal(manifest_encode(m, e->seckey, &data, &size, &err), -EINVAL);
	manifest_free(m);
	put_section(section, 1, 0, 128);
	memset(section + 16, 'x', 128);
	splice(e, TITLE, TOKENS - TITLE, section, 16 + 128);
	assert_refused(e, "title has 128 bytes, at most 127 are allowed");
}

static void set_title__makes_any_text_valid(void **state)
{
	static const struct {
		const char *text, *title;
	} cases[] = {
		{ "", "" },
		{ "plain \xc3\xbc", "plain \xc3\xbc" },
		{ "two\nlines\x1b[31m", "two?lines?[31m" },
		{ "\xff\xc3", "??" },
		{ "a\xe2\x80\xaez", "a?z" },
	};
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	struct manifest *m;
	uint8_t *data;
	char text[256];
	size_t size;

	assert_ok(context_manifest(&m, 5, "something longer than the cases", &err), &err);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		manifest_set_title(m, cases[i].text);
		assert_string_equal(m->title, cases[i].title);
	}
	/* 126 bytes, then a character of two: it does not fit and is left out whole. */
	memset(text, 'x', 126);
	strcpy(text + 126, "\xc3\xbcyz");
	manifest_set_title(m, text);
	assert_int_equal(strlen(m->title), 126);
	strcpy(text + 125, "\xc3\xbcyz");
	manifest_set_title(m, text);
	assert_int_equal(strlen(m->title), 127);
	assert_ok(manifest_encode(m, e->seckey, &data, &size, &err), &err);
	free(data);
	manifest_free(m);
}

static void verify__table(void **state)
{
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	uint8_t trusted[2][32];

	memset(trusted[0], 0x77, 32);
	memcpy(trusted[1], e->pubkey, 32);
	assert_ok(manifest_verify(e->data, e->size, (const uint8_t(*)[32])trusted, 2, &err), &err);
	assert_int_equal(manifest_verify(e->data, e->size, (const uint8_t(*)[32])trusted, 1, &err),
			 -EKEYREJECTED);
	assert_string_equal(err.text,
			    "context is signed by publisher 03a107bff3ce10be..., which is not "
			    "trusted; name its whole public key with --trust to accept it");
	assert_int_equal(manifest_verify(e->data, e->size, NULL, 0, &err), -EKEYREJECTED);
	assert_string_equal(err.text, "no publisher is trusted; name the public key of one with "
				      "--trust");
	e->data[TOKENS + 16] ^= 2;
	assert_int_equal(manifest_verify(e->data, e->size, (const uint8_t(*)[32])trusted, 2, &err),
			 -EKEYREJECTED);
	assert_string_equal(err.text, "signature of publisher 03a107bff3ce10be... is wrong: the "
				      "manifest was damaged or changed; fetch or publish it again");
	assert_int_equal(manifest_verify(e->data, 100, (const uint8_t(*)[32])trusted, 2, &err),
			 -EINVAL);
}

/* A foreign publisher who writes a trusted one's key into the manifest cannot sign for him. */
static void verify__borrowed_publisher(void **state)
{
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	uint8_t foreign[32];

	crypto_sign_keypair(foreign, e->seckey);
	resign(e);
	assert_int_equal(manifest_verify(e->data, e->size, (const uint8_t(*)[32]) & e->pubkey, 1,
					 &err),
			 -EKEYREJECTED);
}

static void match__names_what_differs(void **state)
{
	static const struct {
		size_t at; /* in struct kv_identity */
		const char *line;
	} cases[] = {
		{ offsetof(struct kv_identity, model),
		  "context is made for another model (fingerprint 11111111..., here it is "
		  "ee111111...); publish it again with this model" },
		{ offsetof(struct kv_identity, tokenizer),
		  "context is made with another tokenizer (fingerprint 22222222..., here it is "
		  "dd222222...); publish it again with this model" },
		{ offsetof(struct kv_identity, rope),
		  "context is made with other rope parameters (fingerprint 33333333..., here it is "
		  "cc333333...); publish it again with this model" },
		{ offsetof(struct kv_identity, map),
		  "context is made through another cross-model map (fingerprint 00000000..., here "
		  "it is ff000000...); publish it again with this map" },
		{ offsetof(struct kv_identity, salt),
		  "context is of another tenant; its salt must be the one given here" },
	};
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	struct manifest *m;

	assert_ok(manifest_parse(&m, e->data, e->size, &err), &err);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct kv_identity id = context_identity();

		((uint8_t *)&id)[cases[i].at] ^= 0xff;
		assert_int_equal(manifest_match(m, &id, &context_geo, 100, &err), -ENOEXEC);
		assert_string_equal(err.text, cases[i].line);
	}
	manifest_free(m);
}

static void match__rest(void **state)
{
	const struct kv_identity id = context_identity();
	const struct kv_geometry other[] = { { 3, 1, 4 }, { 2, 2, 4 }, { 2, 1, 8 } };
	struct encoded *e = *state;
	struct lslm_error err = { 0 };
	struct manifest *m;

	assert_ok(manifest_parse(&m, e->data, e->size, &err), &err);
	assert_ok(manifest_match(m, &id, &context_geo, 67, &err), &err);
	assert_int_equal(manifest_match(m, &id, &context_geo, 66, &err), -ENOEXEC);
	assert_string_equal(err.text, "context's token 65 has the id 66, this model knows 66; "
				      "publish it again with this model");
	for (size_t i = 0; i < ARRAY_LEN(other); i++)
		assert_int_equal(manifest_match(m, &id, &other[i], 67, &err), -ENOEXEC);
	assert_string_equal(err.text, "context has 2 layers of 1 KV heads of 4, this model 2 of 1 "
				      "of 8; publish it again with this model");
	m->tokens[0] = 2;
	assert_int_equal(manifest_match(m, &id, &context_geo, 67, &err), -ENOEXEC);
	assert_string_equal(err.text, "context's key is not that of its tokens; its publisher must "
				      "publish it again");
	manifest_free(m);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(encode__round_trip),
		TEST(encode__documented_example),
		TEST(encode__sizes),
		TEST(encode__refuses_what_parse_would),
		TEST(new__limits),
		TEST(parse__every_truncation),
		TEST(parse__trailing_bytes),
		TEST(parse__fields),
		TEST(encode__round_trip_of_levels),
		TEST(encode__only_f16_must_be_understood),
		TEST(parse__fields_of_levels),
		TEST(parse__sections_missing_or_twice),
		TEST(parse__unknown_sections),
		TEST(parse__random_damage),
		TEST(title__table),
		TEST(title__longest),
		TEST(set_title__makes_any_text_valid),
		TEST(verify__table),
		TEST(verify__borrowed_publisher),
		TEST(match__names_what_differs),
		TEST(match__rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
