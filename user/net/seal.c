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

/*
 * In two steps because libsodium's one call fills the output with zeroes when the tag is wrong,
 * and the output may hold what another datagram has brought. The two do the work of the one: the
 * first block of the key stream gives the key of the tag, the others the payload's.
 */
int seal_check(const uint8_t *packet, size_t size, const uint8_t key[LSLM_WIRE_KEY_BYTES])
{
	uint8_t nonce[NONCE_BYTES];

	if (size < LSLM_WIRE_OVERHEAD)
		return -EBADMSG;
	nonce_of(nonce, packet);
	if (crypto_aead_chacha20poly1305_ietf_decrypt_detached(
		    NULL, NULL, packet + LSLM_WIRE_HEADER, size - LSLM_WIRE_OVERHEAD,
		    packet + size - LSLM_WIRE_TAG, packet, LSLM_WIRE_HEADER, nonce, key) < 0)
		return -EBADMSG;
	return 0;
}

void seal_take(uint8_t *payload, const uint8_t *packet, size_t size,
	       const uint8_t key[LSLM_WIRE_KEY_BYTES])
{
	uint8_t nonce[NONCE_BYTES];

	nonce_of(nonce, packet);
	crypto_stream_chacha20_ietf_xor_ic(payload, packet + LSLM_WIRE_HEADER,
					   size - LSLM_WIRE_OVERHEAD, nonce, 1, key);
}

long seal_open(uint8_t *payload, const uint8_t *packet, size_t size,
	       const uint8_t key[LSLM_WIRE_KEY_BYTES])
{
	int ret = seal_check(packet, size, key);

	if (ret)
		return ret;
	seal_take(payload, packet, size, key);
	return (long)(size - LSLM_WIRE_OVERHEAD);
}
