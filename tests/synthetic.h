/* SPDX-License-Identifier: MIT */
/*
 * Contexts of any shape without a model, for tests of what carries them: tokens and values are
 * functions of a seed, the publisher's key pair too.
 */
#ifndef LSLM_TESTS_SYNTHETIC_H
#define LSLM_TESTS_SYNTHETIC_H

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/lskv.h"

struct synthetic {
	uint32_t n_layer, n_head_kv, head_dim, n_tokens;
	uint8_t seed; /* of tokens and values: another context */
	uint8_t publisher; /* another signer */
	uint8_t salt; /* of another tenant; 0: none */
};

static inline void synthetic_keys(const struct synthetic *x, uint8_t pub[MANIFEST_PUBKEY_BYTES],
				  uint8_t sec[MANIFEST_SECKEY_BYTES])
{
	uint8_t seed[crypto_sign_SEEDBYTES];

	memset(seed, 0xc0 + x->publisher, sizeof(seed));
	crypto_sign_seed_keypair(pub, sec, seed);
}

static inline void synthetic_pubkey(const struct synthetic *x, uint8_t pub[MANIFEST_PUBKEY_BYTES])
{
	uint8_t sec[MANIFEST_SECKEY_BYTES];

	synthetic_keys(x, pub, sec);
}

/* stripe_bytes of stripe s; no two of its blocks are equal. */
static inline void synthetic_stripe(const struct synthetic *x, uint32_t s, uint8_t *data)
{
	const struct kv_geometry geo = { x->n_layer, x->n_head_kv, x->head_dim };
	size_t size = kv_stripe_bytes(&geo, KV_LEVEL_F16), i;
	uint64_t v = (uint64_t)x->seed << 32 | (s + 1);

	for (i = 0; i + 8 <= size; i += 8) {
		v = v * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(data + i, &v, 8);
	}
}

struct synthetic_writer {
	const struct synthetic *shape;
	uint8_t *stripe;
};

static inline const void *synthetic_next(void *arg, uint32_t lv, uint32_t s)
{
	struct synthetic_writer *w = arg;

	synthetic_stripe(w->shape, s, w->stripe);
	return w->stripe;
}

static inline int synthetic_write(const struct synthetic *x, const char *path, struct kv_hash *key,
				  struct lslm_error *err)
{
	const struct kv_geometry geo = { x->n_layer, x->n_head_kv, x->head_dim };
	uint8_t pub[MANIFEST_PUBKEY_BYTES], sec[MANIFEST_SECKEY_BYTES];
	struct synthetic_writer w = { x, malloc(kv_stripe_bytes(&geo, KV_LEVEL_F16)) };
	int32_t *tokens = malloc(x->n_tokens * sizeof(*tokens));
	struct manifest *m = NULL;
	uint32_t i;
	int ret;

	for (i = 0; i < x->n_tokens; i++)
		tokens[i] = (int32_t)((i * 7 + x->seed * 13) % 500);
	synthetic_keys(x, pub, sec);
	ret = manifest_new(&m, &geo, tokens, x->n_tokens, KV_LEVEL_F16, err);
	if (!ret) {
		strcpy(m->title, "synthetic");
		memset(m->identity.salt.b, x->salt, sizeof(m->identity.salt.b));
		ret = lskv_write(path, m, sec, synthetic_next, &w, err);
		*key = m->key;
	}
	manifest_free(m);
	free(tokens);
	free(w.stripe);
	return ret;
}

/* Into the store of a cloud, which may be running: as FOLDER/KEY.lskv, whole or not at all. */
static inline int synthetic_put(const struct synthetic *x, const char *folder,
				char key[KV_HASH_TEXT], struct lslm_error *err)
{
	char from[256], to[256];
	struct kv_hash k;
	int ret;

	snprintf(from, sizeof(from), "%s.new", folder);
	ret = synthetic_write(x, from, &k, err);
	if (ret)
		return ret;
	kv_hash_format(&k, key);
	snprintf(to, sizeof(to), "%s/%s.lskv", folder, key);
	return rename(from, to) ? error_sys(err, -errno, "%s", to) : 0;
}

#endif
