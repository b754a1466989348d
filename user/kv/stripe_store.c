// SPDX-License-Identifier: MIT
#include "kv/stripe_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/hex.h"

_Static_assert(STRIPE_STORE_KEY == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "its key");
_Static_assert(STRIPE_STORE_SEAL == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES +
					    crypto_aead_xchacha20poly1305_ietf_ABYTES,
	       "nonce and tag");

enum { VERSION_PLAIN = 1, VERSION_SEALED = 2, NONCE = 24 };

static const char magic[8] = "lslmstrp";
static const char temporary[] = ".new-";
static const char pin_name[] = "pinned";

/* A temporary file that is older than this belongs to a process that was killed. */
enum { STALE_SECONDS = 3600 };

#define NS_PER_S INT64_C(1000000000)

struct stripe_store {
	char *name; /* for error lines */
	int dir;
	uint64_t max_bytes;
	uint64_t max_age_s;
	bool sealed;
	uint8_t key[STRIPE_STORE_KEY];
	atomic_uint serial; /* of temporary names */
	pthread_mutex_t lock; /* of the scan, and of bytes */
	uint64_t bytes; /* at the last scan, and what was saved since */
	atomic_uint_fast64_t loaded, saved, wrong, evicted;
};

/* One file found by a scan. */
struct found {
	char path[KV_HASH_TEXT + 64]; /* below the store */
	int64_t used; /* ns since 1970 */
	uint64_t size;
	size_t pin; /* of its context, plus one; 0: none */
	bool kept; /* whatever is to go */
};

struct pin {
	struct kv_hash key;
	uint64_t bytes; /* set aside */
	uint64_t used; /* of them */
};

struct scan {
	struct found *files;
	size_t n, room;
	uint64_t bytes;
	struct pin *pins;
	size_t n_pins, pin_room;
};

static void file_name(char *name, size_t size, enum kv_level level, uint32_t stripe)
{
	snprintf(name, size, "%s-%08u", kv_level_name(level), stripe);
}

static void make_header(const struct stripe_store *s, uint8_t h[STRIPE_STORE_HEADER],
			const struct kv_hash *key, enum kv_level level, uint32_t stripe,
			uint64_t size)
{
	memset(h, 0, STRIPE_STORE_HEADER);
	memcpy(h, magic, sizeof(magic));
	put_le32(h + 8, s->sealed ? VERSION_SEALED : VERSION_PLAIN);
	put_le32(h + 12, level);
	memcpy(h + 16, key->b, KV_HASH_BYTES);
	put_le32(h + 48, stripe);
	put_le64(h + 56, size);
}

uint64_t stripe_store_bytes(const struct stripe_store *s, size_t stripe)
{
	return STRIPE_STORE_HEADER + stripe + (s->sealed ? STRIPE_STORE_SEAL : 0);
}

/* ---- encryption ---- */

/* Malloc'd: nonce, ciphertext, tag. NULL: no memory. A nonce of 192 random bits does not come twice. */
static uint8_t *seal(const struct stripe_store *s, const uint8_t header[STRIPE_STORE_HEADER],
		     const void *data, size_t size)
{
	uint8_t *out = malloc(size + STRIPE_STORE_SEAL);

	if (!out)
		return NULL;
	randombytes_buf(out, NONCE);
	crypto_aead_xchacha20poly1305_ietf_encrypt(out + NONCE, NULL, data, size, header,
						   STRIPE_STORE_HEADER, NULL, out, s->key);
	return out;
}

/* What follows the header, to place: 0, -EBADMSG, or another errno when it cannot be read. */
static int read_sealed(const struct stripe_store *s, int fd,
		       const uint8_t header[STRIPE_STORE_HEADER], void *place, size_t size)
{
	const size_t n = size + STRIPE_STORE_SEAL;
	uint8_t *in = malloc(n);
	int ret;

	if (!in)
		return -ENOMEM;
	ret = file_pread_all(fd, in, n, STRIPE_STORE_HEADER);
	if (!ret &&
	    crypto_aead_xchacha20poly1305_ietf_decrypt(place, NULL, NULL, in + NONCE, n - NONCE,
						       header, STRIPE_STORE_HEADER, in, s->key))
		ret = -EBADMSG;
	free(in);
	return ret;
}

int stripe_store_read_key(const char *path, uint8_t key[STRIPE_STORE_KEY], struct lslm_error *err)
{
	size_t size;
	char *text;
	int ret = file_read_secret(path, "key", 4096, &text, &size, err);

	if (ret)
		return ret;
	ret = hex_parse(key, STRIPE_STORE_KEY, text, strcspn(text, "\r\n"));
	sodium_memzero(text, size);
	free(text);
	return ret ? error_set(err, ret, "%s: is no key of a store; openssl rand -hex 32 makes one",
			       path) :
		     0;
}

/* ---- the directory ---- */

static int check_dir(int fd, const char *name, struct lslm_error *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return error_sys(err, -errno, "%s", name);
	if (st.st_uid != geteuid())
		return error_set(
			err, -EACCES,
			"%s: belongs to another user; keep stripes in a directory of your own",
			name);
	if (st.st_mode & 022)
		return error_set(err, -EACCES,
				 "%s: others can write there; make it yours alone with chmod 700",
				 name);
	if ((st.st_mode & 077) && fchmod(fd, 0700))
		return error_sys(err, -errno, "%s: cannot make it private", name);
	return 0;
}

static int open_dir(struct stripe_store *s, const char *dir, struct lslm_error *err)
{
	int ret = 0;

	if (dir) {
		s->name = strdup(dir);
		ret = s->name ? 0 : error_sys(err, -ENOMEM, "%s", dir);
	} else {
		ret = file_xdg_path(&s->name, FILE_XDG_CACHE, "stripes", err);
	}
	if (!ret)
		ret = file_mkdirs(s->name, 0700, err);
	if (ret < 0)
		return ret;
	s->dir = open(s->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0)
		return error_sys(err, -errno, "%s: cannot open", s->name);
	return check_dir(s->dir, s->name, err);
}

/* ---- bounds ---- */

/* One more place; false: no memory. */
static bool grow(void **all, size_t *room, size_t n, size_t size)
{
	const size_t more = *room ? 2 * *room : 64;
	void *p;

	if (n < *room)
		return true;
	p = realloc(*all, more * size);
	if (!p)
		return false;
	*all = p;
	*room = more;
	return true;
}

/* Is this context pinned? Its place among the pins, plus one. One that holds something else sets nothing aside. */
static size_t note_pin(struct stripe_store *s, int dir, const struct kv_hash *key,
		       struct scan *scan)
{
	uint8_t is[STRIPE_STORE_HEADER + 8], want[STRIPE_STORE_HEADER];
	const int fd = openat(dir, pin_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool fine;

	if (fd < 0)
		return 0;
	make_header(s, want, key, 0, 0, 8);
	fine = !file_pread_all(fd, is, sizeof(is), 0) && !memcmp(is, want, sizeof(want));
	close(fd);
	if (!fine ||
	    !grow((void **)&scan->pins, &scan->pin_room, scan->n_pins, sizeof(*scan->pins)))
		return 0;
	scan->pins[scan->n_pins++] =
		(struct pin){ .key = *key, .bytes = get_le64(is + STRIPE_STORE_HEADER) };
	return scan->n_pins;
}

static void note_file(struct scan *scan, const char *key, const char *name, size_t pin,
		      const struct stat *st)
{
	struct found *f;

	/* Without memory what was seen is handled, and the rest next time. */
	if (!grow((void **)&scan->files, &scan->room, scan->n, sizeof(*f)))
		return;
	f = &scan->files[scan->n++];
	snprintf(f->path, sizeof(f->path), "%s/%s", key, name);
	f->used = st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec;
	f->size = (uint64_t)st->st_size;
	f->pin = pin;
	f->kept = false;
	scan->bytes += f->size;
}

static void scan_key(struct stripe_store *s, const struct kv_hash *hash, const char *key,
		     struct scan *scan)
{
	int fd = openat(s->dir, key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;
	struct stat st;
	size_t pin;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	pin = note_pin(s, fd, hash, scan);
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, pin_name))
			continue;
		if (strlen(e->d_name) >= 64 || fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISREG(st.st_mode))
			continue;
		if (strncmp(e->d_name, temporary, strlen(temporary)))
			note_file(scan, key, e->d_name, pin, &st);
		else if (st.st_mtim.tv_sec + STALE_SECONDS < time(NULL))
			unlinkat(fd, e->d_name, 0);
	}
	closedir(d);
}

static void scan_all(struct stripe_store *s, struct scan *scan)
{
	int fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct kv_hash key;
	struct dirent *e;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	/* Only what has a name of ours is ever touched. */
	while ((e = readdir(d)))
		if (!kv_hash_parse(&key, e->d_name))
			scan_key(s, &key, e->d_name, scan);
	closedir(d);
}

static int by_use(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return (x->used > y->used) - (x->used < y->used);
}

static void evict(struct stripe_store *s, const struct found *f)
{
	char key[KV_HASH_TEXT];

	if (unlinkat(s->dir, f->path, 0))
		return;
	atomic_fetch_add(&s->evicted, 1);
	/* Fails while it holds something, which is what is wanted. */
	snprintf(key, sizeof(key), "%.*s", KV_HASH_TEXT - 1, f->path);
	unlinkat(s->dir, key, AT_REMOVEDIR);
}

static void free_scan(struct scan *scan)
{
	free(scan->files);
	free(scan->pins);
}

/* Sorted by use: from the last one on, as far as what is set aside for their contexts goes. */
static void keep_pinned(struct scan *scan)
{
	for (size_t i = scan->n; i-- > 0;) {
		struct found *f = &scan->files[i];
		struct pin *p = f->pin ? &scan->pins[f->pin - 1] : NULL;

		f->kept = p && f->size <= p->bytes - p->used;
		if (f->kept)
			p->used += f->size;
	}
}

/* Under the lock: make room for so many bytes, and drop what nobody has used for too long. */
static void trim(struct stripe_store *s, uint64_t room)
{
	const int64_t now = time(NULL) * NS_PER_S;
	struct scan scan = { 0 };
	size_t i;

	scan_all(s, &scan);
	if (scan.n)
		qsort(scan.files, scan.n, sizeof(*scan.files), by_use);
	keep_pinned(&scan);
	for (i = 0; i < scan.n; i++) {
		const struct found *f = &scan.files[i];
		/* A clock that was set back makes no file old. */
		const bool old = now > f->used &&
				 (uint64_t)(now - f->used) / NS_PER_S > s->max_age_s;

		if (!old && scan.bytes + room <= s->max_bytes)
			break;
		if (f->kept)
			continue;
		evict(s, f);
		scan.bytes -= f->size;
	}
	s->bytes = scan.bytes;
	free_scan(&scan);
}

int stripe_store_open(struct stripe_store **out, const struct stripe_store_opts *opts,
		      struct lslm_error *err)
{
	struct stripe_store *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return error_sys(err, -ENOMEM, "stripe store");
	s->dir = -1;
	pthread_mutex_init(&s->lock, NULL);
	s->max_bytes = opts->max_bytes ? opts->max_bytes : (uint64_t)STRIPE_STORE_DEFAULT_MIB << 20;
	s->max_age_s = opts->max_age_s ? opts->max_age_s : STRIPE_STORE_DEFAULT_DAYS * 86400ull;
	s->sealed = opts->key;
	if (s->sealed)
		memcpy(s->key, opts->key, sizeof(s->key));
	ret = sodium_init() < 0 ? error_set(err, -EIO, "libsodium does not start") :
				  open_dir(s, opts->dir, err);
	if (ret < 0) {
		stripe_store_close(s);
		return ret;
	}
	pthread_mutex_lock(&s->lock);
	trim(s, 0);
	pthread_mutex_unlock(&s->lock);
	*out = s;
	return 0;
}

void stripe_store_close(struct stripe_store *s)
{
	if (!s)
		return;
	if (s->dir >= 0)
		close(s->dir);
	pthread_mutex_destroy(&s->lock);
	free(s->name);
	sodium_memzero(s->key, sizeof(s->key));
	free(s);
}

/* ---- loading ---- */

static bool digests_are_right(const struct manifest *m, const struct manifest_level *lv,
			      uint32_t stripe, const uint8_t *data)
{
	struct kv_hash is;

	for (uint32_t u = 0; u < lv->n_units; u++) {
		const size_t bytes = manifest_unit_bytes(m, lv, stripe, u);

		is = kv_digest(data, bytes);
		if (!kv_hash_equal(&is, manifest_digest(m, lv, stripe, u)))
			return false;
		data += bytes;
	}
	return true;
}

/* 0, -EBADMSG, or another errno when it cannot be read, which says nothing about the file. */
static int read_stripe(const struct stripe_store *s, int fd, const struct manifest *m,
		       const struct manifest_level *lv, uint32_t stripe, void *place)
{
	const size_t size = lv->length[stripe];
	uint8_t is[STRIPE_STORE_HEADER], want[STRIPE_STORE_HEADER];
	struct stat st;
	int ret;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != stripe_store_bytes(s, size))
		return -EBADMSG;
	make_header(s, want, &m->key, lv->level, stripe, size);
	ret = file_pread_all(fd, is, sizeof(is), 0);
	if (!ret && memcmp(is, want, sizeof(is)))
		return -EBADMSG;
	if (!ret)
		ret = s->sealed ? read_sealed(s, fd, is, place, size) :
				  file_pread_all(fd, place, size, sizeof(is));
	if (ret)
		return ret == -ENODATA ? -EBADMSG : ret;
	return digests_are_right(m, lv, stripe, place) ? 0 : -EBADMSG;
}

static int open_key(struct stripe_store *s, const struct kv_hash *key)
{
	char hex[KV_HASH_TEXT];
	int fd;

	kv_hash_format(key, hex);
	fd = openat(s->dir, hex, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int stripe_store_load(struct stripe_store *s, const struct manifest *m,
		      const struct manifest_level *lv, uint32_t stripe, void *place)
{
	const struct timespec now[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_NOW } };
	int dir = open_key(s, &m->key), fd, ret;
	char name[64];

	if (dir < 0)
		return -ENOENT;
	file_name(name, sizeof(name), lv->level, stripe);
	/* O_NONBLOCK: a pipe of that name must not hang the open. */
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		ret = read_stripe(s, fd, m, lv, stripe, place);
	else
		ret = errno == ELOOP ? -EBADMSG : -ENOENT;
	if (ret == -EBADMSG) {
		unlinkat(dir, name, 0);
		atomic_fetch_add(&s->wrong, 1);
	} else if (!ret) {
		futimens(fd, now);
		atomic_fetch_add(&s->loaded, 1);
	} else {
		ret = -ENOENT;
	}
	if (fd >= 0)
		close(fd);
	close(dir);
	return ret;
}

/* ---- saving ---- */

/* Another process may remove the directory, as empty, between this and the next step: then once more. */
static int make_key(struct stripe_store *s, const struct kv_hash *key)
{
	char hex[KV_HASH_TEXT];

	kv_hash_format(key, hex);
	if (mkdirat(s->dir, hex, 0700) && errno != EEXIST)
		return -errno;
	return open_key(s, key);
}

static int write_stripe(int dir, const char *temp, const uint8_t header[STRIPE_STORE_HEADER],
			const void *data, size_t size)
{
	int fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0)
		return -errno;
	ret = file_pwrite_all(fd, header, STRIPE_STORE_HEADER, 0);
	if (!ret)
		ret = file_pwrite_all(fd, data, size, STRIPE_STORE_HEADER);
	if (!ret && fsync(fd))
		ret = -errno;
	if (close(fd) && !ret)
		ret = -errno;
	return ret;
}

static int save_in(struct stripe_store *s, int dir, const char *name,
		   const uint8_t header[STRIPE_STORE_HEADER], const void *data, size_t size)
{
	char temp[64];
	int ret;

	snprintf(temp, sizeof(temp), "%s%d-%u", temporary, getpid(),
		 atomic_fetch_add(&s->serial, 1));
	/* What a killed process with our number left behind. */
	unlinkat(dir, temp, 0);
	ret = write_stripe(dir, temp, header, data, size);
	/* rename() replaces a link instead of following it. */
	if (!ret && renameat(dir, temp, dir, name))
		ret = -errno;
	if (ret) {
		unlinkat(dir, temp, 0);
		return ret;
	}
	/* Losing the name in a crash costs a transfer, so its failure is none. */
	fsync(dir);
	return 0;
}

static bool is_there(int dir, const char *name, size_t size)
{
	struct stat st;

	return !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
	       (uint64_t)st.st_size == size;
}

static int make_room(struct stripe_store *s, uint64_t bytes, struct lslm_error *err)
{
	int ret = 0;

	if (bytes > s->max_bytes)
		return error_set(err, -EFBIG, "%s: a stripe of %llu bytes is more than it may hold",
				 s->name, (unsigned long long)bytes);
	pthread_mutex_lock(&s->lock);
	if (s->bytes + bytes > s->max_bytes)
		trim(s, bytes);
	if (s->bytes + bytes > s->max_bytes)
		ret = error_set(
			err, -EDQUOT,
			"%s: what is pinned leaves no room for a stripe of %llu bytes; unpin something or give it more (--store-mib)",
			s->name, (unsigned long long)bytes);
	else
		s->bytes += bytes;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

/* 1: it is there already. */
static int save_once(struct stripe_store *s, const struct kv_hash *key, const char *name,
		     const uint8_t header[STRIPE_STORE_HEADER], const void *body, size_t size)
{
	int dir = make_key(s, key), ret;

	if (dir < 0)
		return dir;
	ret = is_there(dir, name, STRIPE_STORE_HEADER + size) ?
		      1 :
		      save_in(s, dir, name, header, body, size);
	close(dir);
	return ret;
}

static int save(struct stripe_store *s, const struct manifest *m, const struct manifest_level *lv,
		uint32_t stripe, const void *data)
{
	const size_t size = lv->length[stripe];
	uint8_t header[STRIPE_STORE_HEADER], *sealed = NULL;
	const void *body = data;
	char name[64];
	int ret;

	file_name(name, sizeof(name), lv->level, stripe);
	make_header(s, header, &m->key, lv->level, stripe, size);
	if (s->sealed)
		body = sealed = seal(s, header, data, size);
	if (!body)
		return -ENOMEM;
	ret = save_once(s, &m->key, name, header, body,
			stripe_store_bytes(s, size) - STRIPE_STORE_HEADER);
	if (ret == -ENOENT)
		ret = save_once(s, &m->key, name, header, body,
				stripe_store_bytes(s, size) - STRIPE_STORE_HEADER);
	free(sealed);
	return ret;
}

int stripe_store_save(struct stripe_store *s, const struct manifest *m,
		      const struct manifest_level *lv, uint32_t stripe, const void *data,
		      struct lslm_error *err)
{
	int ret = make_room(s, stripe_store_bytes(s, lv->length[stripe]), err);

	if (ret)
		return ret;
	ret = save(s, m, lv, stripe, data);
	if (ret < 0)
		return error_sys(err, ret, "%s: stripe %u is not kept", s->name, stripe);
	atomic_fetch_add(&s->saved, ret ? 0 : 1);
	return 0;
}

/* ---- pins ---- */

/* Under the lock. */
static int pin(struct stripe_store *s, const struct kv_hash *key, uint64_t bytes,
	       struct lslm_error *err)
{
	uint8_t header[STRIPE_STORE_HEADER], body[8];
	struct scan scan = { 0 };
	uint64_t others = 0;
	int dir, ret;

	scan_all(s, &scan);
	for (size_t i = 0; i < scan.n_pins; i++)
		others += kv_hash_equal(&scan.pins[i].key, key) ? 0 : scan.pins[i].bytes;
	free_scan(&scan);
	if (others > s->max_bytes || bytes > s->max_bytes - others)
		return error_set(
			err, -EDQUOT,
			"its stripes may take %llu bytes, which does not fit the store of %llu beside the %llu of other pins; unpin something or give it more (--store-mib)",
			(unsigned long long)bytes, (unsigned long long)s->max_bytes,
			(unsigned long long)others);
	make_header(s, header, key, 0, 0, sizeof(body));
	put_le64(body, bytes);
	/* By rename: one that cannot be written leaves the one before. */
	ret = dir = make_key(s, key);
	if (dir >= 0) {
		ret = save_in(s, dir, pin_name, header, body, sizeof(body));
		close(dir);
	}
	return ret < 0 ? error_sys(err, ret, "%s: cannot pin", s->name) : 0;
}

int stripe_store_pin(struct stripe_store *s, const struct kv_hash *key, uint64_t bytes,
		     struct lslm_error *err)
{
	int ret;

	pthread_mutex_lock(&s->lock);
	ret = pin(s, key, bytes, err);
	pthread_mutex_unlock(&s->lock);
	return ret;
}

void stripe_store_unpin(struct stripe_store *s, const struct kv_hash *key)
{
	char hex[KV_HASH_TEXT], path[KV_HASH_TEXT + sizeof(pin_name)];

	kv_hash_format(key, hex);
	snprintf(path, sizeof(path), "%s/%s", hex, pin_name);
	unlinkat(s->dir, path, 0);
	/* Where nothing else is there either. */
	unlinkat(s->dir, hex, AT_REMOVEDIR);
}

size_t stripe_store_pins(struct stripe_store *s, struct kv_hash *keys, size_t max)
{
	struct scan scan = { 0 };
	size_t n;

	pthread_mutex_lock(&s->lock);
	scan_all(s, &scan);
	for (size_t i = 0; i < scan.n_pins && i < max; i++)
		keys[i] = scan.pins[i].key;
	n = scan.n_pins;
	pthread_mutex_unlock(&s->lock);
	free_scan(&scan);
	return n;
}

void stripe_store_stats(const struct stripe_store *s, struct stripe_store_stats *out)
{
	out->loaded = atomic_load(&s->loaded);
	out->saved = atomic_load(&s->saved);
	out->wrong = atomic_load(&s->wrong);
	out->evicted = atomic_load(&s->evicted);
}
