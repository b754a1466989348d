// SPDX-License-Identifier: MIT
#include "base/error.h"

#include <stdio.h>
#include <string.h>

void error_flatten(char *s)
{
	for (; *s; s++) {
		const unsigned char c = (unsigned char)s[0], next = (unsigned char)s[1];

		if (c < 0x20 || c == 0x7f)
			s[0] = '?';
		else if (c == 0xc2 && next >= 0x80 && next < 0xa0)
			s[0] = s[1] = '?';
	}
}

int error_set(struct lslm_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	error_flatten(err->text);
	err->code = code;
	return code;
}

int error_sys(struct lslm_error *err, int code, const char *fmt, ...)
{
	char reason[96];
	va_list ap;
	size_t n;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	snprintf(err->text + n, sizeof(err->text) - n, ": %s",
		 strerror_r(-code, reason, sizeof(reason)));
	error_flatten(err->text);
	err->code = code;
	return code;
}

int error_prefix(struct lslm_error *err, int code, const char *fmt, ...)
{
	char line[sizeof(err->text)];
	va_list ap;
	size_t n;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	n = strlen(line);
	snprintf(line + n, sizeof(line) - n, ": %s", err->text);
	memcpy(err->text, line, sizeof(line));
	err->text[sizeof(err->text) - 1] = 0;
	error_flatten(err->text);
	err->code = code;
	return code;
}

void error_tell(void (*log)(void *arg, const char *line), void *arg, const char *prefix,
		const char *fmt, va_list ap)
{
	struct lslm_error line;
	size_t n;

	if (!log)
		return;
	n = prefix ? (size_t)snprintf(line.text, sizeof(line.text), "%.256s: ", prefix) : 0;
	vsnprintf(line.text + n, sizeof(line.text) - n, fmt, ap);
	error_flatten(line.text);
	log(arg, line.text);
}
