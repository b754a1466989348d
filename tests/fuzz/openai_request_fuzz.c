// SPDX-License-Identifier: MIT
/*
 * What a client may say: the body of a chat or, with an odd first byte, of a completion; and stop strings on a text that grows. What is
 * accepted is within its limits; what may be shown of a text is never taken back, and holds no stop string.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/openai_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct openai_request *r)
{
	if (r->n < 1 || r->n > OPENAI_MAX_CHOICES || r->stop.n > STOP_MAX ||
	    r->n_messages > OPENAI_MAX_MESSAGES ||
	    (r->chat ? !r->n_messages : !r->n_ids && !r->prompt_len))
		abort();
	for (uint32_t i = 0; i < r->n_messages; i++)
		if (!r->messages[i].len || r->messages[i].text[r->messages[i].len])
			abort();
}

static void check_stops(const struct stop *s, const char *text, size_t len)
{
	size_t can = 0, now;
	bool found = false;

	for (size_t n = 1; n <= len && !found; n++) {
		now = stop_scan(s, text, n, n - 1, &found);
		if (now < can || now > n)
			abort();
		can = now;
	}
	for (unsigned int i = 0; i < s->n; i++)
		if (memmem(text, can, s->strings[i].text, s->strings[i].len))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct openai_request r;
	struct openai_param param;
	struct lslm_error err;
	char *copy;

	if (!size)
		return 0;
	/* Its own allocation, so that a read past the end is seen. */
	copy = malloc(size);
	memcpy(copy, data + 1, size - 1);
	if (!openai_request_parse(&r, data[0] % 2 == 0, copy, size - 1, &param, &err)) {
		check(&r);
		check_stops(&r.stop, copy, size - 1 < 512 ? size - 1 : 512);
	}
	openai_request_free(&r);
	free(copy);
	return 0;
}
