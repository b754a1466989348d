/* SPDX-License-Identifier: MIT */
/*
 * Publishers: who signs contexts, and whose contexts are used.
 *
 * A publisher is an Ed25519 key pair. Its secret half is kept in a file of mode 0600
 * that is created whole and never overwritten; its public half is 64 hexadecimal
 * digits that gateways pin with --trust. The two forms cannot be mistaken for
 * each other: the secret file names its lines, a list of trusted keys has bare digits.
 *
 *   # lslm publisher key; keep it secret
 *   public 5f...
 *   secret 9d...            (the 32-byte seed)
 */
#ifndef LSLM_KV_PUBLISHER_H
#define LSLM_KV_PUBLISHER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/manifest.h"

struct publisher {
	uint8_t pubkey[MANIFEST_PUBKEY_BYTES];
	uint8_t seckey[MANIFEST_SECKEY_BYTES];
};

/* A new pair and its file. -EEXIST when the file is there: a lost key cannot be had back. */
int publisher_create(struct publisher *p, const char *path, struct lslm_error *err);

/*
 * -EACCES when others than the owner may read the file, -EINVAL when it is no key file or its
 * halves do not belong together.
 */
int publisher_load(struct publisher *p, const char *path, struct lslm_error *err);

/*
 * Load, or create with the directories above it when there is no file. A NULL path means
 * publisher_default_path(). Two processes that start at once end with the same key.
 */
int publisher_open(struct publisher *p, const char *path, struct lslm_error *err);
/* $XDG_CONFIG_HOME/lslm/publisher.key, malloc'd. */
int publisher_default_path(char **path, struct lslm_error *err);

/* Overwrite the secret. */
void publisher_wipe(struct publisher *p);

/* The public key as --trust takes it: 64 digits and a NUL. */
enum { PUBLISHER_TEXT = 2 * MANIFEST_PUBKEY_BYTES + 1 };
void publisher_key_text(const uint8_t pubkey[MANIFEST_PUBKEY_BYTES], char text[PUBLISHER_TEXT]);

/* The keys that are trusted; start with { NULL, 0 }. */
struct publisher_trust {
	uint8_t (*keys)[MANIFEST_PUBKEY_BYTES];
	size_t n;
};

/*
 * Add what one --trust names: a public key of 64 digits, or else a file with one per line,
 * where '#' starts a comment and blank lines are skipped. A file without a key is an error,
 * because it would silently trust nobody. A repeated key is kept once.
 */
int publisher_trust_add(struct publisher_trust *trust, const char *arg, struct lslm_error *err);
/*
 * The same, or with NULL, without a word from the user, only what this machine has published itself;
 * -EKEYREJECTED when it has not published.
 */
int publisher_trust_load(struct publisher_trust *trust, const char *arg, struct lslm_error *err);
void publisher_trust_free(struct publisher_trust *trust);

#endif
