// SPDX-License-Identifier: MIT
#include "net/manifest_cache.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "kv/manifest.h"

static char *path_of(const struct kv_hash *key)
{
	char hex[KV_HASH_TEXT], *dir, *path = NULL;

	if (file_xdg_path(&dir, FILE_XDG_CACHE, "manifests", NULL))
		return NULL;
	kv_hash_format(key, hex);
	if (file_mkdirs(dir, 0700, NULL) || asprintf(&path, "%s/%s", dir, hex) < 0)
		path = NULL;
	free(dir);
	return path;
}

void manifest_cache_put(const struct kv_hash *key, const void *data, size_t size)
{
	char *path = path_of(key);

	if (path)
		file_write(path, data, size, 0600, FILE_REPLACE, NULL);
	free(path);
}

int manifest_cache_get(const struct kv_hash *key, uint8_t **data, size_t *size)
{
	char *path = path_of(key), *text;
	int rc;

	if (!path)
		return -ENOENT;
	rc = file_read(path, MANIFEST_MAX_BYTES, &text, size, NULL);
	free(path);
	if (rc)
		return rc;
	*data = (uint8_t *)text;
	return 0;
}
