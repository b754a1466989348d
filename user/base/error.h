/* SPDX-License-Identifier: MIT */
/*
 * Errors: one negative errno and one line for a person.
 *
 * Every call that can fail for a reason a user can act on takes a
 * `struct lslm_error *` as its last argument and returns the negative errno that
 * it also stores in .code. The line says what went wrong, with which input, and
 * what to do about it; it has no newline and no prefix, so that a tool prints
 * "lslm: " and the line, and a server can put it into a response.
 *
 * The structure belongs to the caller, normally on its stack. A NULL pointer is
 * allowed everywhere and means that only the code is wanted. Nothing is
 * allocated, so reporting ENOMEM cannot fail. On success the structure is left
 * as it was.
 */
#ifndef LSLM_BASE_ERROR_H
#define LSLM_BASE_ERROR_H

#include <errno.h>
#include <stdarg.h>

#include "lslm/lslm.h"

/*
 * Store code (a negative errno) and the formatted line; returns code, so that
 * `return error_set(err, -EINVAL, ...)` is the usual form.
 */
int error_set(struct lslm_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * The same for a failed system call: appends ": " and the text of -code, so
 * `error_sys(err, -errno, "%s: cannot open", path)` reads
 * "model.gguf: cannot open: No such file or directory".
 */
int error_sys(struct lslm_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Put "prefix: " in front of the line already stored, for a caller that knows
 * the input's name where the callee does not. Returns err->code (or code when
 * err is NULL).
 */
int error_prefix(struct lslm_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Hand "prefix: " (NULL: no prefix) and the formatted line to log(), as options have one for the lines
 * of a log; NULL: nobody listens.
 */
void error_tell(void (*log)(void *arg, const char *line), void *arg, const char *prefix,
		const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));

/*
 * A line must stay one line whatever a hostile file or server put into a name: control
 * characters become '?', so neither a log nor a terminal can be steered. U+0080 to U+009F
 * (C2 80 to C2 9F) are among them: U+009B starts an escape sequence. The calls above do it.
 */
void error_flatten(char *s);

#endif
