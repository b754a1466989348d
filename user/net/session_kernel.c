// SPDX-License-Identifier: MIT
/*
 * Sessions of the module: it places in softirq, and this side sees what became complete.
 *
 * Three things can be waited for: the completion ring (the session's descriptor), control
 * datagrams (the socket, which the module leaves them to), and session_wake() (an eventfd).
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/device.h"
#include "lslm/page.h"
#include "net/intake.h"
#include "net/session_backend.h"

enum {
	RING_ENTRIES = 4096,
	CONTROLS = 256, /* read in one poll: the rest waits for the next */
	MISSING_MAX = 1024, /* ranges of one LSLM_REGION_MISSING */
};

struct kernel {
	struct session session;
	int fd;
	int socket;
	int wake;
	struct lslm_ring_consumer *consumer; /* a page */
	const struct lslm_ring *ring; /* a page, and the entries */
	size_t ring_bytes;
	uint64_t overflows; /* told to the caller so far */
	uint64_t empty; /* datagrams without a byte */
	uint8_t packet[INTAKE_LARGEST];
};

static struct kernel *kernel_of(struct session *s)
{
	return (struct kernel *)s;
}

static void kernel_close(struct session *s)
{
	struct kernel *k = kernel_of(s);

	if (k->consumer)
		munmap(k->consumer, lslm_page_size());
	if (k->ring)
		munmap((void *)(uintptr_t)k->ring, k->ring_bytes);
	if (k->fd >= 0)
		close(k->fd);
	if (k->wake >= 0)
		close(k->wake);
	free(k);
}

static void *map_at(struct kernel *k, size_t bytes, int prot, size_t offset)
{
	void *at = mmap(NULL, bytes, prot, MAP_SHARED, k->fd, (off_t)offset);

	return at == MAP_FAILED ? NULL : at;
}

static int map_ring(struct kernel *k, struct lslm_error *err)
{
	size_t page = lslm_page_size();

	k->ring_bytes = page + lslm_round_up(RING_ENTRIES * sizeof(struct lslm_done), page);
	k->consumer = map_at(k, page, PROT_READ | PROT_WRITE, 0);
	if (k->consumer)
		k->ring = map_at(k, k->ring_bytes, PROT_READ, page);
	return k->ring ? 0 : error_sys(err, -errno, "session: cannot map its completions");
}

static int kernel_open(struct session **out, int socket, uint32_t n_slots,
		       char note[SESSION_REASON_BYTES / 2], struct lslm_error *err)
{
	struct lslm_session_create arg = {
		.size = sizeof(arg),
		.socket = socket,
		.slots = n_slots,
		.ring_entries = RING_ENTRIES,
	};
	struct kernel *k = calloc(1, sizeof(*k));
	int ret;

	if (!k)
		return error_set(err, -ENOMEM, "session: out of memory");
	k->socket = socket;
	k->fd = -1;
	k->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = k->wake < 0 ? error_sys(err, -errno, "session: no eventfd") : 0;
	if (!ret) {
		ret = device_call(device_get(), LSLM_SESSION_CREATE, &arg);
		if (ret)
			error_sys(err, ret, "session: the module does not take the socket");
		else
			k->fd = arg.out_fd;
	}
	if (!ret)
		ret = map_ring(k, err);
	if (ret) {
		kernel_close(&k->session);
		return ret;
	}
	k->session.number = arg.out_session;
	*out = &k->session;
	return 0;
}

static int kernel_key(struct session *s, uint32_t key, enum lslm_cipher cipher,
		      const uint8_t *secret, uint64_t max_packets, uint32_t lifetime_s,
		      struct lslm_error *err)
{
	struct lslm_session_key arg = {
		.size = sizeof(arg),
		.key = key,
		.cipher = cipher,
		.max_packets = max_packets,
		.lifetime_s = lifetime_s,
	};
	int ret;

	if (cipher == LSLM_CIPHER_CHACHA20POLY1305)
		memcpy(arg.secret, secret, sizeof(arg.secret));
	ret = device_call(kernel_of(s)->fd, LSLM_SESSION_KEY, &arg);
	explicit_bzero(&arg, sizeof(arg));
	if (ret == -EOPNOTSUPP)
		return error_set(err, ret,
				 "session: datagrams must be authenticated (the "
				 "module's parameter `plain`)");
	return ret ? error_sys(err, ret, "session: cannot set key %u", key) : 0;
}

static int kernel_bind(struct session *s, uint32_t slot, const struct session_region *region,
		       const uint32_t *units, uint32_t *generation, struct lslm_error *err)
{
	struct lslm_region_bind arg = {
		.size = sizeof(arg),
		.slot = slot,
		.buffer = buffer_fd(region->buffer),
		.base = region->base,
		.chunk = region->chunk,
		.n_units = region->n_units,
		.units = (uintptr_t)units,
		.done = (uintptr_t)region->done,
	};
	int ret = device_call(kernel_of(s)->fd, LSLM_REGION_BIND, &arg);

	if (!ret) {
		*generation = arg.out_generation;
		return 0;
	}
	switch (ret) {
	case -EBADF:
		return error_set(err, ret, "session: only the module's buffers can be bound");
	case -ESTALE:
		return error_set(err, ret, "session: the buffer was purged");
	case -ENOMEM:
		return error_set(err, ret,
				 "session: no memory to bind %u blocks of %u bytes, or over the "
				 "limit on locked memory (`ulimit -l`, LimitMEMLOCK=)",
				 region->n_units, region->unit_bytes);
	default:
		return error_sys(err, ret, "session: cannot bind slot %u", slot);
	}
}

static int kernel_unbind(struct session *s, uint32_t slot)
{
	struct lslm_region_unbind arg = { .size = sizeof(arg), .slot = slot };

	return device_call(kernel_of(s)->fd, LSLM_REGION_UNBIND, &arg);
}

static int kernel_missing(struct session *s, uint32_t slot, uint32_t generation, uint32_t from,
			  struct lslm_range *ranges, uint32_t max)
{
	uint32_t n = 0, ask;
	int ret;

	do {
		struct lslm_region_missing arg = {
			.size = sizeof(arg),
			.slot = slot,
			.generation = generation,
			.from = from,
			.ranges = (uintptr_t)(ranges + n),
		};

		ask = arg.max_ranges = max - n < MISSING_MAX ? max - n : MISSING_MAX;
		ret = device_call(kernel_of(s)->fd, LSLM_REGION_MISSING, &arg);
		if (ret)
			return ret;
		n += arg.out_ranges;
		if (arg.out_ranges)
			from = ranges[n - 1].first + ranges[n - 1].count;
		if (arg.out_ranges < ask)
			break;
	} while (n < max);
	return (int)n;
}

/* Pairs with the module's release: what the entries say was written before `producer`. */
static uint64_t load_acquire(const __u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void take_completions(struct kernel *k, const struct session_ops *ops, void *arg)
{
	const struct lslm_done *entries =
		(const void *)((const uint8_t *)k->ring + lslm_page_size());
	uint64_t at = k->consumer->position, end = load_acquire(&k->ring->producer), overflows;

	while (at != end) {
		const struct lslm_done *e = &entries[at++ % RING_ENTRIES];
		struct session_done done = { e->slot, e->generation, e->unit };

		/* Released before the callback: it may take long, and the ring should not fill up. */
		__atomic_store_n(&k->consumer->position, at, __ATOMIC_RELEASE);
		if (ops->done)
			ops->done(arg, &done);
	}
	/* Pairs with the module's: it sees the room that was made, or this sees the overflow. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	overflows = load_acquire(&k->ring->overflows);
	if (overflows == k->overflows)
		return;
	k->overflows = overflows;
	if (ops->overflow)
		ops->overflow(arg);
}

static int take_controls(struct kernel *k, const struct session_ops *ops, void *arg,
			 struct lslm_error *err)
{
	ssize_t size;

	for (int i = 0; i < CONTROLS; i++) {
		size = recv(k->socket, k->packet, sizeof(k->packet), MSG_DONTWAIT);
		if (size < 0 && errno == EAGAIN)
			return 0;
		if (size < 0 && !intake_is_passing(-errno))
			return error_sys(err, -errno, "session: its socket cannot receive");
		if (!size)
			k->empty++;
		/* DATA can only have come before the module had the socket. */
		if (size > 0 && k->packet[0] != LSLM_OP_DATA && ops->control)
			ops->control(arg, k->packet, (size_t)size);
	}
	return 0;
}

static int kernel_poll(struct session *s, uint64_t timeout_ns, const struct session_ops *ops,
		       void *arg, struct lslm_error *err)
{
	struct kernel *k = kernel_of(s);
	struct pollfd fds[] = { { k->fd, POLLIN, 0 },
				{ k->socket, POLLIN, 0 },
				{ k->wake, POLLIN, 0 } };
	struct timespec ts = {
		.tv_sec = (time_t)(timeout_ns / 1000000000),
		.tv_nsec = (long)(timeout_ns % 1000000000),
	};
	uint64_t n;
	int ret = 0;

	if (ppoll(fds, 3, &ts, NULL) < 0)
		return errno == EINTR ? 0 : error_sys(err, -errno, "session: poll");
	if (fds[2].revents)
		(void)!read(k->wake, &n, sizeof(n));
	if (fds[1].revents)
		ret = take_controls(k, ops, arg, err);
	/* Always: an overflow alone makes nothing readable. */
	take_completions(k, ops, arg);
	return ret;
}

static void kernel_wake(struct session *s)
{
	uint64_t one = 1;
	int keep = errno;

	(void)!write(kernel_of(s)->wake, &one, sizeof(one));
	errno = keep;
}

static void kernel_progress(const struct session *s, struct session_progress *out)
{
	const struct lslm_ring *ring = ((const struct kernel *)s)->ring;
	uint64_t before;

	do {
		before = load_acquire(&ring->sequence);
		out->received = __atomic_load_n(&ring->received, __ATOMIC_RELAXED);
		out->last_counter = __atomic_load_n(&ring->last_counter, __ATOMIC_RELAXED);
		out->last_ns = __atomic_load_n(&ring->last_ns, __ATOMIC_RELAXED);
		out->placed_bytes = __atomic_load_n(&ring->placed_bytes, __ATOMIC_RELAXED);
		/* The four are read before the sequence is read again. */
		atomic_thread_fence(memory_order_acquire);
	} while (before % 2 || before != __atomic_load_n(&ring->sequence, __ATOMIC_RELAXED));
}

static int kernel_stats(struct session *s, struct session_stats *out)
{
	struct lslm_session_stats arg = { .size = sizeof(arg) };
	int ret = device_call(kernel_of(s)->fd, LSLM_SESSION_STATS, &arg);

	if (ret)
		return ret;
	out->received = arg.out_received;
	out->placed = arg.out_placed;
	out->placed_bytes = arg.out_placed_bytes;
	out->units = arg.out_units;
	out->overflows = arg.out_overflows;
	out->by_encap = arg.out_by_encap + kernel_of(s)->empty;
	out->by_tc = arg.out_by_tc;
	out->by_xdp = arg.out_by_xdp;
	for (int i = 0; i < LSLM_DROP_COUNT; i++)
		out->drops[i] = arg.out_drops[i];
	/* The module leaves them to recv(); the twin counts them so. */
	out->drops[LSLM_DROP_HEADER] += kernel_of(s)->empty;
	return 0;
}

const struct session_backend_ops session_kernel_ops = {
	.name = "kernel",
	.open = kernel_open,
	.close = kernel_close,
	.key = kernel_key,
	.bind = kernel_bind,
	.unbind = kernel_unbind,
	.missing = kernel_missing,
	.poll = kernel_poll,
	.wake = kernel_wake,
	.progress = kernel_progress,
	.stats = kernel_stats,
};
