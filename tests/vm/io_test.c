// SPDX-License-Identifier: MIT
/*
 * What other parts of the kernel do with a buffer: io_uring reads a disk into it without a copy, and
 * AF_XDP lets packets land in it. Run as root in a machine with /dev/vda, whose n-th 8 bytes hold
 * the number n, and with the veth pair lslm0 (here) and lslm1 (in the namespace "peer"), from where
 * UDP datagrams arrive.
 */
#include <arpa/inet.h>
#include <liburing.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "device.h"

enum { DISK_BYTES = 4 << 20, FRAME = 2048, FRAMES = 64, RING = 64 };

static bool counts_from(const uint64_t *p, size_t n, uint64_t first)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != first + i)
			return false;
	return true;
}

/* A registered buffer and O_DIRECT: the disk writes where the mapping is. */
static void test_disk(int dev, uint32_t flags, const char *kind)
{
	const int fd = buf_create(dev, DISK_BYTES, flags);
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct iovec iov = { buf_map(fd, DISK_BYTES, PROT_READ | PROT_WRITE), DISK_BYTES };
	const int disk = open("/dev/vda", O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (!ok(fd >= 0 && iov.iov_base && disk >= 0, "a %s buffer and a disk", kind))
		return;
	if (io_uring_queue_init(8, &ring, 0))
		bail("io_uring_queue_init");
	is(io_uring_register_buffers(&ring, &iov, 1), 0, "io_uring registers it");
	for (int i = 0; i < 4; i++) {
		const size_t at = (size_t)i * (DISK_BYTES / 4);

		sqe = io_uring_get_sqe(&ring);
		io_uring_prep_read_fixed(sqe, disk, (char *)iov.iov_base + at, DISK_BYTES / 4, at,
					 0);
	}
	io_uring_submit(&ring);
	for (int i = 0; i < 4; i++) {
		if (io_uring_wait_cqe(&ring, &cqe))
			bail("io_uring_wait_cqe");
		is(cqe->res, DISK_BYTES / 4, "READ_FIXED with O_DIRECT, part %d", i);
		io_uring_cqe_seen(&ring, cqe);
	}
	ok(counts_from(iov.iov_base, DISK_BYTES / 8, 0), "what the disk holds is in the %s buffer",
	   kind);
	io_uring_queue_exit(&ring);
	munmap(iov.iov_base, DISK_BYTES);
	close(disk);
	close(fd);
}

struct xdp_ring {
	_Atomic uint32_t *producer, *consumer;
	void *entries;
};

static struct xdp_ring map_ring(int sock, const struct xdp_ring_offset *o, size_t entry, off_t what)
{
	char *p = mmap(NULL, o->desc + RING * entry, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, sock, what);

	if (p == MAP_FAILED)
		bail("mmap of an AF_XDP ring");
	return (struct xdp_ring){ (_Atomic uint32_t *)(p + o->producer),
				  (_Atomic uint32_t *)(p + o->consumer), p + o->desc };
}

static void set_ring(int sock, int option)
{
	const int n = RING;

	if (setsockopt(sock, SOL_XDP, option, &n, sizeof(n)))
		bail("an AF_XDP ring");
}

/* XDP_REDIRECT needs a program; this one sends all of queue 0 to the socket. */
static void attach_program(const char *object)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "ip link set dev lslm0 xdpgeneric obj %s sec xdp 2>&1 | sed 's/^/# /'", object);
	if (system(command))
		bail("ip link set xdp");
}

static int find_map(void)
{
	FILE *f = popen("bpftool map show name to_socket 2>/dev/null | cut -d: -f1", "r");
	int id = -1;

	if (!f || fscanf(f, "%d", &id) != 1)
		id = -1;
	if (f)
		pclose(f);
	return id;
}

static int update_map(int id, int sock)
{
	/* bpf(2) by number: BPF_MAP_GET_FD_BY_ID 14, BPF_MAP_UPDATE_ELEM 2. */
	struct {
		uint32_t id, next, flags;
	} get = { .id = (uint32_t)id };
	const int map = (int)syscall(321, 14, &get, sizeof(get));
	const uint32_t key = 0, value = (uint32_t)sock;
	struct {
		uint32_t map, pad;
		uint64_t key, value, flags;
	} put = { .map = (uint32_t)map, .key = (uintptr_t)&key, .value = (uintptr_t)&value };

	return map < 0 ? -errno : syscall(321, 2, &put, sizeof(put)) ? -errno : 0;
}

static void send_packets(void)
{
	if (system("ip netns exec peer bash -c 'for i in 1 2 3 4 5 6 7 8; do "
		   "echo lslm-packet-$i > /dev/udp/10.77.0.1/7777; done'"))
		bail("sending");
}

/* The area that the kernel writes packets to is a buffer of the module. */
static void test_xdp(int dev, const char *object)
{
	const size_t size = FRAMES * FRAME;
	const int fd = buf_create(dev, size, 0);
	char *area = buf_map(fd, size, PROT_READ | PROT_WRITE);
	const int sock = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	struct xdp_umem_reg reg = { .addr = (uintptr_t)area, .len = size, .chunk_size = FRAME };
	struct sockaddr_xdp addr = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY };
	struct xdp_mmap_offsets off;
	socklen_t len = sizeof(off);
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct xdp_ring fill, rx;
	int found = 0, outside = 0;

	if (!ok(area && sock >= 0, "a buffer and an AF_XDP socket"))
		return;
	if (!ok(!setsockopt(sock, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)),
		"AF_XDP takes the buffer as its UMEM"))
		return;
	set_ring(sock, XDP_UMEM_FILL_RING);
	set_ring(sock, XDP_UMEM_COMPLETION_RING);
	set_ring(sock, XDP_RX_RING);
	if (getsockopt(sock, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len))
		bail("XDP_MMAP_OFFSETS");
	fill = map_ring(sock, &off.fr, sizeof(uint64_t), XDP_UMEM_PGOFF_FILL_RING);
	rx = map_ring(sock, &off.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
	for (uint32_t i = 0; i < RING / 2; i++)
		((uint64_t *)fill.entries)[i] = (uint64_t)i * FRAME;
	*fill.producer = RING / 2;
	addr.sxdp_ifindex = if_nametoindex("lslm0");
	if (!ok(!bind(sock, (struct sockaddr *)&addr, sizeof(addr)), "it binds to a veth queue"))
		return;
	attach_program(object);
	is(update_map(find_map(), sock), 0, "packets are redirected to it");
	send_packets();
	while (found < 8 && poll(&p, 1, 60000) == 1) {
		const uint32_t at = *rx.consumer;
		const struct xdp_desc *d = (struct xdp_desc *)rx.entries + at % RING;

		if (at == *rx.producer)
			continue;
		outside += d->addr + d->len > size;
		found += memmem(area + d->addr, d->len, "lslm-packet-", 12) != NULL;
		*rx.consumer = at + 1;
	}
	is(found, 8, "every packet landed in the buffer");
	is(outside, 0, "and none outside");
	close(sock);
	if (system("ip link set dev lslm0 xdpgeneric off"))
		bail("ip link set xdp off");
	munmap(area, size);
	close(fd);
}

int main(int argc, char **argv)
{
	const int dev = dev_open();

	if (argc != 2)
		return 2;
	test_disk(dev, 0, "plain");
	if (dev_has(dev, LSLM_FEATURE_HUGE))
		test_disk(dev, LSLM_BUF_HUGE, "2 MiB page");
	else
		skip("GET_INFO says that huge pages are off", "a 2 MiB page buffer");
	test_xdp(dev, argv[1]);
	return tap_done();
}
