// SPDX-License-Identifier: MIT
#include "serve/board.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kv/memfd.h"

/* Rows are only added. All of it is written between two steps of `turn`, which is odd meanwhile. */
struct page {
	atomic_uint turn;
	uint32_t n;
	struct board_figures figures;
	struct board_choice rows[BOARD_CHOICES];
};

struct board {
	int fd;
	struct page *page;
};

static int map(struct board *b, int prot, struct lslm_error *err)
{
	void *at = mmap(NULL, sizeof(*b->page), prot, MAP_SHARED, b->fd, 0);

	if (at == MAP_FAILED)
		return error_sys(err, -errno, "the board cannot be mapped");
	b->page = at;
	return 0;
}

int board_create(struct board **out, struct lslm_error *err)
{
	struct board *b = calloc(1, sizeof(*b));
	int ret;

	if (!b)
		return error_sys(err, -ENOMEM, "board");
	b->fd = ret = memfd_sealed("lslm-board", sizeof(*b->page), 0, err);
	if (ret >= 0)
		ret = map(b, PROT_READ | PROT_WRITE, err);
	if (ret < 0) {
		board_close(b);
		return ret;
	}
	*out = b;
	return 0;
}

int board_open(struct board **out, int fd, struct lslm_error *err)
{
	struct board *b = calloc(1, sizeof(*b));
	size_t size;
	int ret;

	if (!b)
		return error_sys(err, -ENOMEM, "board");
	b->fd = fd;
	ret = memfd_check(fd, &size, err);
	if (!ret && size != sizeof(*b->page))
		ret = error_set(err, -EBADMSG, "the board has not the size of one");
	if (!ret)
		ret = map(b, PROT_READ, err);
	if (ret < 0) {
		b->fd = -1;
		board_close(b);
		return ret;
	}
	*out = b;
	return 0;
}

void board_close(struct board *b)
{
	if (!b)
		return;
	if (b->page)
		munmap(b->page, sizeof(*b->page));
	if (b->fd >= 0)
		close(b->fd);
	free(b);
}

int board_ro_fd(const struct board *b, struct lslm_error *err)
{
	return memfd_reopen_ro(b->fd, err);
}

/* ---- writing ---- */

static void begin_writing(struct page *p)
{
	atomic_fetch_add_explicit(&p->turn, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}

static void end_writing(struct page *p)
{
	atomic_fetch_add_explicit(&p->turn, 1, memory_order_release);
}

int board_choose(struct board *b, const struct kv_hash *key, uint32_t clear, uint32_t set)
{
	struct page *p = b->page;
	uint32_t i = 0;

	while (i < p->n && !kv_hash_equal(&p->rows[i].key, key))
		i++;
	/* What says nothing needs no row, of which there are only so many. */
	if (i == p->n && !set)
		return 0;
	if (i == BOARD_CHOICES)
		return -ENOSPC;
	begin_writing(p);
	if (i == p->n)
		p->rows[p->n++] = (struct board_choice){ .key = *key };
	p->rows[i].flags = (p->rows[i].flags & ~clear) | set;
	p->rows[i].drops += (set & BOARD_DROPPED) != 0;
	end_writing(p);
	return 0;
}

void board_put_figures(struct board *b, const struct board_figures *figures)
{
	begin_writing(b->page);
	b->page->figures = *figures;
	end_writing(b->page);
}

/* ---- reading ---- */

/* The writer is quick, but may be interrupted in the middle. */
static unsigned int begin_reading(const struct page *p)
{
	unsigned int turn;

	while ((turn = atomic_load_explicit(&p->turn, memory_order_acquire)) & 1)
		sched_yield();
	return turn;
}

static bool was_disturbed(const struct page *p, unsigned int turn)
{
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&p->turn, memory_order_relaxed) != turn;
}

static bool look(const struct page *p, const struct kv_hash *key, struct board_choice *out)
{
	for (uint32_t i = 0; i < p->n && i < BOARD_CHOICES; i++) {
		if (!kv_hash_equal(&p->rows[i].key, key))
			continue;
		*out = p->rows[i];
		return true;
	}
	return false;
}

void board_choice(const struct board *b, const struct kv_hash *key, struct board_choice *out)
{
	unsigned int turn;

	do {
		*out = (struct board_choice){ .key = *key };
		if (!b)
			return;
		turn = begin_reading(b->page);
		look(b->page, key, out);
	} while (was_disturbed(b->page, turn));
}

bool board_knows(const struct board *b, const struct kv_hash *key)
{
	struct board_choice c;
	unsigned int turn;
	bool known;

	do {
		turn = begin_reading(b->page);
		known = look(b->page, key, &c);
	} while (was_disturbed(b->page, turn));
	return known;
}

bool board_figures(const struct board *b, struct board_figures *out)
{
	unsigned int turn;

	if (!b)
		return false;
	do {
		turn = begin_reading(b->page);
		*out = b->page->figures;
	} while (was_disturbed(b->page, turn));
	return true;
}

bool board_cloud(const struct board *b, const char *name, struct board_cloud *out)
{
	struct board_figures f;

	if (!board_figures(b, &f))
		return false;
	for (uint32_t i = 0; i < BOARD_CLOUDS && *f.clouds[i].name; i++)
		if (!strcmp(f.clouds[i].name, name)) {
			*out = f.clouds[i];
			return true;
		}
	return false;
}

int board_list(const struct board *b, uint32_t n, struct board_choice *out)
{
	unsigned int turn;
	int ret;

	if (!b)
		return -ENOENT;
	do {
		turn = begin_reading(b->page);
		ret = n < b->page->n && n < BOARD_CHOICES ? 0 : -ENOENT;
		if (!ret)
			*out = b->page->rows[n];
	} while (was_disturbed(b->page, turn));
	return ret;
}
