// SPDX-License-Identifier: MIT
#include "serve/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

static const char incoming_prefix[] = ".incoming-";
static const char atomic_prefix[] = FILE_ATOMIC_PREFIX; /* of a file that is being written */
static const char suffix[] = ".lskv";
static const char pin_suffix[] = ".pin";

struct store {
	char *dir;
	int fd; /* of the directory; carries the lock */
	atomic_uint serial;
	struct store_limits limits;
	pthread_mutex_t
		room; /* held from looking for room until the context that it is for is there */
};

static void name_of(const struct store *s, const struct kv_hash *key, const char *end,
		    char path[PATH_MAX])
{
	char text[KV_HASH_TEXT];

	kv_hash_format(key, text);
	snprintf(path, PATH_MAX, "%s/%s%s", s->dir, text, end);
}

static void path_of(const struct store *s, const struct kv_hash *key, char path[PATH_MAX])
{
	name_of(s, key, suffix, path);
}

static void remove_leftovers(struct store *s)
{
	DIR *d = opendir(s->dir);
	struct dirent *e;

	if (!d)
		return;
	while ((e = readdir(d)))
		if (!strncmp(e->d_name, incoming_prefix, strlen(incoming_prefix)) ||
		    !strncmp(e->d_name, atomic_prefix, strlen(atomic_prefix)))
			unlinkat(s->fd, e->d_name, 0);
	closedir(d);
}

static int open_dir(struct store *s, struct lslm_error *err)
{
	struct stat st;
	int ret;

	ret = file_mkdirs(s->dir, 0700, err);
	if (ret < 0)
		return ret;
	s->fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return error_sys(err, -errno, "%s: cannot use it as the store", s->dir);
	if (st.st_mode & 077)
		return error_set(
			err, -EACCES,
			"%s: the store may be read by others (mode %03o), and contexts are as private as their text; run: chmod 700 %s",
			s->dir, st.st_mode & 0777, s->dir);
	if (flock(s->fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, -EBUSY, "%s: another cloud is using this store", s->dir);
	return 0;
}

int store_open(struct store **out, const char *dir, struct lslm_error *err)
{
	struct store *s;
	int ret;

	/* Room for the longest name in it. */
	if (strlen(dir) > PATH_MAX - KV_HASH_TEXT - 16)
		return error_set(err, -ENAMETOOLONG, "%.64s...: the store's name is too long", dir);
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_sys(err, -ENOMEM, "%s", dir);
	s->fd = -1;
	pthread_mutex_init(&s->room, NULL);
	s->dir = strdup(dir);
	ret = s->dir ? open_dir(s, err) : error_sys(err, -ENOMEM, "%s", dir);
	if (ret < 0) {
		store_close(s);
		return ret;
	}
	remove_leftovers(s);
	*out = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	pthread_mutex_destroy(&s->room);
	free(s->dir);
	free(s);
}

void store_limit(struct store *s, const struct store_limits *limits)
{
	s->limits = *limits;
}

void store_incoming(struct store *s, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s%u%s", s->dir, incoming_prefix,
		 atomic_fetch_add(&s->serial, 1), suffix);
}

/* A copy that cannot be opened, or has a wrong digest, is no reason to keep it. */
static bool is_whole(const char *path)
{
	struct lskv *f;
	bool whole;

	if (lskv_open(&f, path, NULL) < 0)
		return false;
	whole = !store_verify(f, NULL);
	lskv_close(f);
	return whole;
}

/* ---- room ---- */

/* A context as the directory knows it. */
struct entry {
	struct kv_hash key, salt;
	uint64_t bytes;
	struct timespec used;
	bool pinned;
};

static int older_first(const void *a, const void *b)
{
	const struct timespec *x = &((const struct entry *)a)->used;
	const struct timespec *y = &((const struct entry *)b)->used;

	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? -1 : 1;
	return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* False for one that is gone meanwhile. A damaged file is nobody's; it counts, and may go. */
static bool look(struct store *s, const struct kv_hash *key, bool salts, struct entry *e)
{
	char path[PATH_MAX];
	struct stat st;
	struct lskv *f;

	path_of(s, key, path);
	if (stat(path, &st) < 0)
		return false;
	*e = (struct entry){
		.key = *key,
		.bytes = (uint64_t)st.st_size,
		.used = st.st_mtim,
		.pinned = store_is_pinned(s, key),
	};
	if (salts && !lskv_open(&f, path, NULL)) {
		e->salt = lskv_manifest(f)->identity.salt;
		lskv_close(f);
	}
	return true;
}

/* All contexts, or those of one salt, the one that was not used for the longest time first. */
static int survey(struct store *s, const struct kv_hash *salt, struct entry **out, size_t *n,
		  uint64_t *bytes)
{
	struct kv_hash *keys;
	struct entry *list;
	size_t n_keys;
	int ret = store_list(s, &keys, &n_keys, NULL);

	*n = 0;
	*bytes = 0;
	if (ret < 0)
		return ret;
	list = calloc(n_keys ? n_keys : 1, sizeof(*list));
	for (size_t i = 0; list && i < n_keys; i++) {
		struct entry *e = &list[*n];

		if (!look(s, &keys[i], salt, e) || (salt && !kv_hash_equal(&e->salt, salt)))
			continue;
		*bytes += e->bytes;
		++*n;
	}
	free(keys);
	if (!list)
		return -ENOMEM;
	qsort(list, *n, sizeof(*list), older_first);
	*out = list;
	return 0;
}

static void evict(struct store *s, const struct kv_hash *key)
{
	if (!store_remove(s, key, NULL) && s->limits.gone)
		s->limits.gone(s->limits.arg, key);
}

/* Make `bytes` fit below max, beside the contexts of salt, or beside all with NULL. */
static int make_room(struct store *s, const struct kv_hash *salt, uint64_t max, uint64_t bytes,
		     struct lslm_error *err)
{
	struct entry *list;
	uint64_t used, free_able = 0;
	size_t n;
	int ret = survey(s, salt, &list, &n, &used);

	if (ret < 0)
		return error_sys(err, ret, "%s: cannot look for room", s->dir);
	for (size_t i = 0; i < n; i++)
		free_able += list[i].pinned ? 0 : list[i].bytes;
	/* Nothing is thrown away for what does not fit in the end. */
	if (bytes > max || used - free_able > max - bytes)
		ret = error_set(
			err, -EDQUOT,
			"%llu bytes do not fit the %s of %llu, of which %llu are pinned; unpin or remove contexts",
			(unsigned long long)bytes, salt ? "tenant's quota" : "store",
			(unsigned long long)max, (unsigned long long)(used - free_able));
	for (size_t i = 0; !ret && i < n && used > max - bytes; i++) {
		if (list[i].pinned)
			continue;
		evict(s, &list[i].key);
		used -= list[i].bytes;
	}
	free(list);
	return ret;
}

static int find_room(struct store *s, const char *path, uint64_t quota, struct lslm_error *err)
{
	struct kv_hash salt;
	struct stat st;
	struct lskv *f;
	int ret = 0;

	if (!quota && !s->limits.max_bytes)
		return 0;
	if (stat(path, &st) < 0)
		return error_sys(err, -errno, "%s", path);
	if (quota) {
		ret = lskv_open(&f, path, err);
		if (ret < 0)
			return ret;
		salt = lskv_manifest(f)->identity.salt;
		lskv_close(f);
		ret = make_room(s, &salt, quota, (uint64_t)st.st_size, err);
	}
	if (!ret && s->limits.max_bytes)
		ret = make_room(s, NULL, s->limits.max_bytes, (uint64_t)st.st_size, err);
	return ret;
}

unsigned int store_expire(struct store *s)
{
	const time_t now = time(NULL);
	struct entry *list;
	unsigned int gone = 0;
	uint64_t bytes;
	size_t n;

	if (!s->limits.ttl_s)
		return 0;
	pthread_mutex_lock(&s->room);
	if (!survey(s, NULL, &list, &n, &bytes)) {
		/* A clock that was set back makes nothing old. */
		for (size_t i = 0; i < n; i++)
			if (!list[i].pinned &&
			    now - list[i].used.tv_sec > (time_t)s->limits.ttl_s) {
				evict(s, &list[i].key);
				gone++;
			}
		free(list);
	}
	pthread_mutex_unlock(&s->room);
	return gone;
}

/* ---- contexts ---- */

static int add(struct store *s, const char *path, const struct kv_hash *key, uint64_t quota,
	       struct lslm_error *err)
{
	char final[PATH_MAX];
	int ret = 0;

	path_of(s, key, final);
	/* One that is here already needs no room: if it is damaged, the new one takes its place. */
	if (access(final, F_OK) < 0)
		ret = find_room(s, path, quota, err);
	if (ret < 0)
		return ret;
	/* link() never replaces, whoever else is adding the same key. */
	if (link(path, final) < 0) {
		ret = -errno;
		if (ret == -EEXIST && is_whole(final))
			ret = 0;
		else if (ret == -EEXIST)
			ret = rename(path, final) < 0 ? -errno : 0;
	}
	if (!ret && fsync(s->fd) < 0)
		ret = -errno;
	return ret < 0 ? error_sys(err, ret, "%s: cannot store", final) : 0;
}

int store_add(struct store *s, const char *path, const struct kv_hash *key, uint64_t quota,
	      struct lslm_error *err)
{
	int ret;

	pthread_mutex_lock(&s->room);
	ret = add(s, path, key, quota, err);
	pthread_mutex_unlock(&s->room);
	unlink(path);
	return ret;
}

/* Beside what is pinned. */
static uint64_t most_below(struct store *s, const struct kv_hash *salt, uint64_t max)
{
	struct entry *list;
	uint64_t used;
	size_t n;

	/* What cannot be looked at now is looked at in the end. */
	if (survey(s, salt, &list, &n, &used) < 0)
		return max;
	for (size_t i = 0; i < n; i++)
		used -= list[i].pinned ? 0 : list[i].bytes;
	free(list);
	return used < max ? max - used : 0;
}

uint64_t store_most(struct store *s, const struct kv_hash *key, const struct kv_hash *salt,
		    uint64_t quota)
{
	uint64_t most = UINT64_MAX, all;
	char path[PATH_MAX];

	path_of(s, key, path);
	pthread_mutex_lock(&s->room);
	if (access(path, F_OK) < 0) {
		if (quota)
			most = most_below(s, salt, quota);
		all = s->limits.max_bytes ? most_below(s, NULL, s->limits.max_bytes) : UINT64_MAX;
		most = all < most ? all : most;
	}
	pthread_mutex_unlock(&s->room);
	return most;
}

bool store_has(struct store *s, const struct kv_hash *key)
{
	char path[PATH_MAX];

	path_of(s, key, path);
	return is_whole(path);
}

static int no_context(struct lslm_error *err)
{
	return error_set(err, -ENOENT, "there is no context with this key");
}

/* The time of access would not do: looking for room reads files too. */
static void note_use(const char *path)
{
	const struct timespec times[] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_NOW } };

	utimensat(AT_FDCWD, path, times, 0);
}

int store_peek(struct store *s, const struct kv_hash *key, struct lskv **out,
	       struct lslm_error *err)
{
	char path[PATH_MAX];

	path_of(s, key, path);
	return access(path, F_OK) < 0 ? no_context(err) : lskv_open(out, path, err);
}

int store_get(struct store *s, const struct kv_hash *key, struct lskv **out, struct lslm_error *err)
{
	char path[PATH_MAX];

	path_of(s, key, path);
	note_use(path);
	return store_peek(s, key, out, err);
}

int store_remove(struct store *s, const struct kv_hash *key, struct lslm_error *err)
{
	char path[PATH_MAX];

	name_of(s, key, pin_suffix, path);
	unlink(path);
	path_of(s, key, path);
	if (unlink(path) == 0)
		return 0;
	if (errno == ENOENT)
		return no_context(err);
	return error_sys(err, -errno, "%s: cannot remove", path);
}

bool store_is_pinned(struct store *s, const struct kv_hash *key)
{
	char path[PATH_MAX];

	name_of(s, key, pin_suffix, path);
	return access(path, F_OK) == 0;
}

int store_pin(struct store *s, const struct kv_hash *key, bool pinned, struct lslm_error *err)
{
	char path[PATH_MAX];
	int fd, ret = 0;

	path_of(s, key, path);
	if (access(path, F_OK) < 0)
		return no_context(err);
	name_of(s, key, pin_suffix, path);
	if (!pinned) {
		if (unlink(path) < 0 && errno != ENOENT)
			ret = -errno;
	} else {
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			ret = -errno;
		else
			close(fd);
	}
	if (!ret && fsync(s->fd) < 0)
		ret = -errno;
	return ret < 0 ? error_sys(err, ret, "%s: cannot %s", path, pinned ? "pin" : "unpin") : 0;
}

/* KEY.lskv and nothing else. */
static int key_of(const char *name, struct kv_hash *key)
{
	char text[KV_HASH_TEXT];

	if (strlen(name) != KV_HASH_TEXT - 1 + strlen(suffix) ||
	    strcmp(name + KV_HASH_TEXT - 1, suffix))
		return -EINVAL;
	memcpy(text, name, KV_HASH_TEXT - 1);
	text[KV_HASH_TEXT - 1] = 0;
	return kv_hash_parse(key, text);
}

int store_list(struct store *s, struct kv_hash **keys, size_t *n, struct lslm_error *err)
{
	struct kv_hash *list = NULL, *more;
	DIR *d = opendir(s->dir);
	size_t used = 0, room = 0;
	struct dirent *e;

	if (!d)
		return error_sys(err, -errno, "%s: cannot list the store", s->dir);
	while ((e = readdir(d))) {
		if (used == room) {
			room = room ? room * 2 : 64;
			more = reallocarray(list, room, sizeof(*list));
			if (!more) {
				free(list);
				closedir(d);
				return error_sys(err, -ENOMEM, "%s", s->dir);
			}
			list = more;
		}
		if (!key_of(e->d_name, &list[used]))
			used++;
	}
	closedir(d);
	*keys = list;
	*n = used;
	return 0;
}

static int verify_level(const struct lskv *f, const struct manifest_level *lv,
			struct lslm_error *err)
{
	const struct manifest *m = lskv_manifest(f);
	struct kv_hash is;
	int ret;

	for (uint32_t s = 0; s < m->n_stripes; s++)
		for (uint32_t u = 0; u < lv->n_units; u++) {
			ret = lskv_unit_digest(f, lv, s, u, &is);
			if (ret < 0)
				return error_sys(err, ret, "stripe %u, layer %u", s, u);
			if (!kv_hash_equal(&is, manifest_digest(m, lv, s, u)))
				return error_set(err, -EBADMSG,
						 "the block of stripe %u, layer %u is damaged at "
						 "level %s",
						 s, u, kv_level_name(lv->level));
		}
	return 0;
}

int store_verify(const struct lskv *f, struct lslm_error *err)
{
	const struct manifest *m = lskv_manifest(f);
	int ret = 0;

	for (uint32_t i = 0; i < m->n_levels && !ret; i++)
		ret = verify_level(f, &m->levels[i], err);
	return ret;
}
