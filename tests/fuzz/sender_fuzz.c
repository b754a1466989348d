// SPDX-License-Identifier: MIT
/*
 * An edge that has a key and means no good: HELLO and REPORT of any contents, at any time. Whatever it says,
 * the cloud sends what is the edge's to have: datagrams of one of its chunks, each counter once, within the
 * context, and after two seconds without a REPORT none.
 *
 * Input: records of an opcode, a time in ms, a size (u16, little-endian), and so many bytes of payload.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/seal.h"
#include "net/sender_session.h"
#include "tests/synthetic.h"

#define MS 1000000ULL

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct synthetic shape = {
	.n_layer = 2, .n_head_kv = 1, .head_dim = 16, .n_tokens = 64 * 4
};
static const struct sender_limits limits = { 1 << 20, 60, 1000 * MS, 5000 * MS };
static struct lskv *file;
static struct dgram_out out;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char dir[] = "/tmp/lslm-fuzz-XXXXXX", path[64];
	struct kv_hash key;

	if (sodium_init() < 0 || !mkdtemp(dir))
		abort();
	snprintf(path, sizeof(path), "%s/context.lskv", dir);
	if (synthetic_write(&shape, path, &key, NULL) < 0 || lskv_open(&file, path, NULL) < 0)
		abort();
	/* The descriptor is enough. */
	unlink(path);
	rmdir(dir);
	return 0;
}

static void need(int fact)
{
	if (!fact)
		abort();
}

/* What went out is sealed with the edge's key and lies within a stripe. Returns how many DATA. */
static uint32_t check(const struct sender_pair *pair, uint64_t *next)
{
	const uint64_t stripe = (uint64_t)kv_stripe_bytes(&lskv_manifest(file)->geo, KV_LEVEL_F16);
	static uint8_t payload[65536];
	uint32_t n = 0;
	size_t at = 0;

	for (uint32_t i = 0; i < out.n; at += out.sizes[i++]) {
		struct lslm_header h;
		long size;

		lslm_header_get(&h, out.data + at);
		size = seal_open(payload, out.data + at, out.sizes[i], pair->to_edge);
		need(size >= 0 && h.session == 7);
		if (h.opcode != LSLM_OP_DATA) {
			need(h.opcode == LSLM_OP_PROBE && h.counter & LSLM_COUNTER_CONTROL);
			continue;
		}
		need(h.counter == (*next)++);
		need(size > 0 && h.offset + (uint64_t)size <= stripe);
		n++;
	}
	need(at == out.used && out.used <= sizeof(out.data));
	out.n = 0;
	out.used = 0;
	return n;
}

static void deliver(struct sender_session *s, const struct sender_pair *pair, uint8_t opcode,
		    uint64_t counter, const uint8_t *payload, size_t size, uint64_t now)
{
	struct lslm_header h = {
		.opcode = opcode & 1 ? LSLM_OP_REPORT : LSLM_OP_HELLO,
		.version = LSLM_WIRE_VERSION,
		.session = 1,
		.counter = counter | LSLM_COUNTER_CONTROL,
		.generation = 1,
	};
	struct dgram_endpoint from = { .peer.v4 = { .sin_family = AF_INET } };
	/* Its own allocation, so that a read past the end is seen. */
	uint8_t *packet = malloc(size + LSLM_WIRE_OVERHEAD);

	/* It moves about. */
	from.peer.v4.sin_addr.s_addr = opcode >> 4;
	seal_packet(packet, &h, payload, size, pair->to_cloud);
	sender_session_receive(s, &h, packet, size + LSLM_WIRE_OVERHEAD, &from, now);
	free(packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sender_session *s = calloc(1, sizeof(*s));
	struct sender_stats stats = { 0 };
	uint64_t now = 1000 * MS, wait, counter = 0, next = 0;
	struct sender_pair pair;

	sender_session_init(s, file, 7, NULL, &limits, &stats, now);
	need(!sender_session_pair(s, &pair, now, &wait));
	while (size >= 4 && counter < 64) {
		size_t n = data[2] | (size_t)data[3] << 8;

		n = n < size - 4 ? n : size - 4;
		now += data[1] * MS;
		deliver(s, &pair, data[0], counter++, data + 4, n, now);
		for (int i = 0; i < 4 && sender_session_due(s, now) <= now; i++) {
			sender_session_send(s, &out, now);
			check(&pair, &next);
		}
		data += 4 + n;
		size -= 4 + n;
	}
	now += 2000 * MS;
	sender_session_send(s, &out, now);
	need(!check(&pair, &next));
	sender_session_ended(s, now);
	sender_session_fini(s);
	free(s);
	return 0;
}
