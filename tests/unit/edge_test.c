// SPDX-License-Identifier: MIT
/*
 * The edge: what an engine gets of it, its socket and its end. Those who do not keep to the protocol:
 * desk_test (clients), courier_client_test (couriers). Real processes: tests/net/edge.test.
 */
#include "edge_rig.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "net/delivery.h"
#include "serve/local_socket.h"

/* ---- what an engine gets ---- */

static void edge__lists_and_counts(void **state)
{
	struct edge *e = start();
	struct courier_client *c = client();
	struct lslm_error err = { 0 };
	struct courier_status s;
	struct courier_entry x;
	struct courier_stat stat;

	for (uint32_t i = 0; i < N; i++) {
		wait_complete(c, i);
		assert_ok(courier_client_list(c, i, &x, &err), &err);
		assert_int_equal(x.state, COURIER_COMPLETE);
		assert_int_equal(x.n_tokens, shapes[i].n_tokens);
		assert_memory_equal(x.key, keys[i].b, KV_HASH_BYTES);
		assert_string_equal(x.title, "synthetic");
		assert_ok(courier_client_status(c, i, &s, &err), &err);
		assert_int_equal(s.blocks_total, shapes[i].n_tokens / 64 * shapes[i].n_layer);
		assert_int_equal(s.blocks_ready, s.blocks_total);
		assert_int_equal(s.blocks_from[CONTROL_FROM_FILE], s.blocks_total);
		assert_int_equal(strncmp(s.path, "file", 4), 0);
		assert_string_equal(s.backend, i == 2 ? "" : "memfd");
	}
	assert_int_equal(courier_client_list(c, N, &x, &err), -ENOENT);
	assert_int_equal(courier_client_list(c, UINT32_MAX, &x, &err), -ENOENT);
	assert_int_equal(courier_client_status(c, N, &s, &err), -ENOENT);
	assert_ok(courier_client_stat(c, &stat, &err), &err);
	assert_int_equal(stat.pid, getpid());
	assert_int_equal(stat.n_contexts, N);
	assert_int_equal(stat.clients, 1);
	assert_int_equal(stat.has_store, 0);
	assert_non_null(strstr(stat.store, "off"));
	assert_non_null(strstr(stat.steer, "not asked for"));
	assert_non_null(strstr(stat.buffers, "memfd"));
	courier_client_head(c, 0, 3);
	courier_client_head(c, 0, 2);
	assert_ok(courier_client_status(c, 0, &s, &err), &err);
	assert_int_equal(s.computed, 3);
	courier_client_close(c);
	edge_stop(e);
}

/* Whoever has a descriptor of it cannot change the manifest, not even through /proc as root. */
static void check_constant(int fd, size_t size)
{
	char path[64];
	struct stat st;
	int rw;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, size);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rw = open(path, O_RDWR);
	if (rw < 0)
		return;
	assert_int_equal(pwrite(rw, "x", 1, 0), -1);
	assert_ptr_equal(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0), MAP_FAILED);
	close(rw);
}

static void edge__attaches_with_read_only_descriptors(void **state)
{
	struct edge *e = start();
	struct courier_client *c = client();
	struct lslm_error err = { 0 };
	struct courier_attached a;
	struct courier_status s;
	struct control *control;
	struct buffer *b;
	uint8_t want[32768];
	int fds[COURIER_WIRE_FDS];

	wait_complete(c, 0);
	wait_complete(c, 2);
	assert_ok(courier_client_attach(c, 0, ORDER_TAIL, &a, fds, &err), &err);
	assert_int_equal(a.n_stripes, 7);
	check_constant(fds[0], a.manifest_bytes);
	for (int i = 0; i < COURIER_WIRE_FDS; i++) {
		assert_int_equal(fcntl(fds[i], F_GETFL) & O_ACCMODE, O_RDONLY);
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	}
	assert_ok(buffer_import(&b, fds[1], &err), &err);
	assert_ok(control_import(&control, fds[2], &err), &err);
	assert_null(buffer_data(b));
	assert_true(buffer_size(b) >= a.buffer_bytes);
	assert_int_equal(control_tail(control), 0);
	assert_int_equal(a.buffer_bytes, 7 * 3 * sizeof(want));
	for (uint32_t i = 0; i < 7; i++) {
		uint8_t *stripe = malloc(3 * sizeof(want));

		synthetic_stripe(&shapes[0], i, stripe);
		assert_memory_equal((const uint8_t *)buffer_ro_data(b) + i * 3 * sizeof(want),
				    stripe, 3 * sizeof(want));
		free(stripe);
	}
	close(fds[0]);
	assert_ok(courier_client_status(c, 0, &s, &err), &err);
	assert_int_equal(s.engines, 1);
	/* Nothing to receive: its manifest is all. */
	assert_ok(courier_client_attach(c, 2, ORDER_LAYER, &a, fds, &err), &err);
	assert_int_equal(a.n_stripes, 0);
	check_constant(fds[0], a.manifest_bytes);
	assert_int_equal(fds[1], -1);
	assert_int_equal(fds[2], -1);
	close(fds[0]);
	/* The courier's end leaves what is here. */
	edge_stop(e);
	assert_true(courier_client_is_over(c, &err));
	assert_int_equal(err.code, -ECONNRESET);
	assert_int_equal(courier_client_status(c, 0, &s, &err), -EPIPE);
	assert_int_equal(control_tail(control), 0);
	control_close(control);
	buffer_close(b);
	courier_client_close(c);
}

static int open_named(const char *name, struct lslm_error *err)
{
	const struct delivery_remote_opts o = { .socket = sock,
						.context = name,
						.timeout_ms = 60000 };
	struct delivery *d;
	int ret = delivery_open_remote(&d, &o, err);

	if (ret)
		return ret;
	ret = (int)d->manifest->n_tokens;
	d->ops->close(d);
	return ret;
}

static void delivery__finds_by_key_and_title(void **state)
{
	uint8_t other[1][MANIFEST_PUBKEY_BYTES] = { { 7 } };
	struct delivery_remote_opts o = { .socket = sock,
					  .trusted = (const void *)other,
					  .n_trusted = 1 };
	struct lslm_error err = { 0 };
	struct edge *e = start();
	struct delivery *d;
	char hex[KV_HASH_TEXT];

	for (int i = 0; i < N; i++) {
		kv_hash_format(&keys[i], hex);
		assert_int_equal(open_named(hex, &err), (int)shapes[i].n_tokens);
		hex[12] = 0;
		assert_int_equal(open_named(hex, &err), (int)shapes[i].n_tokens);
		for (char *p = hex; *p; p++)
			*p = (char)toupper(*p);
		assert_int_equal(open_named(hex, &err), (int)shapes[i].n_tokens);
	}
	assert_int_equal(open_named("synthetic", &err), -ENOTUNIQ);
	assert_int_equal(open_named(NULL, &err), -ENOTUNIQ);
	assert_int_equal(open_named("", &err), -ENOTUNIQ);
	assert_int_equal(open_named("synth", &err), -ENXIO);
	hex[0] = hex[0] == '0' ? '1' : '0';
	assert_int_equal(open_named(hex, &err), -ENXIO);
	assert_non_null(strstr(err.text, sock));
	/* Another publisher than those that this engine believes. */
	o.context = hex;
	kv_hash_format(&keys[0], hex);
	assert_int_equal(delivery_open_remote(&d, &o, &err), -EKEYREJECTED);
	o.trusted = (const void *)trusted;
	assert_ok(delivery_open_remote(&d, &o, &err), &err);
	d->ops->close(d);
	edge_stop(e);
	assert_int_equal(open_named(hex, &err), -ENOENT);
}

/* What is not there yet may be among what the cloud has not yet listed. */
static void delivery__waits_for_what_a_cloud_may_list(void **state)
{
	struct delivery_remote_opts o = { .socket = sock,
					  .context = "synth",
					  .trusted = (const void *)trusted,
					  .n_trusted = 1,
					  .timeout_ms = 100 };
	struct lslm_error err = { 0 };
	struct courier_client *c;
	struct delivery *d;
	int fd;
	struct edge *e = start_beside_silence(&fd);

	c = client();
	for (uint32_t i = 0; i < N; i++)
		wait_complete(c, i);
	courier_client_close(c);
	assert_int_equal(delivery_open_remote(&d, &o, &err), -ENXIO);
	assert_non_null(strstr(err.text, "does not have it yet"));
	edge_stop(e);
	close(fd);
}

/* ---- the socket ---- */

static void socket__is_this_users_alone(void **state)
{
	struct lslm_error err = { 0 };
	struct local_socket *s;
	struct stat st;
	char group[16];

	umask(0);
	assert_ok(local_socket_open(&s, sock, NULL, &err), &err);
	assert_int_equal(lstat(sock, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
	local_socket_close(s);
	assert_int_equal(lstat(sock, &st), -1);
	snprintf(group, sizeof(group), "%d", getgid());
	assert_ok(local_socket_open(&s, sock, group, &err), &err);
	assert_int_equal(lstat(sock, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	local_socket_close(s);
	assert_int_equal(local_socket_open(&s, sock, "no such group", &err), -EINVAL);
	umask(022);
}

static void socket__one_serves_it(void **state)
{
	char path[200], want[32], other[80];
	struct lslm_error err = { 0 };
	struct edge_opts opts = plain_opts();
	struct local_socket *s;
	struct edge *e = start(), *second;
	FILE *f;

	assert_int_equal(edge_start(&second, &opts, &err), -EADDRINUSE);
	snprintf(want, sizeof(want), "process %d", getpid());
	assert_non_null(strstr(err.text, want));
	edge_stop(e);
	/* What is no socket is somebody's file. */
	snprintf(other, sizeof(other), "%s/file", dir);
	f = fopen(other, "w");
	fputs("mine", f);
	fclose(f);
	assert_int_equal(local_socket_open(&s, other, NULL, &err), -EEXIST);
	assert_int_equal(unlink(other), 0);
	memset(path, 'x', sizeof(path));
	memcpy(path, dir, strlen(dir));
	path[strlen(dir)] = '/';
	path[150] = 0;
	assert_int_equal(local_socket_open(&s, path, NULL, &err), -ENAMETOOLONG);
}

/* A killed one leaves its socket; the next one takes its place. */
static void socket__of_a_killed_one_is_replaced(void **state)
{
	struct courier_client *c;
	struct lslm_error err = { 0 };
	int ready[2], status;
	struct edge *e;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		const struct edge_opts opts = plain_opts();

		if (edge_start(&e, &opts, NULL) || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	c = client();
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(courier_client_is_over(c, &err));
	assert_non_null(strstr(err.text, "gone away"));
	courier_client_close(c);
	assert_int_equal(access(sock, F_OK), 0);
	assert_int_equal(courier_client_open(&c, sock, 0, &err), -ECONNREFUSED);
	e = start();
	c = client();
	courier_client_close(c);
	edge_stop(e);
}

/* ---- its life ---- */

/* Stopped at any moment, nothing is left. */
static void edge__stops_at_any_time(void **state)
{
	const unsigned int before = count_fds();
	struct edge *e;

	for (unsigned int i = 0; i < 30; i++) {
		e = start();
		usleep(i * 100);
		edge_stop(e);
	}
	assert_int_equal(count_fds(), before);
}

static void edge__refuses_what_is_no_clouds_url(void **state)
{
	char url[SHELF_SOURCE_BYTES] = "https://";
	struct edge_opts opts = plain_opts();
	struct lslm_error err = { 0 };
	struct edge *e;

	opts.cloud = "http://cloud";
	assert_int_equal(edge_start(&e, &opts, &err), -EINVAL);
	/* One whose contexts' URLs would be cut. */
	memset(url + strlen(url), 'x', sizeof(url) - strlen(url) - 1);
	opts.cloud = url;
	assert_int_equal(edge_start(&e, &opts, &err), -ENAMETOOLONG);
}

static void edge__without_steering(void **state)
{
	struct edge_opts opts = plain_opts();
	struct lslm_error err = { 0 };
	struct courier_client *c;
	struct courier_stat stat;
	struct edge *e;

	opts.steer = "no-such-if";
	assert_ok(edge_start(&e, &opts, &err), &err);
	c = client();
	assert_ok(courier_client_stat(c, &stat, &err), &err);
	assert_int_equal(stat.has_steer, 0);
	assert_non_null(strstr(stat.steer, "off: no-such-if: no such network interface"));
	courier_client_close(c);
	edge_stop(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edge__lists_and_counts),
		cmocka_unit_test(edge__attaches_with_read_only_descriptors),
		cmocka_unit_test(delivery__finds_by_key_and_title),
		cmocka_unit_test(delivery__waits_for_what_a_cloud_may_list),
		cmocka_unit_test(socket__is_this_users_alone),
		cmocka_unit_test(socket__one_serves_it),
		cmocka_unit_test(socket__of_a_killed_one_is_replaced),
		cmocka_unit_test(edge__stops_at_any_time),
		cmocka_unit_test(edge__refuses_what_is_no_clouds_url),
		cmocka_unit_test(edge__without_steering),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("edge", tests, setup, teardown);
}
