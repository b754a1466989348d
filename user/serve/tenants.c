// SPDX-License-Identifier: MIT
#include "serve/tenants.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "kv/key.h"

enum { MAX_FILE = 1 << 20, MAX_NAME = 64, MAX_TENANTS = 4096, MAX_TOKENS = 16384, MIN_TOKEN = 8 };

struct tenant {
	struct tenants *set;
	char name[MAX_NAME + 1];
	uint32_t number;
	/* Of the set's lock. */
	bool admin;
	uint32_t concurrent; /* 0: no limit */
	uint64_t per_minute; /* 0: no limit */
	struct tenant_store store;
	char *cloud_token, *peer_token; /* files; NULL: the usual ones */
	uint32_t running;
	double level; /* tokens that may still be used, of per_minute at most */
	double at; /* when that was so */
	uint64_t tokens, refused;
};

struct token {
	struct kv_hash digest;
	struct tenant *tenant;
};

/* Tenants are never removed: requests point at them. One that lost its tokens is just not found any more. */
struct tenants {
	char *path;
	pthread_mutex_t lock;
	struct tenant *all[MAX_TENANTS];
	uint32_t n;
	struct token *tokens;
	uint32_t n_tokens;
};

/* ---- the file ---- */

struct line {
	char *token, *name;
	bool admin;
	uint32_t concurrent;
	uint64_t per_minute;
	struct tenant_store store;
	bool own_salt;
	const char *salt_file, *cloud_token, *peer_token;
};

static int read_count(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno || *end || !isdigit((unsigned char)*text) || !*out || *out > max ? -EINVAL : 0;
}

/* The value of "name=value"; NULL for another word. */
static const char *value_of(const char *word, const char *name)
{
	const size_t len = strlen(name);

	return strncmp(word, name, len) || word[len] != '=' ? NULL : word + len + 1;
}

/* -EINVAL: no word that means something. */
static int read_word(struct line *l, const char *word)
{
	const char *value;
	uint64_t n;

	if (!strcmp(word, "admin"))
		l->admin = true;
	else if (!strcmp(word, "readonly"))
		l->store.readonly = true;
	else if (!strcmp(word, "salt=own"))
		l->own_salt = true;
	else if ((value = value_of(word, "salt")) && strchr(value, '/'))
		l->salt_file = value;
	else if (value)
		return kv_hash_parse(&l->store.salt, value);
	else if ((value = value_of(word, "cloud_token")) && *value)
		l->cloud_token = value;
	else if ((value = value_of(word, "peer_token")) && *value)
		l->peer_token = value;
	else if ((value = value_of(word, "tokens_per_minute")))
		return read_count(value, UINT32_MAX, &l->per_minute);
	else if ((value = value_of(word, "concurrent")) && !read_count(value, UINT32_MAX, &n))
		l->concurrent = (uint32_t)n;
	else if ((value = value_of(word, "store_mib")) && !read_count(value, UINT32_MAX, &n))
		l->store.max_bytes = n << 20;
	else
		return -EINVAL;
	return 0;
}

/* Another one for every name, and the same one in every cloud. */
static struct kv_hash own_salt(const char *name)
{
	char text[MAX_NAME + 32];
	const int n = snprintf(text, sizeof(text), "lslm tenant %s", name);

	return kv_digest(text, (size_t)n);
}

static int read_salt(const char *path, struct kv_hash *salt, struct lslm_error *err)
{
	size_t size;
	char *text;
	int rc = file_read_secret(path, "salt", 4096, &text, &size, err);

	if (rc)
		return rc;
	text[strcspn(text, "\r\n")] = 0;
	rc = kv_hash_parse(salt, text);
	explicit_bzero(text, size);
	free(text);
	return rc ? error_set(err, rc, "%s: is no salt; openssl rand -hex 32 makes one", path) : 0;
}

/* What is said of contexts fits together, and is there. */
static int finish_salt(struct line *l, struct lslm_error *err)
{
	int rc = 0;

	if (l->own_salt)
		l->store.salt = own_salt(l->name);
	else if (l->salt_file)
		rc = read_salt(l->salt_file, &l->store.salt, err);
	if (!rc && (l->cloud_token || l->peer_token) && kv_hash_is_zero(&l->store.salt))
		rc = error_set(err, -EINVAL,
			       "cloud_token= and peer_token= are of a salt; give salt= too");
	return rc;
}

static bool is_name(const char *s)
{
	static const char fine[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

	return strlen(s) <= MAX_NAME && !s[strspn(s, fine)];
}

/* 1: a tenant's line; 0: one that says nothing. The error says nothing of what is in it. */
static int parse_line(struct line *l, char *text, struct lslm_error *err)
{
	char *at = NULL, *word;
	int rc;

	*l = (struct line){ 0 };
	l->token = strtok_r(text, " \t\r", &at);
	if (!l->token || *l->token == '#')
		return 0;
	l->name = strtok_r(NULL, " \t\r", &at);
	if (!l->name || !is_name(l->name))
		return error_set(err, -EINVAL,
				 "wanted is TOKEN NAME and options, "
				 "the name of at most %d letters, digits and -_.",
				 MAX_NAME);
	if (strlen(l->token) < MIN_TOKEN)
		return error_set(err, -EINVAL, "the token has fewer than %d characters", MIN_TOKEN);
	while ((word = strtok_r(NULL, " \t\r", &at)))
		if (read_word(l, word))
			return error_set(
				err, -EINVAL,
				"after the name come admin, readonly, concurrent=N, tokens_per_minute=N, salt=own|HEX|FILE, cloud_token=FILE, peer_token=FILE and store_mib=N only");
	rc = finish_salt(l, err);
	return rc ? rc : 1;
}

/* ---- the set ---- */

static struct tenant *by_name(struct tenants *t, const char *name)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (!strcmp(t->all[i]->name, name))
			return t->all[i];
	return NULL;
}

static struct tenant *add(struct tenants *t, const char *name)
{
	struct tenant *n = t->n < MAX_TENANTS ? calloc(1, sizeof(*n)) : NULL;

	if (!n)
		return NULL;
	n->set = t;
	n->number = t->n;
	memcpy(n->name, name, strlen(name) + 1);
	t->all[t->n++] = n;
	return n;
}

static struct kv_hash digest(const char *token)
{
	return kv_digest(token, strlen(token));
}

struct list {
	struct line *lines;
	struct kv_hash *digests;
	uint32_t n;
};

static void free_list(struct list *l)
{
	free(l->lines);
	free(l->digests);
}

static int grow(struct list *l)
{
	void *lines = realloc(l->lines, (l->n + 1) * sizeof(*l->lines));
	void *digests;

	if (!lines)
		return -ENOMEM;
	l->lines = lines;
	digests = realloc(l->digests, (l->n + 1) * sizeof(*l->digests));
	if (!digests)
		return -ENOMEM;
	l->digests = digests;
	return 0;
}

/* All lines or an error. They point into text. */
static int parse_file(struct list *l, const char *path, char *text, struct lslm_error *err)
{
	char *at = text, *line;
	int rc = 0;

	for (unsigned int number = 1; !rc && (line = strsep(&at, "\n")); number++) {
		struct line parsed;

		rc = parse_line(&parsed, line, err);
		if (rc < 0)
			return error_prefix(err, rc, "%s: line %u", path, number);
		if (!rc)
			continue;
		rc = l->n == MAX_TOKENS ? -E2BIG : grow(l);
		if (rc)
			return error_sys(err, rc, "%s: line %u", path, number);
		l->digests[l->n] = digest(parsed.token);
		l->lines[l->n++] = parsed;
	}
	return l->n ? 0 : error_set(err, -EINVAL, "%s: holds no token", path);
}

static int replace(char **at, const char *with)
{
	char *copy = with ? strdup(with) : NULL;

	if (with && !copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

/* Under the lock. What a line says of a tenant counts where it is the tenant's first one. */
static int install(struct tenants *t, const struct list *l, struct lslm_error *err)
{
	struct token *tokens = calloc(l->n, sizeof(*tokens));

	if (!tokens)
		return error_sys(err, -ENOMEM, "tenants");
	for (uint32_t i = 0; i < l->n; i++) {
		struct tenant *n = by_name(t, l->lines[i].name);

		if (!n)
			n = add(t, l->lines[i].name);
		if (!n) {
			free(tokens);
			return error_set(err, -E2BIG, "more than %d tenants", MAX_TENANTS);
		}
		tokens[i] = (struct token){ l->digests[i], n };
	}
	for (uint32_t i = l->n; i-- > 0;) {
		struct tenant *n = tokens[i].tenant;

		/* From the last line to the first, which so has the last word. */
		n->admin = l->lines[i].admin;
		n->concurrent = l->lines[i].concurrent;
		if (n->per_minute != l->lines[i].per_minute)
			n->level = (double)l->lines[i].per_minute;
		n->per_minute = l->lines[i].per_minute;
		n->store = l->lines[i].store;
		if (replace(&n->cloud_token, l->lines[i].cloud_token) ||
		    replace(&n->peer_token, l->lines[i].peer_token)) {
			free(tokens);
			return error_sys(err, -ENOMEM, "tenants");
		}
	}
	free(t->tokens);
	t->tokens = tokens;
	t->n_tokens = l->n;
	return 0;
}

int tenants_reload(struct tenants *t, struct lslm_error *err)
{
	struct list l = { 0 };
	size_t size;
	char *text;
	int rc;

	if (!t->path)
		return 0;
	rc = file_read(t->path, MAX_FILE, &text, &size, err);
	if (rc)
		return rc;
	if (strlen(text) != size)
		rc = error_set(err, -EINVAL, "%s: holds a NUL byte", t->path);
	if (!rc)
		rc = parse_file(&l, t->path, text, err);
	if (!rc) {
		pthread_mutex_lock(&t->lock);
		rc = install(t, &l, err);
		pthread_mutex_unlock(&t->lock);
	}
	free_list(&l);
	explicit_bzero(text, size);
	free(text);
	return rc;
}

int tenants_open(struct tenants **out, const char *path, struct lslm_error *err)
{
	struct tenants *t = calloc(1, sizeof(*t));
	struct tenant *local;
	int rc = 0;

	if (!t)
		return error_sys(err, -ENOMEM, "tenants");
	pthread_mutex_init(&t->lock, NULL);
	if (path) {
		t->path = strdup(path);
		rc = t->path ? tenants_reload(t, err) : error_sys(err, -ENOMEM, "tenants");
	} else {
		local = add(t, "local");
		if (local)
			local->admin = true;
		else
			rc = error_sys(err, -ENOMEM, "tenants");
	}
	if (rc) {
		tenants_close(t);
		return rc;
	}
	*out = t;
	return 0;
}

void tenants_close(struct tenants *t)
{
	if (!t)
		return;
	for (uint32_t i = 0; i < t->n; i++) {
		free(t->all[i]->cloud_token);
		free(t->all[i]->peer_token);
		free(t->all[i]);
	}
	pthread_mutex_destroy(&t->lock);
	free(t->tokens);
	free(t->path);
	free(t);
}

bool tenants_are_open(const struct tenants *t)
{
	return !t->path;
}

/* All tokens are compared, each in constant time. */
struct tenant *tenants_find(struct tenants *t, const char *authorization)
{
	static const char scheme[] = "Bearer ";
	struct tenant *found = NULL;
	struct kv_hash is;

	if (!t->path)
		return t->all[0];
	if (!authorization || strncasecmp(authorization, scheme, strlen(scheme)))
		return NULL;
	is = digest(authorization + strlen(scheme));
	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < t->n_tokens; i++)
		if (kv_hash_equal(&is, &t->tokens[i].digest))
			found = t->tokens[i].tenant;
	pthread_mutex_unlock(&t->lock);
	return found;
}

const char *tenant_name(const struct tenant *t)
{
	return t->name;
}

uint32_t tenant_number(const struct tenant *t)
{
	return t->number;
}

bool tenant_is_admin(const struct tenant *t)
{
	bool is;

	pthread_mutex_lock(&t->set->lock);
	is = t->admin;
	pthread_mutex_unlock(&t->set->lock);
	return is;
}

void tenant_store(const struct tenant *t, struct tenant_store *out)
{
	pthread_mutex_lock(&t->set->lock);
	*out = t->store;
	pthread_mutex_unlock(&t->set->lock);
}

static bool has_salt(const struct tenant *t)
{
	return !kv_hash_is_zero(&t->store.salt);
}

bool tenants_have_salts(struct tenants *t)
{
	bool some = false;

	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < t->n; i++)
		some |= has_salt(t->all[i]);
	pthread_mutex_unlock(&t->lock);
	return some;
}

int tenants_each_salt(struct tenants *t,
		      int (*f)(void *arg, const struct kv_hash *salt, const char *cloud_token,
			       const char *peer_token, struct lslm_error *err),
		      void *arg, struct lslm_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < t->n && !rc; i++) {
		const struct tenant *n = t->all[i];

		if (has_salt(n))
			rc = f(arg, &n->store.salt, n->cloud_token, n->peer_token, err);
	}
	pthread_mutex_unlock(&t->lock);
	return rc;
}

/* ---- quotas ---- */

static void refill(struct tenant *t, double now)
{
	if (now > t->at)
		t->level += (now - t->at) * (double)t->per_minute / 60;
	if (t->level > (double)t->per_minute)
		t->level = (double)t->per_minute;
	t->at = now;
}

static enum tenant_quota look(struct tenant *t, uint32_t n, double now, unsigned int *wait_s)
{
	if (t->concurrent &&
	    n > t->concurrent - (t->running < t->concurrent ? t->running : t->concurrent)) {
		*wait_s = 1;
		return TENANT_CONCURRENT;
	}
	if (!t->per_minute)
		return TENANT_FINE;
	refill(t, now);
	if (t->level > 0)
		return TENANT_FINE;
	*wait_s = 1 + (unsigned int)ceil(-t->level * 60 / (double)t->per_minute);
	return TENANT_TOKENS;
}

enum tenant_quota tenant_take(struct tenant *t, uint32_t n, double now, unsigned int *wait_s)
{
	enum tenant_quota q;

	pthread_mutex_lock(&t->set->lock);
	q = look(t, n, now, wait_s);
	if (q == TENANT_FINE)
		t->running += n;
	else
		t->refused++;
	pthread_mutex_unlock(&t->set->lock);
	return q;
}

void tenant_give(struct tenant *t, uint32_t n, uint64_t tokens, double now)
{
	pthread_mutex_lock(&t->set->lock);
	t->running -= n;
	t->tokens += tokens;
	if (t->per_minute) {
		refill(t, now);
		t->level -= (double)tokens;
	}
	pthread_mutex_unlock(&t->set->lock);
}

void tenants_each(struct tenants *t,
		  void (*f)(void *arg, const char *name, uint32_t running, uint64_t tokens,
			    uint64_t refused),
		  void *arg)
{
	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < t->n; i++)
		f(arg, t->all[i]->name, t->all[i]->running, t->all[i]->tokens, t->all[i]->refused);
	pthread_mutex_unlock(&t->lock);
}
