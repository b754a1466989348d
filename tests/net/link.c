// SPDX-License-Identifier: MIT
/*
 * A link between two network namespaces, as thin and as bad as asked for.
 *
 *   link NAMESPACE-A NAMESPACE-B [OPTION VALUE]...
 *
 * makes a TUN device lslm0 in each of the two, carries IP packets between them, and prints "ready".
 * A namespace is a name of `ip netns`, or a path. Options hold for both directions, or for one of
 * them with -ab or -ba behind their name:
 *
 *   rate MBIT        serialised at this rate; 0: none
 *   queue BYTES      waiting at most, more is dropped (256000)
 *   delay MS         one way, behind the queue
 *   loss PERCENT     of what left the queue
 *   duplicate PERCENT
 *   reorder PERCENT  held back by another reorder-by MS (10)
 *   mtu BYTES        larger ones vanish, without a word; 0: none
 *   down 0|1         nothing passes
 *   hold BYTES       once so many were delivered the others wait; 0: none
 *   seed N           of this direction's random numbers (1)
 *
 * The same words are read from standard input, a line for each, while the link works; further lines
 * are `stats` (a JSON line on standard output), `reset` (all counts to 0). End of file is the
 * end, with a last `stats`.
 *
 * Queue and rate are computed, not waited for: a packet's time of departure is known when it comes, so
 * what is dropped and in which order things arrive depends on arrival times and the seed alone. Only the
 * delivery may be late, when this process was not run; late_max_ms tells.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"

enum {
	BINS = 100000, /* of the queueing delay, 0.1 ms each */
	PACKET_MAX = 65536,
	BATCH = 64,
};

struct packet {
	uint64_t due; /* ns */
	uint64_t number; /* equal times stay in order */
	uint32_t size;
	uint8_t data[];
};

struct stats {
	uint64_t packets, bytes; /* delivered */
	uint64_t lost, queue_full, too_large, while_down, refused;
	uint64_t reordered, duplicated;
	uint64_t queued, queue_ns, queue_max_ns, late_max_ns;
	uint32_t bins[BINS];
};

struct direction {
	const char *name;
	int in, out;
	double rate, queue, delay, loss, duplicate, reorder, reorder_by, mtu, down, hold, seed;
	uint64_t random;
	uint64_t free_at; /* when the queue will have been sent */
	uint64_t number;
	struct packet **heap;
	size_t n, room;
	struct stats stats;
};

static struct direction directions[2] = { { .name = "ab" }, { .name = "ba" } };

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("link: ", stderr);
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
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static bool happens(struct direction *d, double percent)
{
	return random_unit(&d->random) * 100 < percent;
}

/* ---- packets that are on their way: a heap by time ---- */

static bool earlier(const struct packet *a, const struct packet *b)
{
	return a->due != b->due ? a->due < b->due : a->number < b->number;
}

static void heap_push(struct direction *d, struct packet *p)
{
	size_t i = d->n++;

	if (d->n > d->room) {
		d->room = d->room ? 2 * d->room : 1024;
		d->heap = realloc(d->heap, d->room * sizeof(*d->heap));
		if (!d->heap)
			die("no memory");
	}
	for (; i && earlier(p, d->heap[(i - 1) / 2]); i = (i - 1) / 2)
		d->heap[i] = d->heap[(i - 1) / 2];
	d->heap[i] = p;
}

static struct packet *heap_pop(struct direction *d)
{
	struct packet *first = d->heap[0], *last = d->heap[--d->n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < d->n) {
		if (child + 1 < d->n && earlier(d->heap[child + 1], d->heap[child]))
			child++;
		if (!earlier(d->heap[child], last))
			break;
		d->heap[i] = d->heap[child];
		i = child;
	}
	d->heap[i] = last;
	return first;
}

static void send_later(struct direction *d, uint64_t due, const uint8_t *data, size_t size)
{
	struct packet *p = malloc(sizeof(*p) + size);

	if (!p)
		die("no memory");
	p->due = due;
	p->number = d->number++;
	p->size = (uint32_t)size;
	memcpy(p->data, data, size);
	heap_push(d, p);
}

/* ---- what happens to a packet ---- */

/* Nonzero: it found room, and leaves at *leaves. */
static bool enqueue(struct direction *d, uint64_t now, size_t size, uint64_t *leaves)
{
	struct stats *s = &d->stats;
	uint64_t wait;
	size_t bin;

	*leaves = now;
	if (!d->rate)
		return true;
	if (d->free_at < now)
		d->free_at = now;
	wait = d->free_at - now;
	if ((double)wait * d->rate / 8000 + (double)size > d->queue)
		return false;
	d->free_at += (uint64_t)((double)size * 8000 / d->rate);
	*leaves = d->free_at;
	s->queued++;
	s->queue_ns += wait;
	if (wait > s->queue_max_ns)
		s->queue_max_ns = wait;
	bin = wait / 100000;
	s->bins[bin < BINS ? bin : BINS - 1]++;
	return true;
}

static void take(struct direction *d, uint64_t now, const uint8_t *data, size_t size)
{
	/* Always drawn, so that a packet's fate does not depend on that of others. */
	bool lost = happens(d, d->loss), twice = happens(d, d->duplicate);
	bool held = happens(d, d->reorder);
	struct stats *s = &d->stats;
	uint64_t due;

	if (d->mtu && size > d->mtu) {
		s->too_large++;
		return;
	}
	if (d->down) {
		s->while_down++;
		return;
	}
	if (!enqueue(d, now, size, &due)) {
		s->queue_full++;
		return;
	}
	if (lost) {
		s->lost++;
		return;
	}
	due += (uint64_t)(d->delay * 1e6);
	if (held) {
		due += (uint64_t)(d->reorder_by * 1e6);
		s->reordered++;
	}
	send_later(d, due, data, size);
	if (twice) {
		send_later(d, due, data, size);
		s->duplicated++;
	}
}

static void receive(struct direction *d)
{
	static uint8_t data[PACKET_MAX];
	ssize_t size;

	for (int i = 0; i < BATCH; i++) {
		size = read(d->in, data, sizeof(data));
		if (size <= 0)
			return;
		take(d, now_ns(), data, (size_t)size);
	}
}

/* Returns when the next one is due, UINT64_MAX for none. */
static uint64_t deliver(struct direction *d)
{
	struct stats *s = &d->stats;
	uint64_t now = now_ns();

	while (d->n && d->heap[0]->due <= now) {
		struct packet *p;

		if (d->hold && (double)s->bytes >= d->hold)
			return UINT64_MAX;
		p = heap_pop(d);
		if (d->down) {
			s->while_down++;
		} else if (write(d->out, p->data, p->size) < 0) {
			s->refused++;
		} else {
			s->packets++;
			s->bytes += p->size;
			if (now - p->due > s->late_max_ns)
				s->late_max_ns = now - p->due;
		}
		free(p);
	}
	return d->n ? d->heap[0]->due : UINT64_MAX;
}

/* ---- words ---- */

static const struct {
	const char *name;
	size_t at;
	double most;
} words[] = {
	{ "rate", offsetof(struct direction, rate), 1e5 },
	{ "queue", offsetof(struct direction, queue), 1e9 },
	{ "delay", offsetof(struct direction, delay), 1e5 },
	{ "loss", offsetof(struct direction, loss), 100 },
	{ "duplicate", offsetof(struct direction, duplicate), 100 },
	{ "reorder", offsetof(struct direction, reorder), 100 },
	{ "reorder-by", offsetof(struct direction, reorder_by), 1e5 },
	{ "mtu", offsetof(struct direction, mtu), PACKET_MAX },
	{ "down", offsetof(struct direction, down), 1 },
	{ "hold", offsetof(struct direction, hold), 1e12 },
	{ "seed", offsetof(struct direction, seed), 1e9 },
};

static void set(const char *word, const char *value)
{
	size_t len = strlen(word);
	bool ab = len > 3 && !strcmp(word + len - 3, "-ab");
	bool ba = len > 3 && !strcmp(word + len - 3, "-ba");
	char *end;
	double v = strtod(value, &end);

	len -= ab || ba ? 3 : 0;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strlen(words[i].name) != len || strncmp(words[i].name, word, len))
			continue;
		if (end == value || *end || !(v >= 0) || v > words[i].most)
			break;
		for (int d = 0; d < 2; d++) {
			if (d ? ab : ba)
				continue;
			*(double *)((char *)&directions[d] + words[i].at) = v;
			if (!strcmp(words[i].name, "seed"))
				directions[d].random = (uint64_t)v * 2 + (uint64_t)d;
		}
		return;
	}
	die("%s %s: no such option or value", word, value);
}

static double p99_ms(const struct stats *s)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < BINS; i++) {
		seen += s->bins[i];
		if (seen * 100 >= s->queued * 99)
			return (double)i / 10;
	}
	return 0;
}

static void print_stats(void)
{
	for (int i = 0; i < 2; i++) {
		const struct stats *s = &directions[i].stats;

		printf("%s\"%s\": {\"packets\": %lu, \"bytes\": %lu, \"lost\": %lu, "
		       "\"queue_full\": %lu, \"too_large\": %lu, \"while_down\": %lu, "
		       "\"refused\": %lu, \"reordered\": %lu, \"duplicated\": %lu, "
		       "\"queue_mean_ms\": %.2f, \"queue_p99_ms\": %.1f, \"queue_max_ms\": %.2f, "
		       "\"late_max_ms\": %.2f}",
		       i ? ", " : "{", directions[i].name, s->packets, s->bytes, s->lost,
		       s->queue_full, s->too_large, s->while_down, s->refused, s->reordered,
		       s->duplicated, s->queued ? (double)s->queue_ns / 1e6 / (double)s->queued : 0,
		       s->queued ? p99_ms(s) : 0, (double)s->queue_max_ns / 1e6,
		       (double)s->late_max_ns / 1e6);
	}
	printf("}\n");
	fflush(stdout);
}

static void obey(char *line)
{
	char *word = strtok(line, " \t"), *value = strtok(NULL, " \t");

	if (!word)
		return;
	if (!strcmp(word, "stats"))
		print_stats();
	else if (!strcmp(word, "reset"))
		for (int d = 0; d < 2; d++)
			memset(&directions[d].stats, 0, sizeof(directions[d].stats));
	else
		set(word, value ? value : "");
}

/* False at the end of standard input. */
static bool read_lines(void)
{
	static char buffer[4096];
	static size_t have;
	ssize_t n = read(0, buffer + have, sizeof(buffer) - 1 - have);
	char *start = buffer, *end;

	if (n <= 0)
		return n < 0 && errno == EINTR;
	have += (size_t)n;
	buffer[have] = 0;
	while ((end = strchr(start, '\n'))) {
		*end = 0;
		obey(start);
		start = end + 1;
	}
	have -= (size_t)(start - buffer);
	memmove(buffer, start, have);
	if (have == sizeof(buffer) - 1)
		die("a line is too long");
	return true;
}

/* ---- start ---- */

/* The device belongs to the namespace in which /dev/net/tun was opened. */
static int open_tun(const char *namespace)
{
	struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s%s", strchr(namespace, '/') ? "" : "/run/netns/",
		 namespace);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	strcpy(ifr.ifr_name, "lslm0");
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0)
		die("%s: /dev/net/tun: %s", namespace, strerror(errno));
	return fd;
}

static void carry(void)
{
	struct pollfd fds[3] = { { directions[0].in, POLLIN },
				 { directions[1].in, POLLIN },
				 { 0, POLLIN } };

	for (;;) {
		uint64_t due = deliver(&directions[0]), other = deliver(&directions[1]), now;
		struct timespec wait = { 0 };

		due = other < due ? other : due;
		now = now_ns();
		if (due > now && due != UINT64_MAX) {
			wait.tv_sec = (time_t)((due - now) / 1000000000);
			wait.tv_nsec = (long)((due - now) % 1000000000);
		}
		if (ppoll(fds, 3, due == UINT64_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR)
			die("ppoll: %s", strerror(errno));
		for (int d = 0; d < 2; d++)
			if (fds[d].revents)
				receive(&directions[d]);
		if (fds[2].revents && !read_lines())
			return;
	}
}

int main(int argc, char **argv)
{
	int a, b;

	if (argc < 3 || argc % 2 == 0)
		die("usage: link NAMESPACE-A NAMESPACE-B [OPTION VALUE]...");
	set("queue", "256000");
	set("reorder-by", "10");
	set("seed", "1");
	for (int i = 3; i < argc; i += 2)
		set(argv[i], argv[i + 1]);
	a = open_tun(argv[1]);
	b = open_tun(argv[2]);
	directions[0].in = directions[1].out = a;
	directions[0].out = directions[1].in = b;
	/* Timers to the microsecond. */
	prctl(PR_SET_TIMERSLACK, 1UL);
	printf("ready\n");
	fflush(stdout);
	carry();
	print_stats();
	return 0;
}
