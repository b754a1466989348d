// SPDX-License-Identifier: MIT
#include "serve/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static const char incoming_prefix[] = ".incoming-";
static const char atomic_prefix[] = ".lslm-"; /* base/file.h: of a file that is being written */
static const char suffix[] = ".lskv";

struct store {
	char *dir;
	int fd; /* of the directory; carries the lock */
	atomic_uint serial;
};

static void path_of(const struct store *s, const struct kv_hash *key, char path[PATH_MAX])
{
	char text[KV_HASH_TEXT];

	kv_hash_format(key, text);
	snprintf(path, PATH_MAX, "%s/%s%s", s->dir, text, suffix);
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
	free(s->dir);
	free(s);
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

int store_add(struct store *s, const char *path, const struct kv_hash *key, struct lslm_error *err)
{
	char final[PATH_MAX];
	int ret = 0;

	path_of(s, key, final);
	/* link() never replaces, whoever else is adding the same key. */
	if (link(path, final) < 0) {
		ret = -errno;
		if (ret == -EEXIST && is_whole(final))
			ret = 0;
		else if (ret == -EEXIST)
			ret = rename(path, final) < 0 ? -errno : 0;
	}
	unlink(path);
	if (!ret && fsync(s->fd) < 0)
		ret = -errno;
	return ret < 0 ? error_sys(err, ret, "%s: cannot store", final) : 0;
}

int store_get(struct store *s, const struct kv_hash *key, struct lskv **out, struct lslm_error *err)
{
	char path[PATH_MAX];

	path_of(s, key, path);
	if (access(path, F_OK) < 0)
		return error_set(err, -ENOENT, "there is no context with this key");
	return lskv_open(out, path, err);
}

int store_remove(struct store *s, const struct kv_hash *key, struct lslm_error *err)
{
	char path[PATH_MAX];

	path_of(s, key, path);
	if (unlink(path) == 0)
		return 0;
	if (errno == ENOENT)
		return error_set(err, -ENOENT, "there is no context with this key");
	return error_sys(err, -errno, "%s: cannot remove", path);
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

static int verify_level(const struct lskv *f, const struct manifest_level *lv, uint8_t *block,
			struct lslm_error *err)
{
	const struct manifest *m = lskv_manifest(f);
	size_t size = kv_block_bytes(&m->geo, lv->level);
	struct kv_hash is;
	uint32_t s, l;
	int ret;

	for (s = 0; s < m->n_stripes; s++) {
		if (lv->length[s] != kv_stripe_bytes(&m->geo, lv->level))
			return error_set(err, -EBADMSG, "stripe %u is not of its level's size", s);
		for (l = 0; l < m->geo.n_layer; l++) {
			ret = file_pread_all(lskv_fd(f), block, size,
					     lskv_block_offset(f, lv, s, l));
			if (ret < 0)
				return error_sys(err, ret, "stripe %u, layer %u", s, l);
			is = kv_digest(block, size);
			if (!kv_hash_equal(&is, manifest_digest(m, lv, s, l)))
				return error_set(err, -EBADMSG,
						 "the block of stripe %u, layer %u is damaged", s,
						 l);
		}
	}
	return 0;
}

int store_verify(const struct lskv *f, struct lslm_error *err)
{
	const struct manifest *m = lskv_manifest(f);
	uint8_t *block;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < m->n_levels && !ret; i++) {
		block = malloc(kv_block_bytes(&m->geo, m->levels[i].level));
		if (!block)
			return error_sys(err, -ENOMEM, "verification");
		ret = verify_level(f, &m->levels[i], block, err);
		free(block);
	}
	return ret;
}
