// SPDX-License-Identifier: MIT
#include "kv/publisher.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hex.h"

enum {
	KEY_FILE_MAX = 4096,
	TRUST_FILE_MAX = 1 << 20,
};

/* A new pair, in memory only. */
static int generate(struct publisher *p, struct lslm_error *err)
{
	if (sodium_init() < 0)
		return error_set(err, -EIO, "libsodium cannot start");
	crypto_sign_keypair(p->pubkey, p->seckey);
	return 0;
}

void publisher_wipe(struct publisher *p)
{
	sodium_memzero(p->seckey, sizeof(p->seckey));
}

void publisher_key_text(const uint8_t pubkey[MANIFEST_PUBKEY_BYTES], char text[PUBLISHER_TEXT])
{
	hex_format(text, pubkey, MANIFEST_PUBKEY_BYTES);
}

int publisher_create(struct publisher *p, const char *path, struct lslm_error *err)
{
	char public[PUBLISHER_TEXT], secret[2 * crypto_sign_SEEDBYTES + 1];
	char text[256];
	int n, ret;

	ret = generate(p, err);
	if (ret < 0)
		return ret;
	publisher_key_text(p->pubkey, public);
	hex_format(secret, p->seckey, crypto_sign_SEEDBYTES);
	n = snprintf(text, sizeof(text),
		     "# lslm publisher key; keep it secret\npublic %s\nsecret %s\n", public,
		     secret);
	ret = file_write(path, text, (size_t)n, 0600, FILE_CREATE, err);
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(text, sizeof(text));
	if (ret < 0)
		publisher_wipe(p);
	return ret;
}

/* A line cut from *text, without its comment and outer blanks; NULL at the end. */
static char *next_line(char **text)
{
	char *line = strsep(text, "\n"), *end;

	if (!line)
		return NULL;
	line[strcspn(line, "#")] = 0;
	line += strspn(line, " \t\r");
	end = line + strlen(line);
	while (end > line && strchr(" \t\r", end[-1]))
		end--;
	*end = 0;
	return line;
}

/* "NAME digits"; returns whether the line is one of NAME and right. */
static int get_named(const char *line, const char *name, uint8_t *data, size_t size)
{
	size_t n = strlen(name);

	if (strncmp(line, name, n) != 0 || (line[n] != ' ' && line[n] != '\t'))
		return 0;
	line += n + strspn(line + n, " \t");
	return hex_parse(data, size, line, strlen(line)) == 0;
}

static int parse_key(struct publisher *p, char *text, const char *path, struct lslm_error *err)
{
	uint8_t seed[crypto_sign_SEEDBYTES], public[MANIFEST_PUBKEY_BYTES];
	int have_public = 0, have_secret = 0, ret = 0;
	char *line;

	while ((line = next_line(&text))) {
		if (!have_public && get_named(line, "public", public, sizeof(public)))
			have_public = 1;
		else if (!have_secret && get_named(line, "secret", seed, sizeof(seed)))
			have_secret = 1;
		else if (*line)
			ret = -EINVAL;
	}
	if (ret < 0 || !have_public || !have_secret) {
		ret = error_set(err, -EINVAL, "%s: is no publisher key file of lslm", path);
	} else {
		crypto_sign_seed_keypair(p->pubkey, p->seckey, seed);
		if (memcmp(p->pubkey, public, sizeof(public)) != 0)
			ret = error_set(err, -EINVAL,
					"%s: is damaged: public and secret key do not match", path);
	}
	sodium_memzero(seed, sizeof(seed));
	return ret;
}

static int check_rights(int fd, const char *path, struct lslm_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_sys(err, -errno, "%s: cannot read", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "%s: is not a regular file", path);
	if (st.st_mode & 077)
		return error_set(err, -EACCES,
				 "%s: a secret key that others can read (mode %03o); chmod 600 it",
				 path, st.st_mode & 0777);
	if (st.st_size >= KEY_FILE_MAX)
		return error_set(err, -EINVAL, "%s: is no publisher key file of lslm", path);
	return 0;
}

int publisher_load(struct publisher *p, const char *path, struct lslm_error *err)
{
	char text[KEY_FILE_MAX];
	ssize_t n;
	int fd, ret;

	if (sodium_init() < 0)
		return error_set(err, -EIO, "libsodium cannot start");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return error_sys(err, -errno, "%s: cannot open", path);
	ret = check_rights(fd, path, err);
	if (ret == 0) {
		n = read(fd, text, sizeof(text) - 1);
		if (n < 0) {
			ret = error_sys(err, -errno, "%s: cannot read", path);
		} else {
			text[n] = 0;
			ret = parse_key(p, text, path, err);
		}
		sodium_memzero(text, sizeof(text));
	}
	close(fd);
	if (ret < 0)
		publisher_wipe(p);
	return ret;
}

int publisher_default_path(char **path, struct lslm_error *err)
{
	return file_xdg_path(path, FILE_XDG_CONFIG, "publisher.key", err);
}

int publisher_open(struct publisher *p, const char *path, struct lslm_error *err)
{
	char *chosen = NULL;
	int ret;

	if (!path) {
		ret = publisher_default_path(&chosen, err);
		if (ret < 0)
			return ret;
		path = chosen;
	}
	ret = publisher_load(p, path, err);
	if (ret == -ENOENT) {
		ret = file_make_parent(path, 0700, err);
		if (ret == 0)
			ret = publisher_create(p, path, err);
		if (ret == -EEXIST)
			ret = publisher_load(p, path, err);
	}
	free(chosen);
	return ret;
}

static int add_key(struct publisher_trust *trust, const uint8_t key[MANIFEST_PUBKEY_BYTES],
		   struct lslm_error *err)
{
	void *grown;

	for (size_t i = 0; i < trust->n; i++)
		if (memcmp(trust->keys[i], key, MANIFEST_PUBKEY_BYTES) == 0)
			return 0;
	grown = reallocarray(trust->keys, trust->n + 1, sizeof(*trust->keys));
	if (!grown)
		return error_set(err, -ENOMEM, "out of memory for %zu trusted keys", trust->n + 1);
	trust->keys = grown;
	memcpy(trust->keys[trust->n++], key, MANIFEST_PUBKEY_BYTES);
	return 0;
}

static int add_lines(struct publisher_trust *trust, char *text, const char *path,
		     struct lslm_error *err)
{
	unsigned int number = 0, found = 0;
	char *line;

	while ((line = next_line(&text))) {
		uint8_t key[MANIFEST_PUBKEY_BYTES];
		int ret;

		number++;
		if (!*line)
			continue;
		if (hex_parse(key, sizeof(key), line, strlen(line)) < 0)
			return error_set(err, -EINVAL,
					 "%s: line %u is no public key (64 hexadecimal digits)",
					 path, number);
		ret = add_key(trust, key, err);
		if (ret < 0)
			return ret;
		found++;
	}
	if (!found)
		return error_set(err, -EINVAL, "%s: holds no public key", path);
	return 0;
}

int publisher_trust_add(struct publisher_trust *trust, const char *arg, struct lslm_error *err)
{
	uint8_t key[MANIFEST_PUBKEY_BYTES];
	size_t size;
	char *text;
	int ret;

	if (hex_parse(key, sizeof(key), arg, strlen(arg)) == 0)
		return add_key(trust, key, err);
	ret = file_read(arg, TRUST_FILE_MAX, &text, &size, err);
	if (ret == -ENOENT)
		return error_set(err, ret,
				 "--trust %s: is neither a public key of 64 hexadecimal digits nor "
				 "a file",
				 arg);
	if (ret < 0)
		return ret;
	/* A NUL would end the text early and hide lines from whoever reads them. */
	if (strlen(text) != size)
		ret = error_set(err, -EINVAL, "%s: is no list of public keys", arg);
	else
		ret = add_lines(trust, text, arg, err);
	free(text);
	return ret;
}

int publisher_trust_load(struct publisher_trust *trust, const char *arg, struct lslm_error *err)
{
	struct publisher own;
	char text[PUBLISHER_TEXT], *path;
	int rc;

	if (arg)
		return publisher_trust_add(trust, arg, err);
	rc = publisher_default_path(&path, err);
	if (rc)
		return rc;
	rc = publisher_load(&own, path, err);
	free(path);
	if (rc == -ENOENT)
		return error_set(err, -EKEYREJECTED,
				 "no publisher is trusted and this machine has not published; name "
				 "the publisher's public key with --trust");
	if (rc)
		return rc;
	publisher_key_text(own.pubkey, text);
	publisher_wipe(&own);
	return publisher_trust_add(trust, text, err);
}

void publisher_trust_free(struct publisher_trust *trust)
{
	free(trust->keys);
	trust->keys = NULL;
	trust->n = 0;
}
