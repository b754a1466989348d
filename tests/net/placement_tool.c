// SPDX-License-Identifier: MIT
/*
 * A small edge for network tests of the cloud's side: it asks for a session, finds the path's MTU, receives,
 * and checks every digest.
 *
 *   placement_tool URL CACERT TOKEN-FILE [SECONDS]
 *
 * URL is a context's. Prints "ready CHUNK RTT-MS" when the path is known, then ten times a second
 * "SECONDS BYTES", the payload placed since the start, and in the end "done AUTHENTIC PLACED DUPLICATE". With
 * SECONDS it asks for the context over and over for so long. Exit code 1 with a line when something is wrong.
 */
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hex.h"
#include "kv/manifest.h"
#include "net/http_client.h"
#include "tests/placement.h"

#define MS     1000000ULL
#define SECOND (1000 * MS)

enum {
	EDGE = 0x1234567,
	LARGEST = 8952,
	PROBE_MS = 500,
	SILENCE_MS = 3000, /* then the path is tried anew */
};

static struct placement edge;
static struct manifest *manifest;
static int fd;
static uint64_t began;

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("placement_tool: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* ---- over HTTPS ---- */

struct text {
	char data[4096];
	size_t size;
};

static int keep(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct text *t = arg;

	if (t->size + size >= sizeof(t->data))
		return -EMSGSIZE;
	memcpy(t->data + t->size, data, size);
	t->size += size;
	return 0;
}

static void connect_to(const char *url, int port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST }, *at;
	char host[128], digits[8];
	int room = 4 << 20;

	if (sscanf(url, "https://[%127[^]]", host) != 1 &&
	    sscanf(url, "https://%127[^:/]", host) != 1)
		die("%s: no host", url);
	snprintf(digits, sizeof(digits), "%d", port);
	if (getaddrinfo(host, digits, &hints, &at))
		die("%s: not an address", host);
	fd = socket(at->ai_family, SOCK_DGRAM, 0);
	if (fd < 0 || connect(fd, at->ai_addr, at->ai_addrlen) < 0)
		die("%s: %s", host, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	freeaddrinfo(at);
}

static void take_grant(const char *text, const char *url)
{
	uint8_t to_edge[LSLM_WIRE_KEY_BYTES], to_cloud[LSLM_WIRE_KEY_BYTES];
	const char *edge_hex, *cloud_hex;
	json_int_t session, most;
	json_t *root;
	int port;

	root = json_loads(text, 0, NULL);
	if (!root ||
	    json_unpack(root, "{s:I, s:i, s:s, s:s, s:I}", "session", &session, "port", &port,
			"to_edge", &edge_hex, "to_cloud", &cloud_hex, "max_packets", &most) < 0 ||
	    hex_parse(to_edge, sizeof(to_edge), edge_hex, strlen(edge_hex)) < 0 ||
	    hex_parse(to_cloud, sizeof(to_cloud), cloud_hex, strlen(cloud_hex)) < 0)
		die("no grant: %s", text);
	edge.cloud = (uint32_t)session;
	placement_key(&edge, 0, to_edge, to_cloud, (uint64_t)most);
	connect_to(url, port);
	json_decref(root);
}

static void ask(const char *url, const char *cacert, const char *token_file)
{
	struct lslm_error err = { 0 };
	struct text reply = { 0 };
	struct http_request req = {
		.method = "POST",
		.exact_size = HTTP_ANY_SIZE,
		.max_size = sizeof(reply.data),
		.data = keep,
		.arg = &reply,
	};
	char path[512], body[256], key[KV_HASH_TEXT];
	const char *contexts = strstr(url, "/v1/contexts/");
	struct http_opts opts = { .cacert = cacert };
	struct http_client *h;
	uint8_t *data;
	size_t size;
	char *token;

	if (!contexts)
		die("%s: not a context's", url);
	if (file_read(token_file, 4096, &token, &size, &err) < 0)
		die("%s", err.text);
	token[strcspn(token, "\n")] = 0;
	opts.token = token;
	snprintf(path, sizeof(path), "%s/manifest", url);
	if (http_open(&h, &opts, &err) < 0 || http_get(h, path, 1 << 28, &data, &size, &err) < 0 ||
	    manifest_parse(&manifest, data, size, &err) < 0)
		die("%s", err.text);
	placement_init(&edge, &manifest->geo, manifest->n_stripes, EDGE);
	kv_hash_format(&manifest->key, key);
	snprintf(path, sizeof(path), "%.*s/v1/sessions", (int)(contexts - url), url);
	snprintf(body, sizeof(body), "{\"context\":\"%s\",\"session\":%d}", key, EDGE);
	req.url = path;
	req.body = body;
	req.body_size = strlen(body);
	if (http_perform(h, &req, &err) < 0)
		die("%s", err.text);
	take_grant(reply.data, url);
	http_close(h);
	free(data);
	free(token);
}

/* ---- over UDP ---- */

static void send_packet(const uint8_t *packet, size_t size)
{
	/* What the path refuses is lost. */
	if (send(fd, packet, size, 0) < 0 && errno == EBADF)
		die("%s", strerror(errno));
}

static void receive(uint64_t until)
{
	static uint8_t packet[PLACEMENT_DATAGRAM];
	struct pollfd p = { fd, POLLIN, 0 };
	uint64_t now = now_ns();
	struct timespec wait = { 0 };
	ssize_t size;

	if (now < until) {
		wait.tv_sec = (time_t)((until - now) / SECOND);
		wait.tv_nsec = (long)((until - now) % SECOND);
	}
	if (ppoll(&p, 1, &wait, NULL) <= 0)
		return;
	while ((size = recv(fd, packet, sizeof(packet), MSG_DONTWAIT)) >= 0)
		placement_take(&edge, packet, (size_t)size, now_ns());
}

/* The largest datagram that gets through, and how long it takes there and back. */
static uint64_t find_path(void)
{
	uint64_t until, sent, rtt = 0;
	uint8_t packet[256];

	edge.probe_size = 0;
	for (int tries = 0; !edge.probe_size && tries < 60; tries++) {
		sent = now_ns();
		send_packet(packet, placement_hello(&edge, packet, LARGEST));
		edge.probe = edge.hello;
		for (until = sent + PROBE_MS * MS; now_ns() < until;) {
			receive(until);
			if (edge.probe_size && !rtt)
				rtt = now_ns() - sent;
		}
	}
	if (!edge.probe_size)
		die("nothing comes over UDP");
	if (placement_bind(&edge, (edge.probe_size - LSLM_WIRE_OVERHEAD) / 64 * 64) < 0)
		die("the context cannot be bound");
	return rtt;
}

static void check_digests(void)
{
	const struct manifest_level *lv = manifest_level(manifest, KV_LEVEL_F16);

	for (uint32_t s = 0; s < manifest->n_stripes; s++) {
		for (uint32_t l = 0; l < manifest->geo.n_layer; l++) {
			struct kv_hash is = kv_digest(edge.memory[s] + (size_t)l * edge.unit_bytes,
						      edge.unit_bytes);

			if (!kv_hash_equal(&is, manifest_digest(manifest, lv, s, l)))
				die("the block of stripe %u, layer %u is wrong", s, l);
		}
	}
}

/* So that there is always something to send. */
static void ask_again(void)
{
	for (uint32_t i = 0; i < edge.rx.n_slots; i++)
		if (!edge.rx.slots[i].region.chunks_missing)
			placement_bind_one(&edge, i, edge.chunk);
}

static void receive_all(uint64_t every, uint64_t end)
{
	uint64_t report_at = 0, print_at = began, heard = now_ns(), had = 0;
	uint8_t packet[2048];

	while (end ? now_ns() < end : placement_missing(&edge) > 0) {
		uint64_t now = now_ns();

		if (end)
			ask_again();
		if (now >= report_at) {
			send_packet(packet, placement_report(&edge, packet, now, true, 0));
			report_at = now + every;
		}
		if (now >= print_at) {
			printf("%.3f %llu\n", (double)(now - began) / 1e9,
			       (unsigned long long)edge.rx.placed_bytes);
			fflush(stdout);
			print_at += SECOND / 10;
		}
		receive(report_at < print_at ? report_at : print_at);
		if (edge.rx.received != had)
			heard = now;
		had = edge.rx.received;
		if (now - heard > SILENCE_MS * MS) {
			find_path();
			heard = now_ns();
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t rtt, every;
	uint8_t packet[2048];
	double seconds;

	if (argc != 4 && argc != 5)
		die("usage: placement_tool URL CACERT TOKEN-FILE [SECONDS]");
	seconds = argc > 4 ? atof(argv[4]) : 0;
	ask(argv[1], argv[2], argv[3]);
	rtt = find_path();
	every = rtt / 4 < 5 * MS ? 5 * MS : rtt / 4 > 50 * MS ? 50 * MS : rtt / 4;
	printf("ready %u %.1f\n", edge.chunk, (double)rtt / 1e6);
	fflush(stdout);
	began = now_ns();
	receive_all(every, seconds > 0 ? began + (uint64_t)(seconds * 1e9) : 0);
	if (!(seconds > 0))
		check_digests();
	send_packet(packet, placement_report(&edge, packet, now_ns(), false, REPORT_OVER));
	printf("done %llu %llu %llu\n", (unsigned long long)edge.rx.received,
	       (unsigned long long)edge.rx.placed_packets,
	       (unsigned long long)edge.rx.drops[LSLM_DROP_DUPLICATE]);
	placement_free(&edge);
	manifest_free(manifest);
	close(fd);
	return 0;
}
