// SPDX-License-Identifier: MIT
/*
 * What linux/lslm.h says about sessions: every rule about an argument, a right or a limit with
 * the exact errno, the ring's mappings, and sessions and sockets that end in any order while
 * datagrams arrive. Run as root with the module loaded; what gets placed is place_test.c.
 */
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "session.h"

enum { CHUNK = 512, UNIT = 4096 };

static int dev;
static size_t page;

static void test_create_errors(void)
{
	const int udp = udp_socket(AF_INET), tcp = socket(AF_INET, SOCK_STREAM, 0);
	const int local = socket(AF_UNIX, SOCK_DGRAM, 0), lite = socket(AF_INET, SOCK_DGRAM, 136);
	const int encap = UDP_ENCAP_L2TPINUDP, other = udp_socket(AF_INET6);
	struct rlimit old, none = { 0 };
	uint32_t a = 0, b = 0;
	int first, second;

	is(session_create(dev, -1, 1, 64, NULL), -EBADF, "no descriptor");
	is(session_create(dev, dev, 1, 64, NULL), -ENOTSOCK, "no socket");
	is(session_create(dev, tcp, 1, 64, NULL), -EPROTONOSUPPORT, "a TCP socket");
	is(session_create(dev, local, 1, 64, NULL), -EPROTONOSUPPORT, "a unix socket");
	if (lite >= 0)
		is(session_create(dev, lite, 1, 64, NULL), -EPROTONOSUPPORT, "a UDP-Lite socket");
	else
		ok(true, "a UDP-Lite socket: not in this kernel");
	is(session_create(dev, udp, 0, 64, NULL), -EINVAL, "no slots");
	is(session_create(dev, udp, 65537, 64, NULL), -EINVAL, "too many slots");
	is(session_create(dev, udp, 1, 32, NULL), -EINVAL, "a ring too small");
	is(session_create(dev, udp, 1, 96, NULL), -EINVAL, "a ring that is no power of two");
	is(session_create(dev, udp, 1, 131072, NULL), -EINVAL, "a ring too large");

	first = session_create(dev, udp, 1, 64, &a);
	ok(first >= 0 && a, "the least of everything");
	is(fcntl(first, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "it is close-on-exec");
	is(session_create(dev, udp, 1, 64, NULL), -EBUSY, "a socket that has a session");
	second = session_create(dev, other, 65536, 65536, &b);
	ok(second >= 0 && b && a != b, "the most of everything, and another number");
	close(first);
	first = session_create(dev, udp, 1, 64, NULL);
	ok(first >= 0, "a socket can be attached again");
	close(first);
	close(second);

	getrlimit(RLIMIT_NOFILE, &old);
	none.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_NOFILE, &none);
	is(session_create(dev, udp, 1, 64, NULL), -EMFILE, "no descriptor left");
	setrlimit(RLIMIT_NOFILE, &old);
	first = session_create(dev, udp, 1, 64, NULL);
	ok(first >= 0, "it left nothing at the socket");
	close(first);
	if (setsockopt(udp, SOL_UDP, UDP_ENCAP, &encap, sizeof(encap)))
		bail("UDP_ENCAP");
	is(session_create(dev, udp, 1, 64, NULL), -EBUSY, "a socket with another encapsulation");
	close(udp);
	close(tcp);
	close(local);
	close(lite);
	close(other);
}

static void test_key_errors(void)
{
	struct session s = session_open(dev, AF_INET, 1, 64);
	const uint32_t cipher = LSLM_CIPHER_CHACHA20POLY1305;

	is(session_key(s.fd, 3, cipher, s.secret, 1ULL << 48, 86400), 0, "the most of a key");
	is(session_key(s.fd, 0, cipher, s.secret, 1, 1), 0, "the least of a key");
	is(session_key(s.fd, 4, cipher, s.secret, 1, 1), -EINVAL, "key 4");
	is(session_key(s.fd, 0, 3, s.secret, 1, 1), -EINVAL, "an unknown cipher");
	is(session_key(s.fd, 0, cipher, s.secret, 0, 1), -EINVAL, "no packets");
	is(session_key(s.fd, 0, cipher, s.secret, (1ULL << 48) + 1, 1), -EINVAL,
	   "too many packets");
	is(session_key(s.fd, 0, cipher, s.secret, 1, 0), -EINVAL, "no lifetime");
	is(session_key(s.fd, 0, cipher, s.secret, 1, 86401), -EINVAL, "too long a lifetime");
	is(session_key(s.fd, 0, LSLM_CIPHER_NONE, NULL, 0, 0), 0, "a key is removed");
	is(session_key(s.fd, 0, LSLM_CIPHER_PLAIN, NULL, 1, 1), -EOPNOTSUPP,
	   "no authentication, where that is off");
	is(dev_info(dev).out_off[LSLM_FEATURE_PLAIN], LSLM_OFF_PARAM, "and GET_INFO says why");
	session_close(&s);
}

/* One argument of a bind that is otherwise good. */
static int bind_with(int fd, const struct lslm_region_bind *change)
{
	struct lslm_region_bind arg = *change;

	arg.size = sizeof(arg);
	return call(fd, LSLM_REGION_BIND, &arg);
}

static void test_bind_values(const struct session *s, int buffer)
{
	static uint32_t units[4097], large[4095];
	const uint32_t zero[2] = { 64, 0 };
	const uint64_t all = 1, none = 0;
	const struct lslm_region_bind good = {
		.buffer = buffer, .chunk = 256, .n_units = 1, .units = (uintptr_t)units
	};
	static const uint32_t chunks[] = { 0, 192, 255, 320 + 1, 65472, UINT32_MAX };
	struct lslm_region_bind arg;

	for (int i = 0; i < 4097; i++)
		units[i] = 64;
	for (int i = 0; i < 4095; i++)
		large[i] = 262145;
	is(bind_with(s->fd, &good), 0, "a good bind");
	for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
		arg = good;
		arg.chunk = chunks[i];
		is(bind_with(s->fd, &arg), -EINVAL, "chunk %u", chunks[i]);
	}
	arg = good, arg.slot = 2;
	is(bind_with(s->fd, &arg), -EINVAL, "a slot that is not there");
	arg = good, arg.n_units = 0;
	is(bind_with(s->fd, &arg), -EINVAL, "no units");
	arg = good, arg.n_units = 4097;
	is(bind_with(s->fd, &arg), -EINVAL, "too many units");
	arg = good, arg.n_units = 2, arg.units = (uintptr_t)zero;
	is(bind_with(s->fd, &arg), -EINVAL, "an empty unit");
	arg = good, arg.done = (uintptr_t)&all;
	is(bind_with(s->fd, &arg), -EINVAL, "all units are there");
	arg = good, arg.done = (uintptr_t)&none;
	is(bind_with(s->fd, &arg), 0, "none is there");
	arg = good, arg.units = 0;
	is(bind_with(s->fd, &arg), -EFAULT, "units cannot be read");
	arg = good, arg.done = 1;
	is(bind_with(s->fd, &arg), -EFAULT, "done cannot be read");
	arg = good, arg.n_units = 4095, arg.units = (uintptr_t)large;
	is(bind_with(s->fd, &arg), -EFBIG, "more than 2^22 chunks");
	large[0] = 1 << 30;
	is(bind_with(s->fd, &arg), -EFBIG, "more than 1 GiB");
	arg.n_units = 1, arg.chunk = 65408;
	is(bind_with(s->fd, &arg), -ERANGE, "1 GiB in a small buffer");
}

static void test_bind_rights(const struct session *s, int buffer, size_t bytes)
{
	const int ro = buf_ro(buffer);

	is(region_bind(s->fd, 0, -1, 0, 256, 1, 64), -EBADF, "no descriptor");
	is(region_bind(s->fd, 0, s->socket, 0, 256, 1, 64), -EBADF, "no buffer");
	is(region_bind(s->fd, 0, s->fd, 0, 256, 1, 64), -EBADF, "a session as the buffer");
	is(region_bind(s->fd, 0, ro, 0, 256, 1, 64), -EACCES, "a read-only buffer");
	ok(region_bind(s->fd, 0, buffer, bytes - 64, 256, 1, 64) > 0, "up to the buffer's end");
	is(region_bind(s->fd, 0, buffer, bytes - 64, 256, 1, 65), -ERANGE, "a byte beyond it");
	is(region_bind(s->fd, 0, buffer, bytes, 256, 1, 1), -ERANGE, "behind it");
	is(region_bind(s->fd, 0, buffer, UINT64_MAX, 256, 1, 64), -ERANGE, "a base that wraps");
	close(ro);
}

static void test_bind_holds(const struct session *s, int buffer)
{
	uint32_t retained;

	region_unbind(s->fd, 0);
	is(buf_query(buffer).out_holds, 0, "nothing bound, nothing held");
	is(buf_purge(buffer, NULL), 0, "an unbound buffer can be purged");
	is(region_bind(s->fd, 0, buffer, 0, 256, 1, 64), -ESTALE, "a purged buffer");
	is(buf_query(buffer).out_holds, 0, "the refused bind holds nothing");
	is(buf_will_need(buffer, &retained, NULL), 0, "it is needed again");
	ok(region_bind(s->fd, 0, buffer, 0, 256, 1, 64) > 0, "and can be bound");
	is(buf_query(buffer).out_holds, 1, "a bound buffer is held");
	is(buf_purge(buffer, NULL), -EBUSY, "and not purged");
	ok(region_bind(s->fd, 1, buffer, 0, 256, 1, 64) > 0, "it can be bound twice");
	ok(region_bind(s->fd, 0, buffer, 64, 256, 1, 64) > 0, "a bind replaces what was bound");
	is(buf_query(buffer).out_holds, 2, "and its hold");
	is(session_stats(s->fd).out_regions, 2, "two regions are bound");
	is(region_unbind(s->fd, 0), 0, "unbind");
	is(region_unbind(s->fd, 0), -ENOENT, "unbind what is not bound");
	is(region_unbind(s->fd, 2), -EINVAL, "unbind a slot that is not there");
	is(region_unbind(s->fd, 1), 0, "unbind the other");
	is(buf_purge(buffer, NULL), 0, "then it can be purged");
	buf_will_need(buffer, NULL, NULL);
}

static void test_generations(const struct session *s, int buffer)
{
	const int64_t a = region_bind(s->fd, 1, buffer, 0, 256, 1, 64);
	const int64_t b = region_bind(s->fd, 1, buffer, 0, 256, 1, 64);
	int64_t c;

	ok(a > 0 && b > a, "a generation grows with a bind");
	region_unbind(s->fd, 1);
	c = region_bind(s->fd, 1, buffer, 0, 256, 1, 64);
	ok(c > b + 1, "and with an unbind");
}

static void test_missing_errors(const struct session *s, int buffer)
{
	const int64_t g = region_bind(s->fd, 0, buffer, 0, 256, 2, 1000);
	struct lslm_range r[2];
	uint32_t missing = 0;

	is(region_missing(s->fd, 0, g, 0, r, 2, &missing), 1, "all is missing, in one range");
	ok(r[0].first == 0 && r[0].count == 8 && missing == 8, "which is the whole");
	is(region_missing(s->fd, 0, g, 3, r, 2, &missing), 1, "from chunk 3 on");
	ok(r[0].first == 3 && r[0].count == 5 && missing == 8, "five are missing, of eight");
	is(region_missing(s->fd, 0, g, 8, r, 2, NULL), 0, "from behind the last");
	is(region_missing(s->fd, 0, g, UINT32_MAX, r, 2, NULL), 0, "from far behind the last");
	is(region_missing(s->fd, 0, g - 1, 0, r, 2, NULL), -ESTALE, "an older generation");
	is(region_missing(s->fd, 2, g, 0, r, 2, NULL), -EINVAL, "a slot that is not there");
	is(region_missing(s->fd, 0, g, 0, r, 0, NULL), -EINVAL, "no room at all");
	is(region_missing(s->fd, 0, g, 0, r, 1025, NULL), -EINVAL, "too much room");
	is(region_missing(s->fd, 0, g, 0, NULL, 1, NULL), -EFAULT, "ranges cannot be written");
	region_unbind(s->fd, 0);
	is(region_missing(s->fd, 0, g, 0, r, 2, NULL), -ESTALE, "nothing is bound");
}

static void test_regions(void)
{
	struct session s = session_open(dev, AF_INET6, 2, 64);
	const size_t bytes = 4 * page;
	const int buffer = buf_create(dev, bytes, 0);

	test_bind_values(&s, buffer);
	test_bind_rights(&s, buffer, bytes);
	test_bind_holds(&s, buffer);
	test_generations(&s, buffer);
	test_missing_errors(&s, buffer);
	session_close(&s);
	is(buf_query(buffer).out_holds, 0, "a closed session holds nothing");
	close(buffer);
}

/* In a child without privilege; a bit for each thing that went wrong. */
static int within_memlock(int session, int buffer)
{
	struct rlimit limit = { 8 * page, 8 * page };
	int wrong = 0;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) || setresuid(65534, 65534, 65534))
		return 128;
	wrong |= (region_bind(session, 0, buffer, 0, 512, 1, 9 * page) != -ENOMEM) << 0;
	wrong |= (region_bind(session, 0, buffer, page - 1, 512, 1, 7 * page) <= 0) << 1;
	wrong |= (region_bind(session, 1, buffer, 0, 512, 1, 1) != -ENOMEM) << 2;
	wrong |= (region_unbind(session, 0) != 0) << 3;
	wrong |= (region_bind(session, 1, buffer, 0, 512, 1, 8 * page) <= 0) << 4;
	return wrong;
}

/* Of a 2 MiB page all is locked by any of it. Room for one, and for a page that is small. */
static int within_memlock_huge(int session, int buffer)
{
	const size_t huge = dev_info(dev).out_huge_page_size;
	struct rlimit limit = { huge + page, huge + page };
	int wrong = 0;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) || setresuid(65534, 65534, 65534))
		return 128;
	wrong |= (region_bind(session, 0, buffer, huge - page, 512, 1, 2 * page) != -ENOMEM) << 0;
	wrong |= (region_bind(session, 0, buffer, huge - page, 512, 1, page) <= 0) << 1;
	wrong |= (region_bind(session, 1, buffer, 0, 512, 1, 1) != -ENOMEM) << 2;
	wrong |= (region_bind(session, 1, buffer, 2 * huge, 512, 1, page) <= 0) << 3;
	wrong |= (region_unbind(session, 0) || region_unbind(session, 1)) << 4;
	wrong |= (region_bind(session, 1, buffer, 0, 512, 1, huge) <= 0) << 5;
	return wrong;
}

static int memlock_child(int (*child)(int session, int buffer), int session, int buffer)
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(child(session, buffer));
	waitpid(pid, &status, 0);
	return status;
}

static void test_memlock(void)
{
	struct session s = session_open(dev, AF_INET, 2, 64);
	const int buffer = buf_create(dev, 16 * page, 0);
	int huge;

	is(memlock_child(within_memlock, s.fd, buffer), 0,
	   "locked pages count against RLIMIT_MEMLOCK, and are given back");
	is(region_unbind(s.fd, 1), 0, "what a process bound that is gone can be unbound");
	if (dev_has(dev, LSLM_FEATURE_HUGE)) {
		huge = buf_create(dev, 2 * dev_info(dev).out_huge_page_size + page, LSLM_BUF_HUGE);
		is(memlock_child(within_memlock_huge, s.fd, huge), 0, "huge ones as a whole");
		close(huge);
	} else {
		skip("GET_INFO says that huge pages are off", "huge ones as a whole");
	}
	session_close(&s);
	close(buffer);
}

static void test_mmap(void)
{
	struct session s = session_open(dev, AF_INET, 1, 1024);
	const size_t whole = page + 1024 * sizeof(struct lslm_done);
	const int both = PROT_READ | PROT_WRITE;
	char *p;

	is(map_error(s.fd, page, both, MAP_SHARED, 0), 0, "the consumer's page, read-write");
	is(map_error(s.fd, whole, PROT_READ, MAP_SHARED, page), 0, "the ring, read-only");
	is(map_error(s.fd, page, PROT_READ, MAP_SHARED, page), 0, "its first page alone");
	is(map_error(s.fd, page, both, MAP_PRIVATE, 0), -EINVAL, "private");
	is(map_error(s.fd, 2 * page, PROT_READ, MAP_SHARED, 0), -EINVAL, "both in one mapping");
	is(map_error(s.fd, whole + page, PROT_READ, MAP_SHARED, page), -EINVAL, "beyond the ring");
	is(map_error(s.fd, page, PROT_READ, MAP_SHARED, (off_t)1 << 40), -EINVAL, "far beyond");
	is(map_error(s.fd, whole, both, MAP_SHARED, page), -EACCES, "the ring, read-write");
	is(map_error(s.fd, page, PROT_READ | PROT_EXEC, MAP_SHARED, 0), -EPERM, "executable");
	p = mmap(NULL, page, PROT_READ, MAP_SHARED, s.fd, page);
	is(mprotect(p, page, both) ? -errno : 0, -EACCES, "the ring cannot be made writable");
	is(mremap(p, page, 2 * page, MREMAP_MAYMOVE) == MAP_FAILED ? -errno : 0, -EFAULT,
	   "nor larger");
	munmap(p, page);
	session_close(&s);
}

static void test_fdinfo(void)
{
	struct session s = session_open(dev, AF_INET, 1, 64);
	char path[64], line[128];
	unsigned int number = 0;
	int lines = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", s.fd);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "lslm-session:\t%u", &number);
		lines += !strncmp(line, "lslm-", 5);
	}
	if (f)
		fclose(f);
	is(number, s.number, "fdinfo tells the session's number");
	is(lines, 12 + LSLM_DROP_COUNT - 1, "and every counter");
	session_close(&s);
}

static void test_close_ends_it(void)
{
	struct session s = session_open(dev, AF_INET, 1, 64);
	const int buffer = buf_create(dev, UNIT, 0);
	char *p = buf_map(buffer, UNIT, PROT_READ), got[64];
	uint8_t data[UNIT], packet[CHUNK + LSLM_WIRE_OVERHEAD];
	const int64_t g = region_bind(s.fd, 0, buffer, 0, CHUNK, 1, UNIT);
	struct lslm_header h;
	size_t size;

	memset(data, 7, sizeof(data));
	h = next_header(&s, 0, g, 0);
	size = seal_packet(packet, &h, data, CHUNK, s.secret);
	/* The ring stays mapped: that must not keep the session. */
	close(s.fd);
	s.fd = -1;
	is(send(s.sender, packet, size, 0), size, "DATA after the session was closed");
	is(receive(s.socket, got, sizeof(got)), sizeof(got), "reaches recv()");
	ok(p[0] == 0 && p[CHUNK - 1] == 0, "and is not placed");
	is(buf_query(buffer).out_holds, 0, "the mapped ring holds no buffer");
	is(s.ring->producer, 0, "and can still be read");
	session_close(&s);
	munmap(p, UNIT);
	close(buffer);
}

static void test_socket_first(void)
{
	struct session s = session_open(dev, AF_INET, 1, 64);
	const int buffer = buf_create(dev, UNIT, 0);
	const int64_t g = region_bind(s.fd, 0, buffer, 0, CHUNK, 1, UNIT);
	uint8_t data[CHUNK] = { 0 };

	ok(send_chunk(&s, 0, g, 0, data, CHUNK), "a datagram while the socket is open");
	close(s.socket);
	s.socket = -1;
	/* Nobody listens there: the answer is an ICMP error, which the next send() reports. */
	send(s.sender, data, 1, 0);
	is(session_stats(s.fd).out_placed, 1, "the session goes on without its socket");
	is(region_unbind(s.fd, 0), 0, "and takes calls");
	session_close(&s);
	is(buf_query(buffer).out_holds, 0, "closing it then ends all");
	close(buffer);
}

/* Whom the flood is for, in memory that the flood shares. */
struct target {
	volatile uint32_t number;
	volatile uint32_t generation;
	uint8_t secret[32];
};

/* A child that sends genuine DATA as long as it lives. */
static pid_t start_flood(int sender, int receiver, const struct target *target)
{
	static uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD], data[CHUNK];
	const pid_t pid = fork();
	struct lslm_header h = { .opcode = LSLM_OP_DATA, .version = LSLM_WIRE_VERSION };

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(receiver);
	for (;; h.counter++) {
		h.session = target->number;
		h.generation = target->generation;
		h.slot = h.counter & 3;
		h.offset = h.counter / 4 % (UNIT / CHUNK) * CHUNK;
		send(sender, packet, seal_packet(packet, &h, data, CHUNK, target->secret), 0);
	}
}

static int udp_at(const struct sockaddr_in *address)
{
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (void *)address, sizeof(*address)))
		bail("the same port again");
	return fd;
}

static int unload(void)
{
	int status = 0;
	const pid_t pid = fork();

	if (!pid)
		_exit(syscall(SYS_delete_module, "lslm", O_NONBLOCK) ? errno : 0);
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

/* A session that places, and ends in a way that depends on the round. What it placed. */
static uint64_t one_life(int round, int *sock, const struct sockaddr_in *address, int buffer,
			 struct target *target)
{
	uint32_t number = 0;
	const int fd = session_create(dev, *sock, 4, 64, &number);
	uint64_t placed = 0;

	if (fd < 0)
		bail("LSLM_SESSION_CREATE under load");
	session_key(fd, 0, LSLM_CIPHER_CHACHA20POLY1305, target->secret, 1ULL << 48, 3600);
	for (int i = 0; i < 4; i++)
		target->generation = region_bind(fd, i, buffer, i * UNIT, CHUNK, 1, UNIT);
	target->number = number;
	for (int i = 0; i < 60000 && !placed; i++) {
		usleep(1000);
		placed = session_stats(fd).out_placed;
	}
	if (round & 1)
		region_unbind(fd, round & 3);
	if (round & 2) {
		close(*sock);
		close(fd);
		*sock = udp_at(address);
	} else {
		close(fd);
	}
	return placed;
}

static void test_ends_under_load(void)
{
	struct target *target =
		mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	int sock = udp_socket(AF_INET), placing = 0, busy = 0, idle;
	const int sender = udp_sender(AF_INET, sock), buffer = buf_create(dev, 4 * UNIT, 0);
	pid_t flood;

	getsockname(sock, (void *)&address, &length);
	fflush(stdout);
	flood = start_flood(sender, sock, target);
	for (int i = 0; i < 24; i++) {
		placing += one_life(i, &sock, &address, buffer, target) > 0;
		idle = session_create(dev, sock, 1, 64, NULL);
		busy += unload() == EWOULDBLOCK;
		close(idle);
	}
	is(placing, 24, "sessions and sockets end in any order under load");
	is(busy, 24, "rmmod is refused meanwhile");
	kill(flood, SIGKILL);
	waitpid(flood, NULL, 0);
	is(buf_query(buffer).out_holds, 0, "nothing is left of them");
	close(sock);
	close(sender);
	close(buffer);
	munmap(target, page);
}

/* Two processes at the same slots. */
static void test_binds_at_once(void)
{
	struct session s = session_open(dev, AF_INET, 2, 64);
	const int buffer = buf_create(dev, 16 * UNIT, 0);
	int status = -1, bad = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	for (int i = 0; i < 200; i++) {
		const int64_t g = region_bind(s.fd, i & 1, buffer, 0, CHUNK, 16, UNIT);
		struct lslm_range range;
		int ret;

		bad += g <= 0;
		ret = region_missing(s.fd, i & 1, g, 0, &range, 1, NULL);
		bad += ret != 1 && ret != -ESTALE;
		ret = region_unbind(s.fd, i & 1);
		bad += ret && ret != -ENOENT;
	}
	if (!pid)
		_exit(bad);
	waitpid(pid, &status, 0);
	is(bad, 0, "two processes bind and unbind the same slots");
	is(status, 0, "the other one too");
	region_unbind(s.fd, 0);
	region_unbind(s.fd, 1);
	is(buf_query(buffer).out_holds, 0, "no hold is lost or left");
	session_close(&s);
	close(buffer);
}

int main(void)
{
	page = sysconf(_SC_PAGESIZE);
	dev = dev_open();
	ok(dev_has(dev, LSLM_FEATURE_SESSION), "GET_INFO says that there are sessions");
	test_create_errors();
	test_key_errors();
	test_regions();
	test_memlock();
	test_mmap();
	test_fdinfo();
	test_close_ends_it();
	test_socket_first();
	test_ends_under_load();
	test_binds_at_once();
	close(dev);
	return tap_done();
}
