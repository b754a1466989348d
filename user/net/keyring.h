/* SPDX-License-Identifier: MIT */
/*
 * The keys of a session as its edge uses them: to seal what goes to the cloud, to open the
 * control datagrams that come from there, and to know when the next pair is due (docs/protocol.md,
 * section 9, "Key change"). DATA is the session's business (net/session.h), which is given the same
 * keys; how far their counters have come is told from there.
 *
 * Pure: no I/O, no clock; times are ns of one monotonic clock. A key's secrets are wiped when it ends.
 */
#ifndef LSLM_NET_KEYRING_H
#define LSLM_NET_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lslm/replay.h"
#include "lslm/wire.h"
#include "net/grant.h"

struct keyring_key {
	bool in_use;
	uint8_t to_edge[LSLM_WIRE_KEY_BYTES];
	uint8_t to_cloud[LSLM_WIRE_KEY_BYTES];
	uint64_t since_ns, expires_ns;
	/* Counters of DATA and of what goes to the cloud when it came, and which neither may reach. */
	uint64_t first_data, first_control, end;
	struct lslm_replay replay; /* of control datagrams from the cloud */
};

struct keyring {
	struct keyring_key keys[LSLM_WIRE_KEYS];
	uint32_t newest;
	uint64_t counter; /* of the next control datagram, without its top bit */
	uint64_t used_ns; /* when something was first sent with the newest; 0: not yet */
};

/* With the keys of the grant. */
void keyring_init(struct keyring *k, const struct grant_keys *first, uint64_t now);
void keyring_wipe(struct keyring *k);

/*
 * The next pair, or another one in place of the newest, used for sending from now on; data: DATA counters
 * below it are used up. -EPROTO: it is neither, or used up already, or the oldest is still in use.
 */
int keyring_add(struct keyring *k, const struct grant_keys *keys, uint64_t data, uint64_t now);

/* Are three quarters of the newest pair used? data as above. */
bool keyring_is_due(const struct keyring *k, uint64_t data, uint64_t now);
/*
 * The number of a key that has to end now, because it is used up or its successor has been used for
 * long enough; it is forgotten here. LSLM_WIRE_KEYS: none has to.
 */
uint32_t keyring_retire(struct keyring *k, uint64_t data, uint64_t now);

/*
 * Seal with the newest pair: session is the cloud's number; packet has room for payload size +
 * LSLM_WIRE_OVERHEAD bytes. The datagram's size, or -EKEYEXPIRED.
 */
long keyring_seal(struct keyring *k, enum lslm_opcode opcode, uint32_t session, uint32_t number,
		  const uint8_t *payload, size_t size, uint8_t *packet, uint64_t now);
/*
 * Open a control datagram from the cloud, in its place: the payload's size, at packet +
 * LSLM_WIRE_HEADER. -EBADMSG for whatever is not one of this session, authentic and new.
 */
long keyring_open(struct keyring *k, struct lslm_header *h, uint32_t session, uint8_t *packet,
		  size_t size, uint64_t now);

#endif
