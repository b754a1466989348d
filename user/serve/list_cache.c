// SPDX-License-Identifier: MIT
#include "serve/list_cache.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { LINE = KV_HASH_TEXT, MAX_BYTES = 1 << 20 };

static char *path_of(const char *cloud, const char *token)
{
	char hex[KV_HASH_TEXT], *both, *path;
	struct kv_hash name;
	int n = asprintf(&both, "%s\n%s", cloud, token ? token : "");

	if (n < 0)
		return NULL;
	name = kv_digest(both, (size_t)n);
	explicit_bzero(both, (size_t)n);
	free(both);
	kv_hash_format(&name, hex);
	file_cache_path(&path, "lists", hex, NULL);
	return path;
}

static bool is_there(const char *path, const char *text, size_t size)
{
	size_t has;
	char *data;
	bool same;

	if (file_read(path, MAX_BYTES, &data, &has, NULL))
		return false;
	same = has == size && !memcmp(data, text, size);
	free(data);
	return same;
}

void list_cache_put(const char *cloud, const char *token, const struct kv_hash *keys, size_t n)
{
	char *path = path_of(cloud, token), *text = malloc(n * LINE + 1);

	for (size_t i = 0; text && i < n; i++) {
		kv_hash_format(&keys[i], text + i * LINE);
		text[(i + 1) * LINE - 1] = '\n';
	}
	if (path && text && !is_there(path, text, n * LINE))
		file_write(path, text, n * LINE, 0600, FILE_REPLACE, NULL);
	free(text);
	free(path);
}

size_t list_cache_get(const char *cloud, const char *token, struct kv_hash *keys, size_t max)
{
	char *path = path_of(cloud, token), *text, *line, *rest;
	size_t size, n = 0;

	if (!path || file_read(path, MAX_BYTES, &text, &size, NULL)) {
		free(path);
		return 0;
	}
	rest = text;
	while (n < max && (line = strsep(&rest, "\n")))
		n += !kv_hash_parse(&keys[n], line);
	free(text);
	free(path);
	return n;
}
