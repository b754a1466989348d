// SPDX-License-Identifier: MIT
#include "net/seal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <sodium.h>

enum { AT_COUNTER = 8, NONCE_BYTES = crypto_aead_chacha20poly1305_ietf_NPUBBYTES };

static_assert(crypto_aead_chacha20poly1305_ietf_ABYTES == LSLM_WIRE_TAG, "tag of RFC 8439");
static_assert(crypto_aead_chacha20poly1305_ietf_KEYBYTES == LSLM_WIRE_KEY_BYTES, "its key");

static void nonce_of(uint8_t nonce[NONCE_BYTES], const uint8_t *header)
{
	memset(nonce, 0, 4);
	memcpy(nonce + 4, header + AT_COUNTER, 8);
}

size_t seal_packet(uint8_t *packet, const struct lslm_header *h, const uint8_t *payload,
		   size_t size, const uint8_t key[LSLM_WIRE_KEY_BYTES])
{
	uint8_t nonce[NONCE_BYTES];

	lslm_header_put(packet, h);
	nonce_of(nonce, packet);
	crypto_aead_chacha20poly1305_ietf_encrypt(packet + LSLM_WIRE_HEADER, NULL, payload, size,
						  packet, LSLM_WIRE_HEADER, NULL, nonce, key);
	return size + LSLM_WIRE_OVERHEAD;
}

long seal_open(uint8_t *payload, const uint8_t *packet, size_t size,
	       const uint8_t key[LSLM_WIRE_KEY_BYTES])
{
	uint8_t nonce[NONCE_BYTES];

	if (size < LSLM_WIRE_OVERHEAD)
		return -EBADMSG;
	nonce_of(nonce, packet);
	if (crypto_aead_chacha20poly1305_ietf_decrypt(
		    payload, NULL, NULL, packet + LSLM_WIRE_HEADER, size - LSLM_WIRE_HEADER, packet,
		    LSLM_WIRE_HEADER, nonce, key) < 0)
		return -EBADMSG;
	return (long)(size - LSLM_WIRE_OVERHEAD);
}
