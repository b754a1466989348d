// SPDX-License-Identifier: MIT
#include "base/token.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { MAX_TOKEN = 4096 };

void token_free(char *token)
{
	if (token)
		explicit_bzero(token, strlen(token));
	free(token);
}

int token_read(const char *path, bool secret, char **token, struct lslm_error *err)
{
	size_t size, start, end;
	char *data;
	int rc;

	*token = NULL;
	if (!path)
		return 0;
	rc = secret ? file_read_secret(path, "token", MAX_TOKEN, &data, &size, err) :
		      file_read(path, MAX_TOKEN, &data, &size, err);
	if (rc)
		return rc;
	start = strspn(data, " \t");
	end = start + strcspn(data + start, " \t\r\n");
	if (end == start) {
		token_free(data);
		return error_set(err, -EINVAL, "%s: the first line holds no token", path);
	}
	*token = strndup(data + start, end - start);
	token_free(data);
	return *token ? 0 : error_set(err, -ENOMEM, "out of memory");
}
