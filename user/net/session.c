// SPDX-License-Identifier: MIT
#include "net/session_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"

static const char *const drop_names[LSLM_DROP_COUNT] = {
	[LSLM_DROP_NONE] = "placed",	 [LSLM_DROP_HEADER] = "header",
	[LSLM_DROP_SESSION] = "session", [LSLM_DROP_KEY] = "key",
	[LSLM_DROP_REPLAY] = "replay",	 [LSLM_DROP_FORGED] = "forged",
	[LSLM_DROP_SLOT] = "slot",	 [LSLM_DROP_GENERATION] = "generation",
	[LSLM_DROP_BOUNDS] = "bounds",	 [LSLM_DROP_DUPLICATE] = "duplicate",
	[LSLM_DROP_MEMORY] = "memory",
};

const char *session_drop_name(enum lslm_drop drop)
{
	return drop < LSLM_DROP_COUNT ? drop_names[drop] : "unknown";
}

/* Can the module do it for buffers of this backend? */
static int probe_kernel(enum buffer_backend buffers, char why[SESSION_REASON_BYTES / 2])
{
	bool on = device_get() >= 0, can = device_info()->out_features >> LSLM_FEATURE_SESSION & 1;
	const char *reason = device_reason();

	if (buffers == BUFFER_MEMFD)
		reason = "the buffers are memfd";
	else if (on && !can)
		reason = device_off_reason(LSLM_FEATURE_SESSION);
	snprintf(why, SESSION_REASON_BYTES / 2, "%s", reason);
	return buffers != BUFFER_MEMFD && can ? 0 : -ENODEV;
}

int session_open(struct session **out, enum session_backend backend,
		 enum buffer_backend buffer_backend, int socket, uint32_t n_slots,
		 struct lslm_error *err)
{
	char why[SESSION_REASON_BYTES / 2] = "asked for", note[SESSION_REASON_BYTES / 2] = "";
	const struct session_backend_ops *ops = &session_twin_ops;
	struct lslm_error refused;
	int ret;

	if (!n_slots || n_slots > SESSION_SLOTS_MAX)
		return error_set(err, -EINVAL, "session: %u slots are not within 1 to %d", n_slots,
				 SESSION_SLOTS_MAX);
	if (backend != SESSION_TWIN) {
		ret = probe_kernel(buffer_backend, why);
		if (ret && backend == SESSION_KERNEL)
			return error_set(err, -ENODEV, "no kernel sessions here: %s", why);
		if (!ret)
			ops = &session_kernel_ops;
	}
	ret = ops->open(out, socket, n_slots, note, &refused);
	if (ret && backend == SESSION_AUTO && ops != &session_twin_ops) {
		snprintf(why, sizeof(why), "%s", refused.text);
		ops = &session_twin_ops;
		ret = ops->open(out, socket, n_slots, note, &refused);
	}
	if (ret)
		return error_set(err, ret, "%s", refused.text);
	(*out)->backend = ops;
	(*out)->n_slots = n_slots;
	snprintf((*out)->reason, SESSION_REASON_BYTES, "%s: %s%s%s", ops->name, why,
		 *note ? "; " : "", note);
	return 0;
}

void session_close(struct session *s)
{
	if (s)
		s->backend->close(s);
}

uint32_t session_number(const struct session *s)
{
	return s->number;
}

const char *session_backend_name(const struct session *s)
{
	return s->backend->name;
}

const char *session_backend_reason(const struct session *s)
{
	return s->reason;
}

void session_allow_plain(struct session *s)
{
	s->plain = true;
}

int session_key(struct session *s, uint32_t key, enum lslm_cipher cipher, const uint8_t *secret,
		uint64_t max_packets, uint32_t lifetime_s, struct lslm_error *err)
{
	if (key >= LSLM_WIRE_KEYS || cipher > LSLM_CIPHER_PLAIN)
		return error_set(err, -EINVAL, "session: no key %u of cipher %d", key, cipher);
	if (cipher == LSLM_CIPHER_CHACHA20POLY1305 && !secret)
		return error_set(err, -EINVAL, "session: key %u without a secret", key);
	if (cipher && (!max_packets || max_packets > LSLM_COUNTER_MAX + 1 || !lifetime_s ||
		       lifetime_s > SESSION_LIFETIME_MAX_S))
		return error_set(
			err, -EINVAL,
			"session: key %u for %llu datagrams and %u s: at most 2^48, and %d s", key,
			(unsigned long long)max_packets, lifetime_s, SESSION_LIFETIME_MAX_S);
	return s->backend->key(s, key, cipher, secret, max_packets, lifetime_s, err);
}

/* Bytes and chunks of all units; -EINVAL for a unit without bytes. */
static int measure(const struct session_region *r, uint64_t *bytes, uint64_t *chunks)
{
	if (!r->units) {
		*bytes = (uint64_t)r->n_units * r->unit_bytes;
		*chunks = (uint64_t)r->n_units * lslm_chunks_of(r->unit_bytes, r->chunk);
		return r->unit_bytes ? 0 : -EINVAL;
	}
	*bytes = *chunks = 0;
	for (uint32_t i = 0; i < r->n_units; i++) {
		if (!r->units[i])
			return -EINVAL;
		*bytes += r->units[i];
		*chunks += lslm_chunks_of(r->units[i], r->chunk);
	}
	return 0;
}

static int check_region(const struct session_region *r, struct lslm_error *err)
{
	uint64_t bytes, chunks;

	if (!r->n_units || r->n_units > LSLM_REGION_UNITS_MAX || r->chunk < LSLM_CHUNK_MIN ||
	    r->chunk > LSLM_CHUNK_MAX || r->chunk % LSLM_CHUNK_ALIGN || measure(r, &bytes, &chunks))
		return error_set(err, -EINVAL,
				 "session: %u units of %u bytes in chunks of %u are no region",
				 r->n_units, r->unit_bytes, r->chunk);
	if (!buffer_data(r->buffer))
		return error_set(err, -EACCES, "session: a buffer that can only be read");
	if (r->base > buffer_size(r->buffer) || bytes > buffer_size(r->buffer) - r->base)
		return error_set(err, -ERANGE,
				 "session: a region of %llu bytes at %llu leaves its buffer of %zu",
				 (unsigned long long)bytes, (unsigned long long)r->base,
				 buffer_size(r->buffer));
	if (bytes > LSLM_REGION_BYTES_MAX || chunks > LSLM_REGION_CHUNKS_MAX)
		return error_set(err, -EFBIG, "session: a region of %llu bytes is too large",
				 (unsigned long long)bytes);
	for (uint32_t i = 0; r->done && i < r->n_units; i++)
		if (!(r->done[i / 64] >> (i % 64) & 1))
			return 0;
	return r->done ? error_set(err, -EINVAL, "session: a region that is all there") : 0;
}

int session_bind(struct session *s, uint32_t slot, const struct session_region *region,
		 uint32_t *generation, struct lslm_error *err)
{
	uint32_t *units;
	int ret;

	if (slot >= s->n_slots)
		return error_set(err, -EINVAL, "session: no slot %u of %u", slot, s->n_slots);
	ret = check_region(region, err);
	if (ret)
		return ret;
	if (region->units)
		return s->backend->bind(s, slot, region, region->units, generation, err);
	units = malloc(region->n_units * sizeof(*units));
	if (!units)
		return error_set(err, -ENOMEM, "session: out of memory");
	for (uint32_t i = 0; i < region->n_units; i++)
		units[i] = region->unit_bytes;
	ret = s->backend->bind(s, slot, region, units, generation, err);
	free(units);
	return ret;
}

int session_unbind(struct session *s, uint32_t slot)
{
	return slot < s->n_slots ? s->backend->unbind(s, slot) : -EINVAL;
}

int session_missing(struct session *s, uint32_t slot, uint32_t generation, uint32_t from,
		    struct lslm_range *ranges, uint32_t max)
{
	if (slot >= s->n_slots || !max)
		return -EINVAL;
	return s->backend->missing(s, slot, generation, from, ranges, max);
}

int session_poll(struct session *s, uint64_t timeout_ns, const struct session_ops *ops, void *arg,
		 struct lslm_error *err)
{
	return s->backend->poll(s, timeout_ns, ops, arg, err);
}

void session_wake(struct session *s)
{
	s->backend->wake(s);
}

void session_progress(const struct session *s, struct session_progress *out)
{
	s->backend->progress(s, out);
}

int session_stats(struct session *s, struct session_stats *out)
{
	memset(out, 0, sizeof(*out));
	return s->backend->stats(s, out);
}
