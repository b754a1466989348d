// SPDX-License-Identifier: MIT
/*
 * The user-space twin of the module's sessions: the same decisions (lslm/place.h), made by the
 * thread that polls. A datagram lies in a buffer of the intake; its payload is decrypted from there
 * to its place, after the tag was found right, and not before: a forged one changes no byte.
 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "lslm/place.h"
#include "net/intake.h"
#include "net/seal.h"
#include "net/session_backend.h"

/* What a row of the table needs besides struct lslm_slot. */
struct binding {
	struct buffer *buffer; /* held; NULL: nothing bound */
	uint8_t *base;
	void *tables;
};

struct twin {
	struct session session;
	struct intake *intake;
	struct lslm_receiver rx;
	struct binding *bindings; /* [n_slots] */
	uint8_t secrets[LSLM_WIRE_KEYS][LSLM_WIRE_KEY_BYTES];
	uint64_t by_ring;
	/* Of the poll that runs. */
	const struct session_ops *ops;
	void *arg;
};

static struct twin *twin_of(struct session *s)
{
	return (struct twin *)s;
}

static void twin_close(struct session *s)
{
	struct twin *t = twin_of(s);

	intake_close(t->intake);
	for (uint32_t i = 0; t->bindings && i < t->rx.n_slots; i++)
		if (t->bindings[i].buffer)
			s->backend->unbind(s, i);
	sodium_memzero(t->secrets, sizeof(t->secrets));
	free(t->bindings);
	free(t->rx.slots);
	free(t);
}

static int twin_open(struct session **out, int socket, uint32_t n_slots,
		     char note[SESSION_REASON_BYTES / 2], struct lslm_error *err)
{
	struct twin *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return error_set(err, -ENOMEM, "session: out of memory");
	t->session.backend = &session_twin_ops;
	t->rx.n_slots = n_slots;
	t->rx.slots = calloc(n_slots, sizeof(*t->rx.slots));
	t->bindings = calloc(n_slots, sizeof(*t->bindings));
	ret = t->rx.slots && t->bindings ? 0 : error_set(err, -ENOMEM, "session: out of memory");
	/* It picks the fastest code for this processor, too. */
	if (!ret && sodium_init() < 0)
		ret = error_set(err, -EIO, "session: libsodium does not start");
	if (!ret)
		ret = intake_open(&t->intake, socket, err);
	if (ret) {
		twin_close(&t->session);
		return ret;
	}
	do {
		randombytes_buf(&t->rx.session, sizeof(t->rx.session));
	} while (!t->rx.session);
	t->session.number = t->rx.session;
	snprintf(note, SESSION_REASON_BYTES / 2, "receives with %s", intake_path(t->intake));
	*out = &t->session;
	return 0;
}

static int twin_key(struct session *s, uint32_t key, enum lslm_cipher cipher, const uint8_t *secret,
		    uint64_t max_packets, uint32_t lifetime_s, struct lslm_error *err)
{
	struct lslm_rx_key *k = &twin_of(s)->rx.keys[key];
	uint8_t *own = twin_of(s)->secrets[key];

	if (cipher == LSLM_CIPHER_PLAIN && !s->plain)
		return error_set(err, -EOPNOTSUPP, "session: datagrams must be authenticated");
	sodium_memzero(own, LSLM_WIRE_KEY_BYTES);
	memset(k, 0, sizeof(*k));
	if (cipher == LSLM_CIPHER_NONE)
		return 0;
	if (cipher == LSLM_CIPHER_CHACHA20POLY1305)
		memcpy(own, secret, LSLM_WIRE_KEY_BYTES);
	k->cipher = cipher;
	k->in_use = 1;
	k->max_packets = max_packets;
	k->expires_ns = clock_ns() + lifetime_s * 1000000000ULL;
	return 0;
}

/* 0 is "never": nothing is ever bound under it. */
static void next_generation(struct lslm_slot *slot)
{
	if (!++slot->generation)
		slot->generation = 1;
}

static int twin_unbind(struct session *s, uint32_t slot)
{
	struct binding *b = &twin_of(s)->bindings[slot];
	struct lslm_slot *row = &twin_of(s)->rx.slots[slot];

	if (!b->buffer)
		return -ENOENT;
	row->bound = 0;
	next_generation(row);
	buffer_release(b->buffer, NULL);
	free(b->tables);
	memset(b, 0, sizeof(*b));
	return 0;
}

static int hold(struct buffer *b, struct lslm_error *err)
{
	bool retained;
	int ret = buffer_hold(b, &retained, NULL, err);

	if (ret || retained)
		return ret;
	buffer_release(b, NULL);
	return error_set(err, -ESTALE, "session: the buffer was purged");
}

static int twin_bind(struct session *s, uint32_t slot, const struct session_region *region,
		     const uint32_t *units, uint32_t *generation, struct lslm_error *err)
{
	struct lslm_slot *row = &twin_of(s)->rx.slots[slot];
	struct binding *b = &twin_of(s)->bindings[slot];
	uint32_t length, n_chunks;
	void *tables;
	int ret;

	if (!lslm_region_fits(units, region->n_units, region->chunk, &length, &n_chunks))
		return error_set(err, -EINVAL, "session: this is no region");
	tables = calloc(1, lslm_region_bytes(region->n_units, n_chunks));
	if (!tables)
		return error_set(err, -ENOMEM, "session: out of memory");
	ret = hold(region->buffer, err);
	if (ret) {
		free(tables);
		return ret;
	}
	twin_unbind(s, slot);
	lslm_region_init(&row->region, tables, units, region->n_units, region->chunk, n_chunks);
	for (uint32_t i = 0; region->done && i < region->n_units; i++)
		if (region->done[i / 64] >> (i % 64) & 1)
			lslm_region_skip_unit(&row->region, i);
	b->buffer = region->buffer;
	b->base = (uint8_t *)buffer_data(region->buffer) + region->base;
	b->tables = tables;
	row->bound = 1;
	next_generation(row);
	*generation = row->generation;
	return 0;
}

static int twin_missing(struct session *s, uint32_t slot, uint32_t generation, uint32_t from,
			struct lslm_range *ranges, uint32_t max)
{
	const struct lslm_slot *row = &twin_of(s)->rx.slots[slot];

	if (!row->bound || row->generation != generation)
		return -ESTALE;
	return (int)lslm_region_missing(&row->region, from, ranges, max);
}

/*
 * Chunks come in order, mostly, and to memory that nobody has used lately: fetching the next place
 * while its datagram is still on the way takes 5 % off the whole cost of one. A wrong guess costs nothing.
 */
static void expect_at(const uint8_t *place, uint32_t length)
{
	for (uint32_t i = 0; i < length; i += 64)
		__builtin_prefetch(place + i, 1);
}

/* Is the tag right? Then, and only then, the payload is written, if it has a place. */
static bool open_to(const struct twin *t, const struct lslm_placement *p, const uint8_t *packet,
		    uint32_t size)
{
	const uint8_t *secret = t->secrets[p->header.key];
	bool plain = p->key->cipher == LSLM_CIPHER_PLAIN;
	uint8_t *place;

	if (!plain && seal_check(packet, size, secret))
		return false;
	if (p->verdict)
		return true;
	place = t->bindings[p->header.slot].base + p->header.offset;
	if (plain)
		memcpy(place, packet + LSLM_WIRE_HEADER, p->length);
	else
		seal_take(place, packet, size, secret);
	expect_at(place + p->length, p->length);
	return true;
}

static void place(struct twin *t, const uint8_t *packet, uint32_t size, uint64_t now_ns)
{
	struct lslm_placement p;
	struct session_done done;

	if (lslm_place_check(&t->rx, packet, size, now_ns, &p))
		return;
	if (!open_to(t, &p, packet, size)) {
		lslm_place_forged(&t->rx);
		return;
	}
	lslm_place_commit(&t->rx, &p, now_ns);
	if (!p.unit_done || !t->ops->done)
		return;
	done = (struct session_done){ p.header.slot, p.header.generation, p.unit };
	t->ops->done(t->arg, &done);
}

static void take(void *arg, uint8_t *packet, uint32_t size, uint64_t now_ns)
{
	struct twin *t = arg;

	if (size && packet[0] != LSLM_OP_DATA) {
		if (t->ops->control)
			t->ops->control(t->arg, packet, size);
		return;
	}
	t->by_ring++;
	place(t, packet, size, now_ns);
}

static int twin_poll(struct session *s, uint64_t timeout_ns, const struct session_ops *ops,
		     void *arg, struct lslm_error *err)
{
	struct twin *t = twin_of(s);

	t->ops = ops;
	t->arg = arg;
	return intake_wait(t->intake, timeout_ns, take, t, err);
}

static void twin_wake(struct session *s)
{
	intake_wake(twin_of(s)->intake);
}

static void twin_progress(const struct session *s, struct session_progress *out)
{
	const struct twin *t = (const struct twin *)s;

	*out = (struct session_progress){
		.received = t->rx.received,
		.last_counter = t->rx.last_counter,
		.last_ns = t->rx.last_ns,
		.placed_bytes = t->rx.placed_bytes,
	};
}

static int twin_stats(struct session *s, struct session_stats *out)
{
	const struct twin *t = twin_of(s);

	out->received = t->rx.received;
	out->placed = t->rx.placed_packets;
	out->placed_bytes = t->rx.placed_bytes;
	out->units = t->rx.units_done;
	out->by_ring = t->by_ring;
	memcpy(out->drops, t->rx.drops, sizeof(out->drops));
	return 0;
}

const struct session_backend_ops session_twin_ops = {
	.name = "twin",
	.open = twin_open,
	.close = twin_close,
	.key = twin_key,
	.bind = twin_bind,
	.unbind = twin_unbind,
	.missing = twin_missing,
	.poll = twin_poll,
	.wake = twin_wake,
	.progress = twin_progress,
	.stats = twin_stats,
};
