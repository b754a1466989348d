/* SPDX-License-Identifier: MIT */
/*
 * What the tests of an edge share: its courier and clients of it in one process, so that descriptors can
 * be counted, and three contexts in files. Each program has a directory of its own.
 */
#ifndef LSLM_TESTS_EDGE_RIG_H
#define LSLM_TESTS_EDGE_RIG_H

#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <unistd.h>

#include "net/courier_client.h"
#include "serve/edge.h"
#include "synthetic.h"
#include "unit/unit.h"

static const struct synthetic shapes[] = {
	{ .n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 7 + 5, .seed = 1 },
	{ .n_layer = 2, .n_head_kv = 1, .head_dim = 8, .n_tokens = 64 * 3, .seed = 2 },
	{ .n_layer = 2, .n_head_kv = 1, .head_dim = 8, .n_tokens = 63, .seed = 3 },
};
enum { N = ARRAY_LEN(shapes), DEADLINE_TICKS = 6000 };

static char dir[] = "/tmp/lslm-edge-XXXXXX";
static char sock[64], files[N][64];
static const char *names[N];
static struct kv_hash keys[N];
static uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];

static inline int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(sock, sizeof(sock), "%s/run/courier", dir);
	setenv("XDG_CACHE_HOME", dir, 1);
	synthetic_pubkey(&shapes[0], trusted[0]);
	for (int i = 0; i < N; i++) {
		snprintf(files[i], sizeof(files[i]), "%s/%d.lskv", dir, i);
		names[i] = files[i];
		if (synthetic_write(&shapes[i], files[i], &keys[i], NULL))
			return -1;
	}
	return 0;
}

static inline int teardown(void **state)
{
	return remove_tree(dir);
}

static inline void tick(void)
{
	usleep(10000);
}

static inline unsigned int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline void wait_for_fds(unsigned int n)
{
	for (int i = 0; i < DEADLINE_TICKS && count_fds() != n; i++)
		tick();
	assert_int_equal(count_fds(), n);
}

static inline struct edge_opts plain_opts(void)
{
	return (struct edge_opts){
		.socket = sock,
		.contexts = names,
		.n_contexts = N,
		.courier = { .trusted = (const void *)trusted,
			     .n_trusted = 1,
			     .backend = BUFFER_MEMFD },
	};
}

static inline struct edge *start(void)
{
	const struct edge_opts opts = plain_opts();
	struct lslm_error err = { 0 };
	struct edge *e;

	assert_ok(edge_start(&e, &opts, &err), &err);
	return e;
}

static inline struct courier_client *client(void)
{
	struct lslm_error err = { 0 };
	struct courier_client *c;

	assert_ok(courier_client_open(&c, sock, 0, &err), &err);
	return c;
}

static inline void wait_complete(struct courier_client *c, uint32_t index)
{
	struct lslm_error err = { 0 };
	struct courier_status s;

	for (int i = 0; i < DEADLINE_TICKS; i++) {
		assert_ok(courier_client_status(c, index, &s, &err), &err);
		if (s.state == COURIER_COMPLETE)
			return;
		tick();
	}
	fail_msg("context %u is not complete: %s", index, s.why);
}

/* With all contexts there: nothing opens or closes a descriptor any more by itself. */
static inline struct edge *start_complete(void)
{
	struct edge *e = start();
	struct courier_client *c = client();
	struct courier_stat stat;
	struct lslm_error err = { 0 };

	for (uint32_t i = 0; i < N; i++)
		wait_complete(c, i);
	courier_client_close(c);
	c = client();
	do {
		assert_ok(courier_client_stat(c, &stat, &err), &err);
	} while (stat.clients > 1);
	courier_client_close(c);
	return e;
}

/* A cloud that takes connections and says nothing; its URL. */
static inline int listen_silently(char url[64])
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
	snprintf(url, 64, "https://127.0.0.1:%u", ntohs(at.sin_port));
	return fd;
}

/* An edge that has asked such a one what it has, and waits; *fd: the cloud. */
static inline struct edge *start_beside_silence(int *fd)
{
	struct edge_opts opts = plain_opts();
	struct lslm_error err = { 0 };
	struct edge *e;
	char url[64];

	*fd = listen_silently(url);
	opts.cloud = url;
	opts.courier.connect_timeout_ms = 600000;
	assert_ok(edge_start(&e, &opts, &err), &err);
	return e;
}

#endif
