// SPDX-License-Identifier: MIT
#include "net/keyring.h"

#include <string.h>

#include "net/seal.h"

#define SECOND 1000000000ULL
/* The cloud may still be sending with the old key when it gets the first word under the new one. */
#define OVERLAP (10 * SECOND)

static void set_key(struct keyring *k, const struct grant_keys *keys, uint64_t data, uint64_t now)
{
	struct keyring_key *key = &k->keys[keys->key];

	*key = (struct keyring_key){
		.in_use = true,
		.since_ns = now,
		.expires_ns = now + keys->lifetime_s * SECOND,
		.first_data = data,
		.first_control = k->counter,
		.end = keys->max_packets,
	};
	memcpy(key->to_edge, keys->to_edge, sizeof(key->to_edge));
	memcpy(key->to_cloud, keys->to_cloud, sizeof(key->to_cloud));
	k->newest = keys->key;
	k->used_ns = 0;
}

void keyring_init(struct keyring *k, const struct grant_keys *first, uint64_t now)
{
	memset(k, 0, sizeof(*k));
	set_key(k, first, 0, now);
}

void keyring_wipe(struct keyring *k)
{
	explicit_bzero(k, sizeof(*k));
}

int keyring_add(struct keyring *k, const struct grant_keys *keys, uint64_t data, uint64_t now)
{
	uint32_t next = (k->newest + 1) % LSLM_WIRE_KEYS;

	if (keys->max_packets <= data || keys->max_packets <= k->counter)
		return -EPROTO;
	/* Two are in use at most: the one before the newest has ended by now. */
	if (keys->key != k->newest &&
	    (keys->key != next || k->keys[(next + 2) % LSLM_WIRE_KEYS].in_use))
		return -EPROTO;
	set_key(k, keys, data, now);
	return 0;
}

static bool mostly_used(uint64_t first, uint64_t end, uint64_t at)
{
	uint64_t quarter = (end - first) / 4;

	return at >= end || end - at <= quarter;
}

bool keyring_is_due(const struct keyring *k, uint64_t data, uint64_t now)
{
	const struct keyring_key *key = &k->keys[k->newest];

	/* Its predecessor must end first, or three would be in use. */
	if (k->keys[(k->newest + LSLM_WIRE_KEYS - 1) % LSLM_WIRE_KEYS].in_use)
		return false;
	return mostly_used(key->since_ns, key->expires_ns, now) ||
	       mostly_used(key->first_data, key->end, data) ||
	       mostly_used(key->first_control, key->end, k->counter);
}

uint32_t keyring_retire(struct keyring *k, uint64_t data, uint64_t now)
{
	uint32_t old = (k->newest + LSLM_WIRE_KEYS - 1) % LSLM_WIRE_KEYS;
	struct keyring_key *key = &k->keys[old];
	bool replaced = k->used_ns && now - k->used_ns >= OVERLAP;

	if (!key->in_use || (!replaced && now < key->expires_ns && data < key->end))
		return LSLM_WIRE_KEYS;
	explicit_bzero(key, sizeof(*key));
	return old;
}

long keyring_seal(struct keyring *k, enum lslm_opcode opcode, uint32_t session, uint32_t number,
		  const uint8_t *payload, size_t size, uint8_t *packet, uint64_t now)
{
	struct keyring_key *key = &k->keys[k->newest];
	const struct lslm_header h = {
		.opcode = (uint8_t)opcode,
		.version = LSLM_WIRE_VERSION,
		.key = (uint8_t)k->newest,
		.session = session,
		.counter = k->counter | LSLM_COUNTER_CONTROL,
		.generation = number,
	};

	if (now >= key->expires_ns || k->counter >= key->end)
		return -EKEYEXPIRED;
	if (!k->used_ns)
		k->used_ns = now;
	k->counter++;
	return (long)seal_packet(packet, &h, payload, size, key->to_cloud);
}

long keyring_open(struct keyring *k, struct lslm_header *h, uint32_t session, uint8_t *packet,
		  size_t size, uint64_t now)
{
	struct keyring_key *key;
	uint64_t counter;
	long n;

	if (size < LSLM_WIRE_OVERHEAD)
		return -EBADMSG;
	lslm_header_get(h, packet);
	key = &k->keys[h->key % LSLM_WIRE_KEYS];
	counter = h->counter & ~LSLM_COUNTER_CONTROL;
	if (h->version != LSLM_WIRE_VERSION || h->flags || h->key >= LSLM_WIRE_KEYS ||
	    h->session != session || counter == h->counter || !key->in_use ||
	    now >= key->expires_ns || !lslm_replay_ok(&key->replay, counter))
		return -EBADMSG;
	n = seal_open(packet + LSLM_WIRE_HEADER, packet, size, key->to_edge);
	if (n >= 0)
		lslm_replay_mark(&key->replay, counter);
	return n;
}
