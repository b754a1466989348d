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

/* What http_set_token() (net/http_client.h) would refuse is found when it is read, not when it is shown. */
static bool is_printable(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	return true;
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
	/* A zero byte ends the text, but not what is there. */
	if (!is_printable(data + start, end - start) || (!data[end] && end < size)) {
		token_free(data);
		return error_set(
			err, -EINVAL,
			"%s: the token holds a control character, or another that is not of printable ASCII",
			path);
	}
	*token = strndup(data + start, end - start);
	token_free(data);
	return *token ? 0 : error_set(err, -ENOMEM, "out of memory");
}
