// SPDX-License-Identifier: MIT
#include "net/sender_session.h"

#include <sodium.h>
#include <string.h>
#include <sys/uio.h>

#include "net/seal.h"

#define MS     1000000ULL
#define SECOND (1000 * MS)

enum {
	/* An address that is not proved gets so many times what came from it. */
	AMPLIFY = 3,
	HELLO_EVERY_MS = 20,
};

/* UDP payloads that are tried, docs/protocol.md. */
static const uint16_t probe_sizes[] = { 1200, 1232, 1352, 1400, 1452, 1472, 4096, 8952 };

void sender_session_init(struct sender_session *s, struct lskv *file, uint32_t edge,
			 const struct sockaddr *granted_to, const struct sender_limits *limits,
			 struct sender_stats *stats, uint64_t now)
{
	uint64_t hash[4];

	s->file = file;
	s->edge = edge;
	s->limits = limits;
	s->stats = stats;
	s->heard_ns = now;
	s->dry = true;
	if (granted_to)
		memcpy(&s->granted_to, granted_to,
		       granted_to->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
							   sizeof(struct sockaddr_in));
	randombytes_buf(hash, sizeof(hash));
	sendqueue_init(&s->queue, hash);
	congestion_init(&s->congestion);
}

void sender_session_fini(struct sender_session *s)
{
	sodium_memzero(s->keys, sizeof(s->keys));
}

/* ---- keys ---- */

static struct sender_key *previous_key(struct sender_session *s)
{
	return &s->keys[(s->newest + LSLM_WIRE_KEYS - 1) % LSLM_WIRE_KEYS];
}

/* When the newest has been used for long enough, the one before it ends. */
static void end_old_key(struct sender_session *s, uint64_t now)
{
	const struct sender_key *newest = &s->keys[s->newest];

	if (newest->used_ns && now - newest->used_ns >= s->limits->overlap_ns &&
	    previous_key(s)->in_use)
		sodium_memzero(previous_key(s), sizeof(struct sender_key));
}

static void make_pair(struct sender_session *s, uint64_t now)
{
	struct sender_key *key = &s->keys[s->newest];
	uint64_t from = s->congestion.next > s->next_in ? s->congestion.next : s->next_in;

	sodium_memzero(key, sizeof(*key));
	randombytes_buf(key->to_edge, sizeof(key->to_edge));
	randombytes_buf(key->to_cloud, sizeof(key->to_cloud));
	key->max_packets = from + s->limits->key_packets;
	if (key->max_packets > LSLM_COUNTER_MAX)
		key->max_packets = LSLM_COUNTER_MAX;
	key->expires_ns = now + s->limits->key_lifetime_s * SECOND;
	key->in_use = true;
}

int sender_session_pair(struct sender_session *s, struct sender_pair *pair, uint64_t now,
			uint64_t *wait_ns)
{
	const struct sender_key *key = &s->keys[s->newest];

	end_old_key(s, now);
	if (key->used_ns && previous_key(s)->in_use) {
		*wait_ns = key->used_ns + s->limits->overlap_ns - now;
		return -EAGAIN;
	}
	if (key->used_ns)
		s->newest = (s->newest + 1) % LSLM_WIRE_KEYS;
	make_pair(s, now);
	key = &s->keys[s->newest];
	*pair = (struct sender_pair){
		.key = s->newest,
		.max_packets = key->max_packets,
		.lifetime_s = s->limits->key_lifetime_s,
	};
	memcpy(pair->to_edge, key->to_edge, sizeof(pair->to_edge));
	memcpy(pair->to_cloud, key->to_cloud, sizeof(pair->to_cloud));
	return 0;
}

static bool key_valid(const struct sender_key *key, uint64_t counter, uint64_t now)
{
	return key->in_use && now < key->expires_ns && counter < key->max_packets;
}

/* ---- what a want may ask for ---- */

struct shape {
	const struct manifest_level *level;
	uint32_t stripe, chunk, n_chunks;
};

/* Are all units of a stripe of one length? */
static bool is_even(const struct manifest *m, const struct manifest_level *lv)
{
	return !lv->unit_bytes && !m->geo.hidden;
}

/* The chunks of a stripe; false: this context has no such level, or none in such chunks. */
static bool shape_of(const struct sender_session *s, uint8_t level, uint32_t stripe, uint32_t chunk,
		     struct shape *shape)
{
	const struct manifest *m = lskv_manifest(s->file);
	const struct manifest_level *lv = manifest_level(m, level);
	uint64_t n = 0;

	if (!lv || stripe >= m->n_stripes || lv->length[stripe] > LSLM_REGION_BYTES_MAX)
		return false;
	/* Where all units are as long as the last one no loop is needed. */
	if (is_even(m, lv))
		n = (uint64_t)lslm_chunks_of((uint32_t)kv_block_bytes(&m->geo, level), chunk) *
		    lv->n_units;
	for (uint32_t u = 0; !is_even(m, lv) && u < lv->n_units; u++)
		n += lslm_chunks_of((uint32_t)manifest_unit_bytes(m, lv, stripe, u), chunk);
	*shape = (struct shape){ lv, stripe, chunk, (uint32_t)n };
	return n <= LSLM_REGION_CHUNKS_MAX;
}

/* Where a chunk of the stripe lies; returns its length. */
static uint32_t locate_chunk(const struct manifest *m, const struct shape *shape, uint32_t number,
			     uint64_t *offset)
{
	const struct manifest_level *lv = shape->level;
	uint32_t bytes, within, chunks, unit = 0;

	*offset = 0;
	for (;;) {
		bytes = (uint32_t)manifest_unit_bytes(m, lv, shape->stripe, unit);
		chunks = lslm_chunks_of(bytes, shape->chunk);
		/* Units of one length need no walk. */
		if (is_even(m, lv)) {
			*offset = (uint64_t)(number / chunks) * bytes;
			number %= chunks;
		}
		if (number < chunks)
			break;
		*offset += bytes;
		number -= chunks;
		unit++;
	}
	within = number * shape->chunk;
	*offset += within;
	return bytes - within < shape->chunk ? bytes - within : shape->chunk;
}

static bool wants_exist(const struct sender_session *s, const struct report *r)
{
	struct report_want want;
	struct lslm_range last;
	struct shape shape;
	size_t at = 0;

	while (report_next(r, &at, &want)) {
		/* Ranges ascend, report_parse() has seen to it. */
		last = report_range(&want, want.n_ranges - 1);
		if (!shape_of(s, want.level, want.stripe, r->chunk, &shape) ||
		    (uint64_t)last.first + last.count > shape.n_chunks)
			return false;
	}
	return true;
}

/* ---- receiving ---- */

static void move_to(struct sender_session *s, const struct dgram_endpoint *from)
{
	const struct sockaddr *granted = (const struct sockaddr *)&s->granted_to;
	bool same = s->known && dgram_same_host(&s->at.peer.any, &from->peer.any);

	s->at = *from;
	s->known = true;
	/* Another port of a host that receives: a NAT has forgotten. */
	if (same)
		return;
	congestion_moved(&s->congestion);
	s->proved = dgram_same_host(granted, &from->peer.any);
	s->allowance = 0;
	s->moved = s->congestion.next;
}

static void authentic(struct sender_session *s, uint8_t number, uint64_t counter, size_t size,
		      const struct dgram_endpoint *from, uint64_t now)
{
	struct sender_key *key = &s->keys[number];

	lslm_replay_mark(&key->replay, counter);
	s->heard_ns = now;
	if (!key->used_ns)
		key->used_ns = now;
	if (number == s->newest)
		s->sending = number;
	if (counter >= s->next_in) {
		s->next_in = counter + 1;
		move_to(s, from);
	}
	s->allowance += AMPLIFY * size;
}

static enum sender_drop take_hello(struct sender_session *s, const struct lslm_header *h,
				   uint64_t counter, const uint8_t *payload, size_t size)
{
	uint32_t largest;

	if (hello_parse(&largest, payload, size) < 0)
		return SENDER_DROP_CONTENT;
	if (counter < s->next_hello)
		return SENDER_DROP_STALE;
	s->next_hello = counter + 1;
	s->hello = h->generation;
	s->largest = largest;
	return SENDER_DROP_NONE;
}

static enum sender_drop take_report(struct sender_session *s, uint64_t counter,
				    const uint8_t *payload, size_t size, uint64_t now)
{
	struct report r;

	if (size > SENDQUEUE_REPORT || report_parse(&r, payload, size) < 0)
		return SENDER_DROP_CONTENT;
	if (counter < s->next_report)
		return SENDER_DROP_STALE;
	if (!wants_exist(s, &r) || congestion_report(&s->congestion, &r, now) < 0)
		return SENDER_DROP_CONTENT;
	sendqueue_report(&s->queue, payload, size);
	s->next_report = counter + 1;
	s->dry = !r.n_wants;
	/* What was sent to this address has arrived, or it is the first. */
	if (!s->reports++ || (r.highest != REPORT_NONE && r.highest >= s->moved))
		s->proved = true;
	if (r.flags & REPORT_OVER)
		s->over = true;
	return SENDER_DROP_NONE;
}

enum sender_drop sender_session_receive(struct sender_session *s, const struct lslm_header *h,
					uint8_t *packet, size_t size,
					const struct dgram_endpoint *from, uint64_t now)
{
	uint64_t counter = h->counter & ~LSLM_COUNTER_CONTROL;
	uint8_t *payload = packet + LSLM_WIRE_HEADER;
	const struct sender_key *key = &s->keys[h->key % LSLM_WIRE_KEYS];
	long n;

	end_old_key(s, now);
	if (!key_valid(key, counter, now))
		return SENDER_DROP_KEY;
	if (!lslm_replay_ok(&key->replay, counter))
		return SENDER_DROP_REPLAY;
	n = seal_open(payload, packet, size, key->to_cloud);
	if (n < 0)
		return SENDER_DROP_FORGED;
	authentic(s, h->key, counter, size, from, now);
	if (h->slot || h->offset || !h->generation)
		return SENDER_DROP_CONTENT;
	if (h->opcode == LSLM_OP_HELLO)
		return take_hello(s, h, counter, payload, (size_t)n);
	return take_report(s, counter, payload, (size_t)n, now);
}

bool sender_session_ended(struct sender_session *s, uint64_t now)
{
	end_old_key(s, now);
	return s->over || now - s->heard_ns > s->limits->idle_ns;
}

/* ---- sending ---- */

/* May a datagram of this size go to where the edge seems to be? */
static bool afford(struct sender_session *s, size_t size)
{
	if (s->proved)
		return true;
	if (s->allowance < size)
		return false;
	s->allowance -= size;
	return true;
}

static bool probe_due(const struct sender_session *s, uint64_t now)
{
	return s->hello && (s->proved || s->allowance >= probe_sizes[0]) &&
	       now - s->probed_ns >= HELLO_EVERY_MS * MS;
}

static void send_probes(struct sender_session *s, struct dgram_out *out, uint64_t now)
{
	const struct sender_key *key = &s->keys[s->sending];
	static const uint8_t zero[8952 - LSLM_WIRE_OVERHEAD];
	size_t i;

	for (i = 0; i < sizeof(probe_sizes) / sizeof(probe_sizes[0]); i++) {
		struct lslm_header h = {
			.opcode = LSLM_OP_PROBE,
			.version = LSLM_WIRE_VERSION,
			.key = s->sending,
			.session = s->edge,
			.counter = s->next_control | LSLM_COUNTER_CONTROL,
			.generation = s->hello,
		};
		uint8_t *packet = dgram_room(out, probe_sizes[i]);

		if (!packet || probe_sizes[i] > s->largest ||
		    !key_valid(key, s->next_control, now) || !afford(s, probe_sizes[i]))
			break;
		s->next_control++;
		dgram_add(out, seal_packet(packet, &h, zero, probe_sizes[i] - LSLM_WIRE_OVERHEAD,
					   key->to_edge));
		s->stats->probes++;
	}
	s->hello = 0;
	s->probed_ns = now;
}

/* A chunk, and the place of its datagram in the batch. */
struct cargo {
	struct sendqueue_chunk chunk;
	uint64_t offset; /* in its region */
	uint64_t file_offset;
	uint32_t length;
	uint8_t *packet;
};

static void locate(const struct sender_session *s, struct cargo *c)
{
	struct shape shape;

	/* The REPORT was checked against it. */
	shape_of(s, c->chunk.level, c->chunk.stripe, sendqueue_newest(&s->queue)->chunk, &shape);
	c->length = locate_chunk(lskv_manifest(s->file), &shape, c->chunk.number, &c->offset);
	c->file_offset = lskv_unit_offset(s->file, shape.level, c->chunk.stripe, 0) + c->offset;
}

/* Chunks that follow one another in the file, at once, each to its place. */
static int read_run(const struct sender_session *s, const struct cargo *c, uint32_t n)
{
	struct iovec v[DGRAM_OUT];
	size_t want = 0;
	ssize_t got;
	uint32_t i;

	for (i = 0; i < n; i++) {
		v[i] = (struct iovec){ c[i].packet + LSLM_WIRE_HEADER, c[i].length };
		want += c[i].length;
	}
	do
		got = preadv(lskv_fd(s->file), v, (int)n, (off_t)c->file_offset);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)want ? 0 : -EIO;
}

static int read_all(const struct sender_session *s, const struct cargo *c, uint32_t n)
{
	uint32_t i, run;

	for (i = 0; i < n; i += run) {
		for (run = 1;
		     i + run < n &&
		     c[i + run].file_offset == c[i + run - 1].file_offset + c[i + run - 1].length;
		     run++)
			;
		if (read_run(s, c + i, run) < 0)
			return -EIO;
	}
	return 0;
}

/* Choose what to send. Nothing is sealed yet, but the batch has the room. */
static uint32_t load(struct sender_session *s, struct dgram_out *out, struct cargo *cargo,
		     uint32_t most)
{
	uint32_t size = sendqueue_newest(&s->queue)->chunk + LSLM_WIRE_OVERHEAD, n = 0;

	while (n < most && !s->dry) {
		struct cargo *c = &cargo[n];

		c->packet = dgram_room(out, size);
		if (!c->packet || !afford(s, size))
			break;
		if (!sendqueue_next(&s->queue, &s->congestion, &c->chunk)) {
			s->dry = true;
			break;
		}
		locate(s, c);
		dgram_add(out, c->length + LSLM_WIRE_OVERHEAD);
		sendqueue_sent(&s->queue, &c->chunk, s->congestion.next + n);
		n++;
	}
	return n;
}

static void seal_all(struct sender_session *s, const struct cargo *cargo, uint32_t n, uint64_t now)
{
	const struct sender_key *key = &s->keys[s->sending];
	uint32_t i;

	for (i = 0; i < n; i++) {
		const struct cargo *c = &cargo[i];
		struct lslm_header h = {
			.opcode = LSLM_OP_DATA,
			.version = LSLM_WIRE_VERSION,
			.key = s->sending,
			.session = s->edge,
			.counter = s->congestion.next,
			.slot = c->chunk.slot,
			.generation = c->chunk.generation,
			.offset = c->offset,
		};

		seal_packet(c->packet, &h, c->packet + LSLM_WIRE_HEADER, c->length, key->to_edge);
		congestion_sent(&s->congestion, now);
		s->stats->sent++;
		s->stats->sent_bytes += c->length;
		s->stats->again += c->chunk.again;
	}
}

/* How many DATA may go now. */
static uint32_t allowed(const struct sender_session *s, uint64_t now)
{
	const struct sender_key *key = &s->keys[s->sending];
	uint64_t next = s->congestion.next;
	uint32_t n;

	if (s->dry || !key_valid(key, next, now))
		return 0;
	n = congestion_allowed(&s->congestion, now);
	return n < key->max_packets - next ? n : (uint32_t)(key->max_packets - next);
}

void sender_session_send(struct sender_session *s, struct dgram_out *out, uint64_t now)
{
	struct cargo cargo[DGRAM_OUT];
	uint32_t n;

	if (!s->known || s->over)
		return;
	if (probe_due(s, now))
		send_probes(s, out, now);
	n = allowed(s, now);
	n = load(s, out, cargo, n < DGRAM_OUT ? n : DGRAM_OUT);
	if (read_all(s, cargo, n) < 0) {
		s->over = true;
		s->stats->unreadable++;
		out->n = 0;
		out->used = 0;
		return;
	}
	seal_all(s, cargo, n, now);
	if (s->dry)
		congestion_idle(&s->congestion, now);
}

uint64_t sender_session_due(const struct sender_session *s, uint64_t now)
{
	uint32_t size = sendqueue_newest(&s->queue)->chunk + LSLM_WIRE_OVERHEAD;
	uint64_t due = CONGESTION_NEVER, probe;

	if (!s->known || s->over || !key_valid(&s->keys[s->sending], s->congestion.next, now))
		return due;
	if (!s->dry && (s->proved || s->allowance >= size))
		due = congestion_due(&s->congestion, now);
	if (!s->hello || !(s->proved || s->allowance >= probe_sizes[0]))
		return due;
	probe = s->probed_ns + HELLO_EVERY_MS * MS;
	return probe < due ? probe : due;
}
