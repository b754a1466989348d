// SPDX-License-Identifier: MIT
#include "engine/prompt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kv/geometry.h"

static int encode(const struct model *m, const struct chat_part *parts, size_t n_parts,
		  int32_t **ids, size_t *len, struct lslm_error *err)
{
	struct tokenizer_part *text = malloc(n_parts * sizeof(*text));
	int rc;

	if (!text)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n_parts; i++)
		text[i] = (struct tokenizer_part){ parts[i].text, parts[i].len,
						   parts[i].is_template };
	rc = tokenizer_encode_parts(m->tokenizer, text, n_parts, 0, ids, len, err);
	free(text);
	return rc;
}

static int tokenise(const struct model *m, const struct chat_part *parts, size_t n_parts,
		    bool first, int32_t **ids, uint32_t *n, struct lslm_error *err)
{
	const int32_t bos = tokenizer_bos(m->tokenizer);
	const bool add_bos = first && bos >= 0 && tokenizer_adds_bos(m->tokenizer);
	int32_t *all;
	size_t len;
	int rc = encode(m, parts, n_parts, ids, &len, err);

	if (rc)
		return rc;
	if (len == 0 || len >= KV_MAX_TOKENS) {
		free(*ids);
		return error_set(err, len ? -E2BIG : -EINVAL,
				 len ? "the text has too many tokens" : "the text is empty");
	}
	/* Done here and not by the tokenizer, which would add an EOS as well where files ask for
	 * one: nothing could follow it.
	 */
	if (add_bos && (*ids)[0] != bos) {
		all = realloc(*ids, (len + 1) * sizeof(*all));
		if (!all) {
			free(*ids);
			return error_set(err, -ENOMEM, "out of memory");
		}
		memmove(all + 1, all, len * sizeof(*all));
		all[0] = bos;
		*ids = all;
		len++;
	}
	*n = (uint32_t)len;
	return 0;
}

static int raw_part(const char *text, size_t len, struct chat_part *part)
{
	*part = (struct chat_part){ .text = text, .len = len };
	return 1;
}

int prompt_context(const struct model *m, const char *text, size_t len, bool raw, int32_t **ids,
		   uint32_t *n, struct lslm_error *err)
{
	struct chat_part parts[CHAT_MAX_PARTS];
	int k;

	if (raw || m->chat == CHAT_NONE)
		k = raw_part(text, len, parts);
	else
		k = chat_render_system(m->chat, text, len, parts);
	return tokenise(m, parts, (size_t)k, true, ids, n, err);
}

int prompt_user(const struct model *m, const char *text, size_t len, bool raw, bool first,
		int32_t **ids, uint32_t *n, struct lslm_error *err)
{
	struct chat_part parts[CHAT_MAX_PARTS];
	int k;

	if (raw || m->chat == CHAT_NONE)
		k = raw_part(text, len, parts);
	else
		k = chat_render_user(m->chat, text, len, first, parts);
	return tokenise(m, parts, (size_t)k, first, ids, n, err);
}

int prompt_turns(const struct model *m, const struct prompt_message *messages, uint32_t n_messages,
		 bool first, int32_t **ids, uint32_t *n, struct lslm_error *err)
{
	struct chat_part *parts = calloc(n_messages, CHAT_MAX_PARTS * sizeof(*parts));
	size_t k = 0;
	int rc;

	if (!parts)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < n_messages; i++) {
		const struct prompt_message *t = &messages[i];
		struct chat_part *at = parts + k;

		if (m->chat == CHAT_NONE)
			k += (size_t)raw_part(t->text, t->len, at);
		else if (t->role == PROMPT_ASSISTANT)
			k += (size_t)chat_render_assistant(m->chat, t->text, t->len, at);
		else
			k += (size_t)chat_render_user(m->chat, t->text, t->len, first || i, at);
	}
	rc = tokenise(m, parts, k, first, ids, n, err);
	free(parts);
	return rc;
}
