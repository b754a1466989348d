/* SPDX-License-Identifier: MIT */
/*
 * The steering programs, run by the kernel on packets of our making (BPF_PROG_TEST_RUN), against a
 * second opinion: a parser written the other way round, which reads no field before it has
 * made sure of the whole form, and shares no code with bpf/steer.bpf.c.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <unistd.h>

#include "lslm/wire.h"
#include "net/allow.h"
#include "net/steer.h"

enum {
	PORT = 47000,
	SESSION = 0x1234567,
	PAYLOAD = 100, /* of a UDP datagram */
	ROOM = 512,
};

struct packet {
	uint8_t bytes[ROOM];
	size_t size;
};

struct form {
	const char *name;
	int tags;
	int version;
};

static const struct form forms[] = {
	{ "ipv4", 0, 4 }, { "vlan ipv4", 1, 4 }, { "two vlans ipv4", 2, 4 },
	{ "ipv6", 0, 6 }, { "vlan ipv6", 1, 6 }, { "two vlans ipv6", 2, 6 },
};

/* ---- packets ---- */

static void put16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned int get16(const uint8_t *p)
{
	return (unsigned int)p[0] << 8 | p[1];
}

static uint8_t *make_ip(uint8_t *p, int version, unsigned int payload)
{
	if (version == 4) {
		p[0] = 0x45;
		put16(p + 2, 20 + payload);
		p[8] = 64;
		p[9] = 17;
		memcpy(p + 12, "\x0a\x00\x00\x02\x0a\x00\x00\x01", 8);
		return p + 20;
	}
	p[0] = 0x60;
	put16(p + 4, payload);
	p[6] = 17;
	p[7] = 64;
	memcpy(p + 8, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02", 16);
	memcpy(p + 24, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
	return p + 40;
}

/* DATA to PORT. The destination is the zero address, which the kernel takes for the host's own. */
static struct packet make(const struct form *form, uint32_t slot)
{
	struct lslm_header h = { .opcode = LSLM_OP_DATA,
				 .version = LSLM_WIRE_VERSION,
				 .session = SESSION,
				 .slot = slot,
				 .generation = 7 };
	struct packet k = { 0 };
	uint8_t *p = k.bytes + 12;

	memcpy(k.bytes + 6, "\x02\0\0\0\0\x02", 6);
	for (int i = 0; i < form->tags; i++, p += 4)
		put16(p, 0x8100);
	put16(p, form->version == 4 ? 0x0800 : 0x86dd);
	p = make_ip(p + 2, form->version, 8 + PAYLOAD);
	put16(p, 40000);
	put16(p + 2, PORT);
	put16(p + 4, 8 + PAYLOAD);
	lslm_header_put(p + 8, &h);
	k.size = (size_t)(p + 8 + PAYLOAD - k.bytes);
	return k;
}

/* ---- the second opinion ---- */

/* Size of the headers before UDP when they have one of the four forms that are steered; 0 else.
 * *rest: what IP says follows them. */
static size_t form_of(const struct packet *k, size_t *rest, bool *fragment)
{
	size_t ether = 14;
	unsigned int type;
	const uint8_t *ip;

	*fragment = false;
	if (k->size < ether)
		return 0;
	type = get16(k->bytes + 12);
	if (type == 0x8100 || type == 0x88a8) {
		ether = 18;
		if (k->size < ether)
			return 0;
		type = get16(k->bytes + 16);
	}
	ip = k->bytes + ether;
	if (type == 0x0800 && k->size >= ether + 20 && ip[0] == 0x45 && ip[9] == 17) {
		*fragment = (get16(ip + 6) & 0x3fff) != 0;
		*rest = get16(ip + 2) - 20U;
		return get16(ip + 2) >= 20 || *fragment ? ether + 20 : 0;
	}
	if (type == 0x86dd && k->size >= ether + 40 && ip[0] >> 4 == 6) {
		*fragment = ip[6] == 44;
		*rest = get16(ip + 4);
		return ip[6] == 17 || *fragment ? ether + 40 : 0;
	}
	return 0;
}

static enum steer_verdict expect(const struct packet *k)
{
	const uint8_t *udp, *head;
	size_t at, rest;
	bool fragment;

	at = form_of(k, &rest, &fragment);
	if (!at || fragment)
		return at ? STEER_FRAGMENT : STEER_OTHER;
	udp = k->bytes + at;
	head = udp + 8;
	if (rest < 8 || at + rest > k->size || get16(udp + 4) < 8 || get16(udp + 4) > rest ||
	    get16(udp + 2) != PORT)
		return STEER_OTHER;
	if (get16(udp + 4) < 8 + 48 || head[0] != 1 || head[1] != 1)
		return STEER_NOT_DATA;
	return head[4] == 0x67 && head[5] == 0x45 && head[6] == 0x23 && head[7] == 0x01 ?
		       STEER_SOCKET :
		       STEER_SESSION;
}

/* ---- running ---- */

struct lab {
	struct steer *steer;
	struct steer_counter was[STEER_COUNTERS];
};

static int set_up(void **state)
{
	struct lslm_error err;
	struct lab *lab = calloc(1, sizeof(*lab));
	int rc;

	assert_non_null(lab);
	*state = lab;
	rc = steer_load(&lab->steer, false, &err);
	if (rc == -EPERM) /* each case skips */
		return 0;
	if (rc)
		fail_msg("%s", err.text);
	assert_ok(steer_port(lab->steer, PORT, SESSION, 0, NULL, &err), &err);
	return 0;
}

static int tear_down(void **state)
{
	struct lab *lab = *state;

	steer_close(lab->steer);
	free(lab);
	return 0;
}

static struct lab *lab_of(void **state)
{
	struct lab *lab = *state;

	if (!lab->steer)
		skip();
	return lab;
}

/* Runs one packet; exactly one verdict must have been counted, once, with its size. */
static enum steer_verdict run(struct lab *lab, const struct packet *k, bool xdp)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = k->bytes, .data_size_in = (__u32)k->size);
	struct steer_counter now[STEER_COUNTERS];
	struct lslm_error err;
	int verdict = -1, rc;
	bool dropped;

	rc = bpf_prog_test_run_opts(steer_program(lab->steer, xdp), &opts);
	if (rc)
		fail_msg("%zu bytes, %s: not run: %d", k->size, xdp ? "xdp" : "tc", rc);
	assert_ok(steer_stats(lab->steer, now, &err), &err);
	for (int i = 0; i < STEER_EXEMPT; i++) {
		if (now[i].frames == lab->was[i].frames)
			continue;
		assert_int_equal(verdict, -1);
		verdict = i;
		assert_int_equal(now[i].frames, lab->was[i].frames + 1);
		assert_int_equal(now[i].bytes, lab->was[i].bytes + k->size);
	}
	assert_int_not_equal(verdict, -1);
	memcpy(lab->was, now, sizeof(now));
	dropped = verdict == STEER_PEER || verdict == STEER_LIMIT;
	if (xdp)
		assert_int_equal(opts.retval, dropped ? XDP_DROP : XDP_PASS);
	else
		assert_int_equal(opts.retval, dropped ? TC_ACT_SHOT : (__u32)TC_ACT_UNSPEC);
	return verdict;
}

/* Newer kernels make no test skb of IP without a whole IP header; the XDP run covers those. */
static bool skb_can_be(const struct packet *k)
{
	switch (get16(k->bytes + 12)) {
	case 0x0800:
		return k->size >= 14 + 20;
	case 0x86dd:
		return k->size >= 14 + 40;
	default:
		return true;
	}
}

static void check(struct lab *lab, const struct packet *k, const char *what)
{
	enum steer_verdict want = expect(k), got;

	for (int xdp = 0; xdp < 2; xdp++) {
		if (!xdp && !skb_can_be(k))
			continue;
		got = run(lab, k, xdp);
		if (got != want)
			fail_msg("%s, %zu bytes, %s: %s instead of %s", what, k->size,
				 xdp ? "xdp" : "tc", steer_verdict_name(got),
				 steer_verdict_name(want));
	}
}

/* ---- cases ---- */

static void forms__each_is_known(void **state)
{
	struct lab *lab = lab_of(state);

	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		struct packet k = make(&forms[i], 0);

		assert_int_equal(expect(&k), forms[i].tags < 2 ? STEER_SOCKET : STEER_OTHER);
		check(lab, &k, forms[i].name);
	}
}

static void truncated__at_every_length(void **state)
{
	struct lab *lab = lab_of(state);

	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		struct packet k = make(&forms[i], 0);

		/* The kernel runs nothing shorter than an Ethernet header. */
		for (size_t whole = k.size; k.size > 14; k.size--) {
			if (k.size < whole)
				assert_int_equal(expect(&k), STEER_OTHER);
			check(lab, &k, forms[i].name);
		}
	}
}

/* Shorter as the headers say too, so that the frame has padding, or UDP less than IP. */
static void lengths__of_every_header(void **state)
{
	struct lab *lab = lab_of(state);

	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		bool four = forms[i].version == 4;
		size_t ip = 14 + 4 * (size_t)forms[i].tags;
		uint8_t *in_ip, *in_udp;
		struct packet k = make(&forms[i], 0);
		unsigned int ip_was, udp_was;

		in_ip = k.bytes + ip + (four ? 2 : 4);
		in_udp = k.bytes + ip + (four ? 20 : 40) + 4;
		ip_was = get16(in_ip);
		udp_was = get16(in_udp);
		for (unsigned int n = 0; n < 160; n++) {
			put16(in_ip, n);
			check(lab, &k, forms[i].name);
			put16(in_ip, ip_was);
			put16(in_udp, n);
			check(lab, &k, forms[i].name);
			put16(in_udp, udp_was);
		}
		put16(in_ip, 0xffff);
		put16(in_udp, 0xffff);
		check(lab, &k, forms[i].name);
	}
}

static void bytes__each_of_the_headers_changed(void **state)
{
	static const uint8_t flips[] = { 0x01, 0x20, 0x80, 0xff };
	struct lab *lab = lab_of(state);

	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		struct packet k = make(&forms[i], 0);

		/* Not the destination: the kernel's own test run looks at it. */
		for (size_t at = 12; at < k.size - PAYLOAD + LSLM_WIRE_HEADER; at++) {
			for (size_t f = 0; f < ARRAY_LEN(flips); f++) {
				k.bytes[at] ^= flips[f];
				check(lab, &k, forms[i].name);
				k.bytes[at] ^= flips[f];
			}
		}
	}
}

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	return *seed ^= *seed << 5;
}

static void random__bytes_behind_a_good_beginning(void **state)
{
	struct lab *lab = lab_of(state);
	uint32_t seed = 12345;

	for (int n = 0; n < 3000; n++) {
		const struct form *form = &forms[next_random(&seed) % ARRAY_LEN(forms)];
		struct packet k = make(form, 0);
		size_t from = 12 + next_random(&seed) % 80;

		k.size = 14 + next_random(&seed) % (ROOM - 14);
		for (size_t i = from; i < k.size; i++)
			k.bytes[i] = (uint8_t)next_random(&seed);
		check(lab, &k, form->name);
	}
}

static void address__only_to_the_one_told(void **state)
{
	struct lab *lab = lab_of(state);
	struct packet four = make(&forms[0], 0), six = make(&forms[3], 0);
	struct lslm_error err;

	for (int xdp = 0; xdp < 2; xdp++) {
		assert_ok(steer_port(lab->steer, PORT, SESSION, 0, "10.0.0.1", &err), &err);
		assert_int_equal(run(lab, &four, xdp), STEER_SOCKET);
		assert_int_equal(run(lab, &six, xdp), STEER_OTHER);
		assert_ok(steer_port(lab->steer, PORT, SESSION, 0, "fd00::1", &err), &err);
		assert_int_equal(run(lab, &four, xdp), STEER_OTHER);
		assert_int_equal(run(lab, &six, xdp), STEER_SOCKET);
		assert_ok(steer_port_remove(lab->steer, PORT, &err), &err);
		assert_int_equal(run(lab, &six, xdp), STEER_OTHER);
		assert_int_equal(steer_port_remove(lab->steer, PORT, &err), -ENOENT);
	}
	assert_int_equal(steer_port(lab->steer, PORT, SESSION, 0, "10.0.0", &err), -EINVAL);
	assert_ok(steer_port(lab->steer, PORT, SESSION, 0, NULL, &err), &err);
}

/* A bucket that never refills: what passes is counted, not timed. */
static void limit__exact_without_refill(void **state)
{
	struct lab *lab = lab_of(state);
	struct packet k = make(&forms[0], 3);
	struct lslm_error err;

	assert_ok(steer_peer(lab->steer, "10.0.0.2", 0, 5 * PAYLOAD + 1, &err), &err);
	for (int i = 0; i < 8; i++)
		assert_int_equal(run(lab, &k, i % 2), i < 5 ? STEER_SOCKET : STEER_LIMIT);
	/* What the engine waits for passes still, and is counted as an exception. */
	assert_ok(steer_urgent(lab->steer, SESSION, 3, 7, &err), &err);
	assert_int_equal(run(lab, &k, true), STEER_SOCKET);
	assert_int_equal(run(lab, &k, false), STEER_SOCKET);
	assert_int_equal(lab->was[STEER_EXEMPT].frames, 2);
	/* Another generation, another slot: no exception. */
	assert_ok(steer_urgent(lab->steer, SESSION, 3, 8, &err), &err);
	assert_ok(steer_urgent(lab->steer, SESSION, 4, 7, &err), &err);
	assert_int_equal(run(lab, &k, true), STEER_LIMIT);
	assert_ok(steer_calm(lab->steer, SESSION, 3, &err), &err);
	assert_ok(steer_calm(lab->steer, SESSION, 3, &err), &err);
	assert_int_equal(run(lab, &k, false), STEER_LIMIT);
	assert_int_equal(lab->was[STEER_EXEMPT].frames, 2);
	/* Told anew, the bucket is full again. */
	assert_ok(steer_peer(lab->steer, "10.0.0.2", 0, PAYLOAD, &err), &err);
	assert_int_equal(run(lab, &k, false), STEER_SOCKET);
	assert_int_equal(run(lab, &k, false), STEER_LIMIT);
}

/* An urgent datagram takes what is left, so that the sum stays near the limit. */
static void limit__urgent_takes_what_is_left(void **state)
{
	struct lab *lab = lab_of(state);
	struct packet urgent = make(&forms[0], 3), other = make(&forms[0], 4);
	struct lslm_error err;

	assert_ok(steer_urgent(lab->steer, SESSION, 3, 7, &err), &err);
	assert_ok(steer_peer(lab->steer, "10.0.0.2", 0, 2 * PAYLOAD - 1, &err), &err);
	assert_int_equal(run(lab, &urgent, true), STEER_SOCKET);
	assert_int_equal(lab->was[STEER_EXEMPT].frames, 0);
	assert_int_equal(run(lab, &urgent, true), STEER_SOCKET);
	assert_int_equal(lab->was[STEER_EXEMPT].frames, 1);
	assert_int_equal(run(lab, &other, true), STEER_LIMIT);
}

/* 1 GB/s fills any of these buckets within the microseconds that a call takes. */
static void limit__refills(void **state)
{
	struct lab *lab = lab_of(state);
	struct packet k = make(&forms[0], 3);
	struct lslm_error err;

	assert_ok(steer_peer(lab->steer, "10.0.0.2", 1000000000, PAYLOAD, &err), &err);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(run(lab, &k, true), STEER_SOCKET);
		usleep(10);
	}
	/* Never above the burst, however long it was quiet. */
	assert_ok(steer_peer(lab->steer, "10.0.0.2", STEER_RATE_MAX, PAYLOAD - 1, &err), &err);
	for (int i = 0; i < 20; i++)
		assert_int_equal(run(lab, &k, true), STEER_LIMIT);
	assert_int_equal(steer_peer(lab->steer, "10.0.0.2", STEER_RATE_MAX + 1, 1, &err), -ERANGE);
	assert_int_equal(steer_limit(lab->steer, 1, STEER_BURST_MAX + 1, &err), -ERANGE);
}

static void limit__of_strangers(void **state)
{
	struct lab *lab = lab_of(state);
	struct packet four = make(&forms[0], 3), six = make(&forms[4], 3);
	struct lslm_error err;

	for (int i = 0; i < 4; i++)
		assert_int_equal(run(lab, &six, i % 2), STEER_SOCKET);
	assert_ok(steer_limit(lab->steer, 0, 2 * PAYLOAD, &err), &err);
	for (int i = 0; i < 4; i++)
		assert_int_equal(run(lab, &six, i % 2), i < 2 ? STEER_SOCKET : STEER_LIMIT);
	/* With a list, nobody is a stranger any more; control passes from anybody. */
	assert_ok(steer_peer(lab->steer, "10.0.0.2", 0, 0, &err), &err);
	assert_int_equal(run(lab, &four, true), STEER_SOCKET);
	assert_int_equal(run(lab, &six, true), STEER_PEER);
	assert_int_equal(run(lab, &six, false), STEER_PEER);
	six.bytes[18 + 40 + 8] = LSLM_OP_PROBE;
	assert_int_equal(run(lab, &six, true), STEER_NOT_DATA);
	assert_ok(steer_peer_remove(lab->steer, "10.0.0.2", &err), &err);
	assert_int_equal(run(lab, &four, false), STEER_PEER);
	assert_int_equal(steer_peer_remove(lab->steer, "10.0.0.2", &err), -ENOENT);
}

/* An address is on the list as long as somebody wants it there; a second one fills no bucket. */
static void allow__counts_sessions(void **state)
{
	struct lab *lab = lab_of(state);
	struct packet p = make(&forms[0], 3);
	struct lslm_error err;
	struct allow *a;

	assert_ok(allow_open(&a, lab->steer, 0, 2 * PAYLOAD, &err), &err);
	assert_ok(allow_add(a, "10.0.0.9", &err), &err);
	assert_int_equal(run(lab, &p, true), STEER_PEER);
	assert_ok(allow_add(a, "10.0.0.2", &err), &err);
	assert_int_equal(run(lab, &p, true), STEER_SOCKET);
	assert_ok(allow_add(a, "10.0.0.2", &err), &err);
	assert_int_equal(run(lab, &p, true), STEER_SOCKET);
	assert_int_equal(run(lab, &p, true), STEER_LIMIT);
	allow_remove(a, "10.0.0.2");
	assert_int_equal(run(lab, &p, true), STEER_LIMIT);
	allow_remove(a, "10.0.0.2");
	assert_int_equal(run(lab, &p, true), STEER_PEER);
	allow_remove(a, "10.0.0.2");
	assert_int_equal(allow_add(a, "no address", &err), -EINVAL);
	assert_ok(allow_add(a, "10.0.0.2", &err), &err);
	assert_int_equal(run(lab, &p, true), STEER_SOCKET);
	assert_ok(allow_add(NULL, "10.0.0.2", &err), &err);
	allow_remove(NULL, "10.0.0.2");
	allow_close(a);
}

static void parse__interface_and_mode(void **state)
{
	char ifname[IF_NAMESIZE];
	enum steer_mode mode;
	struct lslm_error err;

	assert_ok(steer_parse("eth0", ifname, &mode, &err), &err);
	assert_string_equal(ifname, "eth0");
	assert_int_equal(mode, STEER_AUTO);
	assert_ok(steer_parse("abcdefghijklmno,clsact", ifname, &mode, &err), &err);
	assert_string_equal(ifname, "abcdefghijklmno");
	assert_int_equal(mode, STEER_CLSACT);
	assert_int_equal(steer_parse("abcdefghijklmnop,tc", ifname, &mode, &err), -EINVAL);
	assert_int_equal(steer_parse(",tc", ifname, &mode, &err), -EINVAL);
	assert_int_equal(steer_parse("eth0,", ifname, &mode, &err), -EINVAL);
	assert_int_equal(steer_parse("eth0,tcx", ifname, &mode, &err), -EINVAL);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(forms__each_is_known),
		CASE(truncated__at_every_length),
		CASE(lengths__of_every_header),
		CASE(bytes__each_of_the_headers_changed),
		CASE(random__bytes_behind_a_good_beginning),
		CASE(address__only_to_the_one_told),
		CASE(limit__exact_without_refill),
		CASE(limit__urgent_takes_what_is_left),
		CASE(limit__refills),
		CASE(limit__of_strangers),
		CASE(allow__counts_sessions),
		cmocka_unit_test(parse__interface_and_mode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
