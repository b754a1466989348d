// SPDX-License-Identifier: MIT
#include "engine/packkeeper.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"

/* Of the room that is left, what a file may take. */
enum { PART_OF_ROOM = 4 };

struct packkeeper {
	const struct gguf *g;
	const struct packfile_plan *plan;
	const struct weight *w;
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	bool done;
	struct lslm_error failed; /* code 0: not */
};

/* Nobody writes there meanwhile: whoever does has the lock, so these are of processes that are gone. */
static void remove_leftovers(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (!strncmp(e->d_name, FILE_ATOMIC_PREFIX, strlen(FILE_ATOMIC_PREFIX)))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

/* A descriptor that holds the lock, or -errno. */
static int lock_dir(const char *dir, struct lslm_error *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	if (fd < 0)
		return error_sys(err, -errno, "%s: cannot open", dir);
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	rc = errno == EWOULDBLOCK ? error_set(err, -EBUSY, "another process is keeping one") :
				    error_sys(err, -errno, "%s: cannot lock", dir);
	close(fd);
	return rc;
}

static int check_room(const char *dir, uint64_t bytes, struct lslm_error *err)
{
	struct statvfs s;
	uint64_t room;

	if (statvfs(dir, &s) < 0)
		return error_sys(err, -errno, "%s: cannot tell its room", dir);
	room = (uint64_t)s.f_bavail * s.f_frsize;
	if (bytes <= room / PART_OF_ROOM)
		return 0;
	return error_set(err, -ENOSPC, "%s: %llu MiB would be more than a quarter of what is free",
			 dir, (unsigned long long)(bytes >> 20));
}

static int keep(struct packkeeper *k, struct lslm_error *err)
{
	char *path, *slash;
	int lock, rc = packfile_cache_path(k->g, &path, err);

	if (rc)
		return rc;
	slash = strrchr(path, '/');
	*slash = 0;
	rc = file_mkdirs(path, 0700, err);
	lock = rc ? rc : lock_dir(path, err);
	if (lock >= 0) {
		remove_leftovers(path);
		rc = check_room(path, k->plan->file_bytes, err);
	}
	*slash = '/';
	if (lock >= 0 && !rc)
		rc = packfile_write(path, 0600, k->g, k->plan, k->w, NULL, NULL, err);
	if (lock >= 0)
		close(lock);
	free(path);
	return lock < 0 ? lock : rc;
}

static void *run(void *arg)
{
	const struct sched_param none = { 0 };
	struct packkeeper *k = arg;
	struct lslm_error err = { 0 };

	pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
	if (!keep(k, &err))
		err.code = 0;
	pthread_mutex_lock(&k->lock);
	k->failed = err;
	k->done = true;
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

struct packkeeper *packkeeper_start(const struct gguf *g, const struct packfile_plan *plan,
				    const struct weight *w)
{
	struct packkeeper *k = calloc(1, sizeof(*k));
	sigset_t all, old;
	int rc;

	if (!k)
		return NULL;
	*k = (struct packkeeper){ .g = g, .plan = plan, .w = w };
	pthread_mutex_init(&k->lock, NULL);
	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = pthread_create(&k->thread, NULL, run, k);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!rc)
		return k;
	pthread_mutex_destroy(&k->lock);
	free(k);
	return NULL;
}

void packkeeper_finish(struct packkeeper *k)
{
	if (!k)
		return;
	pthread_join(k->thread, NULL);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

void packkeeper_describe(struct packkeeper *k, char *text, size_t size)
{
	pthread_mutex_lock(&k->lock);
	if (!k->done)
		snprintf(text, size, "being kept for the next start");
	else if (k->failed.code)
		snprintf(text, size, "not kept: %s", k->failed.text);
	else
		snprintf(text, size, "kept for the next start");
	pthread_mutex_unlock(&k->lock);
}
