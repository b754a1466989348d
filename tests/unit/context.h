/* SPDX-License-Identifier: MIT */
/*
 * The tiny context of docs/protocol.md, for the tests of everything that reads or makes one:
 * 2 layers of 1 KV head of 4, tokens 1, 2, ... and a fixed publisher.
 */
#ifndef LSLM_TESTS_CONTEXT_H
#define LSLM_TESTS_CONTEXT_H

#include <sodium.h>
#include <string.h>

#include "base/bytes.h"
#include "kv/manifest.h"

static const struct kv_geometry context_geo = { 2, 1, 4 };

static inline struct kv_identity context_identity(void)
{
	struct kv_identity id;

	memset(&id.model, 0x11, sizeof(id.model));
	memset(&id.tokenizer, 0x22, sizeof(id.tokenizer));
	memset(&id.rope, 0x33, sizeof(id.rope));
	memset(&id.map, 0, sizeof(id.map));
	memset(&id.salt, 0, sizeof(id.salt));
	return id;
}

/* Seed 00 01 02 ... 1f. */
static inline void context_publisher(uint8_t pubkey[MANIFEST_PUBKEY_BYTES],
				     uint8_t seckey[MANIFEST_SECKEY_BYTES])
{
	uint8_t seed[crypto_sign_SEEDBYTES];

	for (size_t i = 0; i < sizeof(seed); i++)
		seed[i] = (uint8_t)i;
	crypto_sign_seed_keypair(pubkey, seckey, seed);
}

/* Stripe s: every byte of block (s, l) has the value 16 s + l. */
static inline void context_stripe(const struct kv_geometry *geo, uint32_t s, uint8_t *stripe)
{
	size_t block_bytes = kv_block_bytes(geo, KV_LEVEL_F16);

	for (uint32_t l = 0; l < geo->n_layer; l++)
		memset(stripe + l * block_bytes, (int)(16 * s + l), block_bytes);
}

/* All but the signature. Returns 0 or what manifest_new() said. */
static inline int context_manifest(struct manifest **out, uint32_t n_tokens, const char *title,
				   struct lslm_error *err)
{
	static uint8_t stripe[2048];
	static int32_t tokens[1024];
	struct manifest *m;
	int ret;

	for (uint32_t i = 0; i < n_tokens; i++)
		tokens[i] = (int32_t)i + 1;
	ret = manifest_new(out, &context_geo, tokens, n_tokens, KV_LEVEL_F16, err);
	if (ret < 0)
		return ret;
	m = *out;
	m->identity = context_identity();
	m->created = 1700000000;
	strcpy(m->title, title);
	for (uint32_t s = 0; s < m->n_stripes; s++) {
		context_stripe(&m->geo, s, stripe);
		for (uint32_t l = 0; l < m->geo.n_layer; l++)
			m->levels[0].digest[s * m->geo.n_layer + l] =
				kv_digest(stripe + l * kv_block_bytes(&m->geo, KV_LEVEL_F16),
					  kv_block_bytes(&m->geo, KV_LEVEL_F16));
	}
	return 0;
}

#endif
