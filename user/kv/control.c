// SPDX-License-Identifier: MIT
/*
 * Layout of the page: struct page, then one 32-bit word per layer and one more, then one byte per
 * block in layer order, because a waiter scans a layer. A block's byte is
 * state | source << 2 | level << 5. Everything after the geometry is accessed atomically only.
 */
#include "kv/control.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "kv/memfd.h"

#define MAGIC 0x326c72746e6f436cULL

enum {
	STATE_MASK = 3,
	SOURCE_SHIFT = 2,
	SOURCE_MASK = 7,
	LEVEL_SHIFT = 5,
};

_Static_assert(CONTROL_SOURCES <= SOURCE_MASK + 1, "room for every source");
_Static_assert(KV_LEVELS <= UINT8_MAX >> LEVEL_SHIFT, "room for every level");

/* How long a waiter sleeps without a look at its writer. */
enum { WATCH_MS = 250 };

struct page {
	uint64_t magic;
	uint32_t n_stripes;
	uint32_t n_layer;
};

struct control {
	void *map;
	size_t size;
	int fd;
	bool writable;
	int watched; /* socket to the writer; -1: it is of this process */
	/* Copied at import: what the page says may change under a hostile writer. */
	uint32_t n_stripes;
	uint32_t n_layer;
	_Atomic uint32_t *changes; /* (n_layer + 1) of a layer; the last one: of any */
	_Atomic uint8_t *block; /* (n_layer, n_stripes) */
};

static bool page_bytes(uint32_t n_stripes, uint32_t n_layer, size_t *bytes)
{
	size_t words, blocks;

	return n_stripes && n_layer &&
	       !__builtin_mul_overflow((size_t)n_layer + 1, sizeof(uint32_t), &words) &&
	       !__builtin_mul_overflow((size_t)n_layer, n_stripes, &blocks) &&
	       !__builtin_add_overflow(words, sizeof(struct page), bytes) &&
	       !__builtin_add_overflow(*bytes, blocks, bytes);
}

static int map_page(struct control *c, struct lslm_error *err)
{
	int prot = PROT_READ | (c->writable ? PROT_WRITE : 0);

	c->map = mmap(NULL, c->size, prot, MAP_SHARED, c->fd, 0);
	if (c->map == MAP_FAILED)
		return error_sys(err, -errno, "control page: cannot map %zu bytes", c->size);
	return 0;
}

static void locate(struct control *c, uint32_t n_stripes, uint32_t n_layer)
{
	c->n_stripes = n_stripes;
	c->n_layer = n_layer;
	c->changes = (void *)((char *)c->map + sizeof(struct page));
	c->block = (void *)(c->changes + n_layer + 1);
}

static struct control *fresh(void)
{
	struct control *c = calloc(1, sizeof(*c));

	if (c) {
		c->map = MAP_FAILED;
		c->fd = -1;
		c->watched = -1;
	}
	return c;
}

int control_create(struct control **out, uint32_t n_stripes, uint32_t n_layer,
		   struct lslm_error *err)
{
	struct control *c;
	struct page *page;
	size_t size;
	int ret;

	if (!page_bytes(n_stripes, n_layer, &size))
		return error_set(err, -EINVAL, "control page: %u stripes of %u layers have no page",
				 n_stripes, n_layer);
	c = fresh();
	if (!c)
		return error_set(err, -ENOMEM, "control page: out of memory");
	c->writable = true;
	c->size = size;
	c->fd = memfd_sealed("lslm-control", size, 0, err);
	ret = c->fd < 0 ? c->fd : map_page(c, err);
	if (ret) {
		control_close(c);
		return ret;
	}
	page = c->map;
	page->magic = MAGIC;
	page->n_stripes = n_stripes;
	page->n_layer = n_layer;
	locate(c, n_stripes, n_layer);
	*out = c;
	return 0;
}

int control_ro_fd(struct control *c, struct lslm_error *err)
{
	return memfd_reopen_ro(c->fd, err);
}

int control_fd(const struct control *c)
{
	return c->fd;
}

bool control_is_writable(const struct control *c)
{
	return c->writable;
}

static int check_page(const struct control *c, struct page *page, struct lslm_error *err)
{
	size_t bytes;

	*page = *(const struct page *)c->map;
	if (page->magic != MAGIC)
		return error_set(err, -EBADF, "descriptor %d is no control page", c->fd);
	if (!page_bytes(page->n_stripes, page->n_layer, &bytes) || bytes != c->size)
		return error_set(err, -EBADF,
				 "control page: %u stripes of %u layers do not fit its %zu bytes",
				 page->n_stripes, page->n_layer, c->size);
	return 0;
}

int control_import(struct control **out, int fd, struct lslm_error *err)
{
	struct control *c;
	struct page page;
	size_t size;
	int ret;

	ret = memfd_check(fd, &size, err);
	if (ret)
		return ret;
	if (size < sizeof(struct page))
		return error_set(err, -EBADF, "descriptor %d is no control page", fd);
	c = fresh();
	if (!c)
		return error_set(err, -ENOMEM, "control page: out of memory");
	c->fd = fd;
	c->size = size;
	c->writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
	ret = map_page(c, err);
	if (!ret)
		ret = check_page(c, &page, err);
	if (ret) {
		c->fd = -1; /* ownership moves on success only */
		control_close(c);
		return ret;
	}
	locate(c, page.n_stripes, page.n_layer);
	*out = c;
	return 0;
}

void control_close(struct control *c)
{
	if (!c)
		return;
	if (c->map != MAP_FAILED)
		munmap(c->map, c->size);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

uint32_t control_n_stripes(const struct control *c)
{
	return c->n_stripes;
}

uint32_t control_n_layer(const struct control *c)
{
	return c->n_layer;
}

static _Atomic uint8_t *block_at(const struct control *c, uint32_t stripe, uint32_t layer)
{
	return &c->block[(size_t)layer * c->n_stripes + stripe];
}

/* Not FUTEX_PRIVATE: the waiters are in other processes. */
static void wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void changed(struct control *c, uint32_t layer)
{
	atomic_fetch_add_explicit(&c->changes[layer], 1, memory_order_release);
	wake(&c->changes[layer]);
}

void control_set(struct control *c, uint32_t stripe, uint32_t layer, enum control_state state,
		 enum control_source source, enum kv_level level)
{
	/*
	 * Release, paired with the acquire in control_get(), through which every reader goes: the bytes
	 * of the block and their verification come before READY. The counters are released after the
	 * block, so a waiter that read a new count also finds the new state.
	 */
	atomic_store_explicit(block_at(c, stripe, layer),
			      (uint8_t)(state | source << SOURCE_SHIFT | level << LEVEL_SHIFT),
			      memory_order_release);
	changed(c, layer);
	changed(c, c->n_layer);
}

void control_fail(struct control *c)
{
	for (uint32_t layer = 0; layer < c->n_layer; layer++) {
		for (uint32_t stripe = 0; stripe < c->n_stripes; stripe++) {
			_Atomic uint8_t *block = block_at(c, stripe, layer);
			uint8_t was = atomic_load(block);

			/* Only what is still wanted: a READY that lands now must stay. */
			while ((was & STATE_MASK) == CONTROL_WANTED &&
			       !atomic_compare_exchange_weak(block, &was, was | CONTROL_FAILED))
				;
		}
		changed(c, layer);
	}
	changed(c, c->n_layer);
}

void control_retry(struct control *c)
{
	for (uint32_t layer = 0; layer < c->n_layer; layer++) {
		for (uint32_t stripe = 0; stripe < c->n_stripes; stripe++) {
			_Atomic uint8_t *block = block_at(c, stripe, layer);
			uint8_t was = atomic_load(block);

			if ((was & STATE_MASK) == CONTROL_FAILED)
				atomic_compare_exchange_strong(block, &was, CONTROL_WANTED);
		}
	}
}

void control_watch(struct control *c, int socket)
{
	c->watched = socket;
}

enum control_state control_get(const struct control *c, uint32_t stripe, uint32_t layer)
{
	return atomic_load_explicit(block_at(c, stripe, layer), memory_order_acquire) & STATE_MASK;
}

enum control_source control_get_source(const struct control *c, uint32_t stripe, uint32_t layer)
{
	return atomic_load_explicit(block_at(c, stripe, layer), memory_order_acquire) >>
		       SOURCE_SHIFT &
	       SOURCE_MASK;
}

uint32_t control_get_level(const struct control *c, uint32_t stripe, uint32_t layer)
{
	return atomic_load_explicit(block_at(c, stripe, layer), memory_order_acquire) >>
	       LEVEL_SHIFT;
}

/* FAILED if any block is, else WANTED if any is, else READY. */
static enum control_state layer_state(const struct control *c, uint32_t layer)
{
	enum control_state all = CONTROL_READY;

	for (uint32_t stripe = 0; stripe < c->n_stripes; stripe++) {
		switch (control_get(c, stripe, layer)) {
		case CONTROL_READY:
			break;
		case CONTROL_WANTED:
			all = CONTROL_WANTED;
			break;
		default:
			return CONTROL_FAILED;
		}
	}
	return all;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

/* 0, -EIO when there is no writer any more. */
static int check_writer(const struct control *c)
{
	struct pollfd p = { .fd = c->watched, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)) ? -EIO : 0;
}

/* Sleep until the word is not as seen any more, or until the deadline. Spurious returns are fine. */
static int sleep_on(const struct control *c, _Atomic uint32_t *word, uint32_t seen,
		    const struct timespec *until)
{
	struct timespec look;

	if (c->watched >= 0) {
		look = clock_after_ms(WATCH_MS);
		if (!until || is_later(until, &look))
			until = &look;
	}
	/* The BITSET form takes an absolute time, so wake-ups do not stretch it. */
	if (!syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, until, NULL,
		     FUTEX_BITSET_MATCH_ANY) ||
	    errno == EAGAIN || errno == EINTR)
		return 0;
	if (errno == ETIMEDOUT && until == &look)
		return check_writer(c);
	return -errno;
}

int control_wait_layer(const struct control *c, uint32_t layer, int timeout_ms)
{
	struct timespec deadline = clock_after_ms(timeout_ms < 0 ? 0 : timeout_ms);
	int ret;

	for (;;) {
		/* Before the scan: a change after it makes the futex refuse to sleep. */
		uint32_t seen = atomic_load_explicit(&c->changes[layer], memory_order_acquire);
		enum control_state state = layer_state(c, layer);

		if (state == CONTROL_READY)
			return 0;
		if (state == CONTROL_FAILED)
			return -EIO;
		ret = sleep_on(c, &c->changes[layer], seen, timeout_ms < 0 ? NULL : &deadline);
		if (ret)
			return ret;
	}
}

/* FAILED if any block is, else WANTED if any is, else READY. */
static enum control_state stripe_state(const struct control *c, uint32_t stripe)
{
	enum control_state all = CONTROL_READY, one;

	for (uint32_t layer = 0; layer < c->n_layer; layer++) {
		one = control_get(c, stripe, layer);
		if (one == CONTROL_WANTED)
			all = CONTROL_WANTED;
		else if (one != CONTROL_READY)
			return CONTROL_FAILED;
	}
	return all;
}

bool control_stripe_ready(const struct control *c, uint32_t stripe)
{
	return stripe_state(c, stripe) == CONTROL_READY;
}

/* The tail, where it is known to be at most this. */
static uint32_t tail_from(const struct control *c, uint32_t tail)
{
	while (tail && control_stripe_ready(c, tail - 1))
		tail--;
	return tail;
}

uint32_t control_tail(const struct control *c)
{
	return tail_from(c, c->n_stripes);
}

int control_wait_tail(const struct control *c, uint32_t stripe, int timeout_ms)
{
	struct timespec deadline = clock_after_ms(timeout_ms < 0 ? 0 : timeout_ms);
	_Atomic uint32_t *word = &c->changes[c->n_layer];
	uint32_t tail = c->n_stripes, seen;
	int ret;

	for (;;) {
		seen = atomic_load_explicit(word, memory_order_acquire);
		tail = tail_from(c, tail);
		if (tail <= stripe)
			return 0;
		for (uint32_t s = stripe; s < tail; s++)
			if (stripe_state(c, s) == CONTROL_FAILED)
				return -EIO;
		ret = sleep_on(c, word, seen, timeout_ms < 0 ? NULL : &deadline);
		if (ret)
			return ret;
	}
}
