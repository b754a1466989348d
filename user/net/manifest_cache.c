// SPDX-License-Identifier: MIT
#include "net/manifest_cache.h"

#include <stdlib.h>

#include "base/file.h"
#include "kv/manifest.h"

static int path_of(const struct kv_hash *key, char **path, struct lslm_error *err)
{
	char hex[KV_HASH_TEXT];

	kv_hash_format(key, hex);
	return file_cache_path(path, "manifests", hex, err);
}

int manifest_cache_put(const struct kv_hash *key, const void *data, size_t size,
		       struct lslm_error *err)
{
	char *path;
	int ret = path_of(key, &path, err);

	if (ret)
		return ret;
	ret = file_write(path, data, size, 0600, FILE_REPLACE, err);
	free(path);
	return ret;
}

int manifest_cache_get(const struct kv_hash *key, uint8_t **data, size_t *size)
{
	char *path, *text;
	int rc = path_of(key, &path, NULL);

	if (rc)
		return -ENOENT;
	rc = file_read(path, MANIFEST_MAX_BYTES, &text, size, NULL);
	free(path);
	if (rc)
		return rc;
	*data = (uint8_t *)text;
	return 0;
}
