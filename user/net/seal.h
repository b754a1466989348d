/* SPDX-License-Identifier: MIT */
/*
 * A placement datagram, sealed and opened: ChaCha20-Poly1305 with the header as associated data
 * and the counter as nonce (docs/protocol.md, section 9). Pure, with libsodium's primitives;
 * which counter, which key and what a header may say is the caller's business.
 */
#ifndef LSLM_NET_SEAL_H
#define LSLM_NET_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "lslm/wire.h"

/*
 * Header, ciphertext and tag to packet, which has room for payload size + LSLM_WIRE_OVERHEAD bytes.
 * The payload may already lie at packet + LSLM_WIRE_HEADER. Returns the datagram's size.
 */
size_t seal_packet(uint8_t *packet, const struct lslm_header *h, const uint8_t *payload,
		   size_t size, const uint8_t key[LSLM_WIRE_KEY_BYTES]);

/* 0, or -EBADMSG: too short, or not made with this key. Writes nothing. */
int seal_check(const uint8_t *packet, size_t size, const uint8_t key[LSLM_WIRE_KEY_BYTES]);

/*
 * The payload of a datagram that seal_check() accepted: size - LSLM_WIRE_OVERHEAD bytes to
 * payload, which may be the packet's own place.
 */
void seal_take(uint8_t *payload, const uint8_t *packet, size_t size,
	       const uint8_t key[LSLM_WIRE_KEY_BYTES]);

/* Both: the payload's size, or -EBADMSG, and then nothing was written. */
long seal_open(uint8_t *payload, const uint8_t *packet, size_t size,
	       const uint8_t key[LSLM_WIRE_KEY_BYTES]);

#endif
