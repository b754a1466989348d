// SPDX-License-Identifier: MIT
/*
 * A session's life and its rights: keys, regions, threads, its socket. LSLM_TEST_BACKENDS="kernel twin"
 * names the backends that must be there; without it one that is absent is one skipped case. What becomes of
 * datagrams: session_place_test, session_drop_test.
 */
#include "session_rig.h"

#include <pthread.h>
#include <time.h>

/* ---- keys ---- */

static void key__refuses_bad_arguments(void **state)
{
	static const struct {
		uint32_t key, cipher;
		uint64_t max_packets;
		uint32_t lifetime_s;
		int want;
	} bad[] = {
		{ 4, 1, 1, 1, -EINVAL },	{ 0, 3, 1, 1, -EINVAL },
		{ 0, 1, 0, 1, -EINVAL },	{ 0, 1, (1ULL << 48) + 1, 1, -EINVAL },
		{ 0, 1, 1, 0, -EINVAL },	{ 0, 1, 1, 86401, -EINVAL },
		{ 0, 1, 1ULL << 48, 86400, 0 }, { 0, 2, 1, 1, -EOPNOTSUPP },
	};
	struct rig *r = rig_open(state);

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(session_key(r->s, bad[i].key, bad[i].cipher, r->secret,
					     bad[i].max_packets, bad[i].lifetime_s, &err),
				 bad[i].want);
	/* What failed has changed nothing. */
	send_chunk(r, 0, 14);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

static void key__ends_by_count(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_header h;

	set_key(r, 1, 10, 3600);
	r->counter = 9;
	send_chunk(r, 0, 15);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	h = header_for(r, CHUNK);
	send_as(r, &h, CHUNK, 15);
	expect_drops(r, LSLM_DROP_KEY, 1);
	rig_close(r);
}

static void key__ends_by_time(void **state)
{
	struct rig *r = rig_open(state);
	struct timespec tick = { .tv_nsec = 50000000 };
	struct lslm_header h;

	set_key(r, 1, 1ULL << 48, 1);
	do {
		nanosleep(&tick, NULL);
		h = header_for(r, REGION);
		send_as(r, &h, CHUNK, 16);
		settle(r);
	} while (!r->stats.drops[LSLM_DROP_KEY] && h.counter < 400);
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 16);
	expect_drops(r, LSLM_DROP_KEY, 1);
	rig_close(r);
}

/* The next pair of keys: both in use, then the old one is removed. */
static void key__changes(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_header h;
	uint64_t offset;
	uint32_t length;

	send_chunk(r, 0, 17);
	settle(r);
	memset(r->secret, 0x71, sizeof(r->secret));
	set_key(r, 2, 1ULL << 48, 3600);
	for (uint32_t i = 1; i < 4; i++) {
		chunk_at(i, &offset, &length);
		h = header_for(r, offset);
		h.key = 2;
		for (uint32_t j = 0; j < length; j++)
			r->want[BASE + offset + j] = byte_at(offset + j, 17);
		send_as(r, &h, length, 17);
	}
	settle(r);
	assert_int_equal(r->stats.placed, 4);
	/* Under the old number the new secret is a forgery, and the old one still good. */
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 17);
	expect_drops(r, LSLM_DROP_FORGED, 1);
	memset(r->secret, 0x17, sizeof(r->secret));
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 17);
	expect_drops(r, LSLM_DROP_DUPLICATE, 1);
	assert_ok(session_key(r->s, 1, LSLM_CIPHER_NONE, NULL, 0, 0, &err), &err);
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 17);
	expect_drops(r, LSLM_DROP_KEY, 1);
	rig_close(r);
}

/* ---- regions ---- */

static void bind__refuses_bad_arguments(void **state)
{
	static const uint64_t all = 7;
	static const struct {
		struct session_region region;
		uint32_t slot;
		int want;
	} bad[] = {
		{ { 0, 0, 512, 1, 512 }, SLOTS, -EINVAL },
		{ { 0, 0, 512, 0, 512 }, 0, -EINVAL },
		{ { 0, 0, 512, 4097, 1 }, 0, -EINVAL },
		{ { 0, 0, 512, 1, 0 }, 0, -EINVAL },
		{ { 0, 0, 192, 1, 512 }, 0, -EINVAL },
		{ { 0, 0, 480, 1, 512 }, 0, -EINVAL },
		{ { 0, 0, LSLM_CHUNK_MAX + 64, 1, 512 }, 0, -EINVAL },
		{ { 0, 0, 512, 3, 512, &all }, 0, -EINVAL },
		{ { 0, SIZE, 512, 1, 1 }, 0, -ERANGE },
		{ { 0, UINT64_MAX, 512, 1, 1 }, 0, -ERANGE },
		{ { 0, 0, 512, 1, SIZE + 1 }, 0, -ERANGE },
		{ { 0, 1, 512, 4, SIZE / 4 }, 0, -ERANGE },
	};
	struct rig *r = rig_open(state);
	uint32_t generation;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct session_region region = bad[i].region;

		region.buffer = r->buffer;
		assert_int_equal(session_bind(r->s, bad[i].slot, &region, &generation, &err),
				 bad[i].want);
	}
	/* What was bound is bound. */
	send_chunk(r, 0, 18);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

static void bind__needs_a_buffer_to_write(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = { .chunk = CHUNK, .n_units = 1, .unit_bytes = CHUNK };
	int fd = buffer_ro_fd(r->buffer, &err);
	uint32_t generation;

	assert_ok(buffer_import(&region.buffer, fd, &err), &err);
	assert_int_equal(session_bind(r->s, 1, &region, &generation, &err), -EACCES);
	buffer_close(region.buffer);
	rig_close(r);
}

static void bind__holds_the_buffer(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = {
		.buffer = r->buffer, .chunk = CHUNK, .n_units = 1, .unit_bytes = CHUNK
	};
	uint32_t generation;

	assert_int_equal(buffer_purge(r->buffer, NULL, &err), -EBUSY);
	assert_int_equal(session_unbind(r->s, 0), 0);
	assert_ok(buffer_purge(r->buffer, NULL, &err), &err);
	assert_int_equal(session_bind(r->s, 1, &region, &generation, &err), -ESTALE);
	assert_ok(buffer_will_need(r->buffer, NULL, NULL, &err), &err);
	assert_ok(session_bind(r->s, 1, &region, &generation, &err), &err);
	memset(r->want, 0, SIZE);
	rig_close(r);
}

static void unbind__stops_writes(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_range range;
	struct lslm_header h, late;
	uint32_t first = r->generation;

	send_chunk(r, 0, 19);
	settle(r);
	assert_int_equal(session_unbind(r->s, 0), 0);
	assert_int_equal(session_unbind(r->s, 0), -ENOENT);
	assert_int_equal(session_unbind(r->s, SLOTS), -EINVAL);
	assert_int_equal(session_missing(r->s, 0, first, 0, &range, 1), -ESTALE);
	for (uint32_t generation = 0; generation < first + 3; generation++) {
		h = header_for(r, CHUNK);
		h.generation = generation;
		send_as(r, &h, CHUNK, 19);
	}
	expect_drops(r, LSLM_DROP_GENERATION, first + 3);
	/* Bound anew: late datagrams of the first time are late, and the chunks are missing again. */
	bind_slot(r, 0, &r->generation);
	assert_true(r->generation > first);
	assert_int_equal(missing(r), CHUNKS);
	late = header_for(r, CHUNK);
	late.generation = first;
	send_as(r, &late, CHUNK, 19);
	expect_drops(r, LSLM_DROP_GENERATION, 1);
	send_chunk(r, 0, 20);
	settle(r);
	assert_int_equal(r->stats.placed, 2);
	rig_close(r);
}

/* Without unbinding first, and while datagrams for the first binding wait in the socket. */
static void bind__replaces(void **state)
{
	struct rig *r = rig_open(state);
	uint32_t first = r->generation;
	struct lslm_header h;

	bind_slot(r, 0, &r->generation);
	assert_true(r->generation > first);
	h = header_for(r, 0);
	h.generation = first;
	send_as(r, &h, CHUNK, 21);
	expect_drops(r, LSLM_DROP_GENERATION, 1);
	for (uint32_t i = 0; i < CHUNKS; i++)
		send_chunk(r, i, 21);
	settle(r);
	assert_int_equal(r->done_units, 7);
	rig_close(r);
}

/* ---- its life ---- */

static void *wake_soon(void *arg)
{
	struct timespec tick = { .tv_nsec = 20000000 };

	nanosleep(&tick, NULL);
	session_wake(arg);
	return NULL;
}

static void wake__ends_a_poll(void **state)
{
	struct rig *r = rig_open(state);
	double start = clock_seconds();
	pthread_t thread;

	session_wake(r->s);
	assert_ok(session_poll(r->s, 60000000000, &ops, r, &err), &err);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pthread_create(&thread, NULL, wake_soon, r->s), 0);
		assert_ok(session_poll(r->s, 60000000000, &ops, r, &err), &err);
		pthread_join(thread, NULL);
	}
	assert_true(clock_seconds() - start < 50);
	/* Nothing is there: a poll ends by itself. */
	assert_ok(session_poll(r->s, 1000000, &ops, r, &err), &err);
	assert_ok(session_poll(r->s, 0, &ops, r, &err), &err);
	rig_close(r);
}

static void *receive_all(void *arg)
{
	struct rig *r = arg;

	for (uint32_t i = 0; i < CHUNKS / 2; i++)
		send_chunk(r, i, 25);
	settle(r);
	return NULL;
}

/* Polled here, by another thread, here again while a third one lives, and closed by this one. */
static void poll__moves_between_threads(void **state)
{
	struct rig *r = rig_open(state);
	pthread_t thread;

	send_chunk(r, CHUNKS - 1, 25);
	settle(r);
	assert_int_equal(pthread_create(&thread, NULL, receive_all, r), 0);
	pthread_join(thread, NULL);
	for (uint32_t i = CHUNKS / 2; i < CHUNKS - 1; i++)
		send_chunk(r, i, 25);
	settle(r);
	assert_int_equal(r->done_units, 7);
	rig_close(r);
}

/* Once the session is over the socket is an ordinary one. */
static void close__gives_the_socket_back(void **state)
{
	uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD];
	struct rig *r = rig_open(state);
	const struct variant *v = variant_of(state);
	struct lslm_header h = header_for(r, 0);
	size_t size = make(r, packet, &h, CHUNK, 26);
	struct timeval limit = { .tv_sec = 20 };

	session_poll(r->s, 0, &ops, r, &err);
	session_close(r->s);
	setsockopt(r->socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(send(r->peer, packet, size, 0), size);
	assert_int_equal(recv(r->socket, packet, sizeof(packet), 0), size);
	assert_ok(session_open(&r->s, v->backend, v->buffers, r->socket, SLOTS, &err), &err);
	set_key(r, 1, 1ULL << 48, 3600);
	bind_slot(r, 0, &r->generation);
	send_chunk(r, 0, 26);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

static void open__refuses_bad_arguments(void **state)
{
	const struct variant *v = variant_of(state);
	struct sockaddr_storage at;
	struct session *s = NULL;
	socklen_t size;
	int fd = socket_on(v->family, &at, &size);

	assert_int_equal(session_open(&s, v->backend, v->buffers, fd, 0, &err), -EINVAL);
	assert_int_equal(session_open(&s, v->backend, v->buffers, fd, 65537, &err), -EINVAL);
	assert_null(s);
	assert_ok(session_open(&s, v->backend, v->buffers, fd, 65536, &err), &err);
	assert_int_not_equal(session_number(s), 0);
	session_close(s);
	close(fd);
}

static void backend__is_there(void **state)
{
	const struct variant *v = variant_of(state);
	struct sockaddr_storage at;
	struct session *s;
	socklen_t size;
	int fd = socket_on(v->family, &at, &size), ret;

	ret = session_open(&s, v->backend, v->buffers, fd, SLOTS, &err);
	close(fd);
	if (ret) {
		assert_int_equal(ret, -ENODEV);
		if (rig_must_be_there(v))
			fail_msg("%s", err.text);
		print_message("# %s\n", err.text);
		skip();
	}
	print_message("# %s\n", session_backend_reason(s));
	assert_string_equal(session_backend_name(s),
			    v->backend == SESSION_KERNEL ? "kernel" : "twin");
	assert_ptr_equal(strstr(session_backend_reason(s), session_backend_name(s)),
			 session_backend_reason(s));
	if (strstr(v->name, "recvmmsg"))
		assert_non_null(strstr(session_backend_reason(s), "recvmmsg (io_uring: "));
	session_close(s);
}

static void auto__says_why(void **state)
{
	struct sockaddr_storage at;
	struct session *s;
	socklen_t size;
	int fd = socket_on(AF_INET, &at, &size);

	assert_int_equal(session_open(&s, SESSION_KERNEL, BUFFER_MEMFD, fd, 1, &err), -ENODEV);
	assert_ok(session_open(&s, SESSION_AUTO, BUFFER_MEMFD, fd, 1, &err), &err);
	assert_string_equal(session_backend_name(s), "twin");
	assert_non_null(strstr(session_backend_reason(s), "the buffers are memfd"));
	session_close(s);
	/* Whatever it takes, it says so. */
	assert_ok(session_open(&s, SESSION_AUTO, BUFFER_AUTO, fd, 1, &err), &err);
	print_message("# %s\n", session_backend_reason(s));
	assert_ptr_equal(strstr(session_backend_reason(s), session_backend_name(s)),
			 session_backend_reason(s));
	if (buffer_backend_active() == BUFFER_MEMFD)
		assert_string_equal(session_backend_name(s), "twin");
	session_close(s);
	close(fd);
}

int main(void)
{
	static const struct rig_case cases[] = {
		{ "backend__is_there", backend__is_there, RIG_EVERYWHERE },
		RIG_CASE(key__refuses_bad_arguments),
		RIG_CASE(key__ends_by_count),
		RIG_CASE(key__ends_by_time),
		RIG_CASE(key__changes),
		RIG_CASE(bind__refuses_bad_arguments),
		RIG_CASE(bind__needs_a_buffer_to_write),
		RIG_CASE(bind__holds_the_buffer),
		RIG_CASE(unbind__stops_writes),
		RIG_CASE(bind__replaces),
		RIG_CASE(wake__ends_a_poll),
		RIG_CASE(poll__moves_between_threads),
		RIG_CASE(close__gives_the_socket_back),
		RIG_CASE(open__refuses_bad_arguments),
		{ "auto__says_why", auto__says_why, RIG_ONCE },
	};

	return rig_run("session", cases, ARRAY_LEN(cases));
}
