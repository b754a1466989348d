/* SPDX-License-Identifier: MIT */
/*
 * Chat templates of the common families, recognised from the GGUF.
 *
 * The file's Jinja text is not interpreted. It is matched against the marks of
 * the families (ChatML, Llama-2, Llama-3, Zephyr, Mistral), and a family is a
 * few strings. A model with an unrecognised template, or none, has CHAT_NONE: its
 * prompts are raw text.
 *
 * A context and a question are rendered apart and tokenised apart, here and on
 * every other side, so that the context's token ids do not depend on the question:
 *   prefix  = chat_render_system()   what `publish` turns into KV
 *   suffix  = chat_render_user()     what stays on the gateway
 * Together they are what the template makes of a system and a user message.
 * Families without a system role (Mistral before v7) put its text into the first user turn,
 * so that their prefix is left open and the suffix closes it.
 */
#ifndef LSLM_MODEL_CHAT_H
#define LSLM_MODEL_CHAT_H

#include "model/gguf.h"

/*
 * Families and those of their forms that differ in what they write. The bracket families
 * (Llama-2, Mistral) are told apart as llama.cpp does it, by marks in the template's text.
 */
enum chat_family {
	CHAT_NONE,
	CHAT_CHATML,
	CHAT_LLAMA2, /* <<SYS>> */
	CHAT_LLAMA2_STRIP, /* the same, white space around messages dropped */
	CHAT_LLAMA2_PLAIN, /* no system role: its text goes before the first question */
	CHAT_LLAMA3,
	CHAT_ZEPHYR, /* turns end with </s>: Zephyr, TinyLlama */
	CHAT_ZEPHYR_ENDOFTEXT, /* turns end with <|endoftext|>: StableLM */
	CHAT_MISTRAL_V1, /* " [INST] ... [/INST]" */
	CHAT_MISTRAL_V3, /* "[INST] ...[/INST]" */
	CHAT_MISTRAL_TEKKEN, /* "[INST]...[/INST]" */
	CHAT_MISTRAL_V7, /* [SYSTEM_PROMPT] */
	CHAT_N_FAMILIES,
};

enum chat_family chat_detect(const struct gguf *g);
const char *chat_name(enum chat_family family);

/*
 * A rendered piece is a run of parts, each either template text (special tokens are
 * parsed) or content (they are not, so text cannot forge a turn).
 */
struct chat_part {
	const char *text;
	size_t len;
	int is_template;
};

enum { CHAT_MAX_PARTS = 3 };

/*
 * The system message, and the user's turn up to where the model answers. `first` says that
 * no system message came before. Parts point into static text and into the argument.
 * Returns the number of parts.
 */
int chat_render_system(enum chat_family family, const char *text, size_t len,
		       struct chat_part parts[CHAT_MAX_PARTS]);
int chat_render_user(enum chat_family family, const char *text, size_t len, int first,
		     struct chat_part parts[CHAT_MAX_PARTS]);
/*
 * An answer of the model, between the user's turn that it followed and the next one, which is rendered as a first one. Of the
 * bracket families as llama.cpp writes them.
 */
int chat_render_assistant(enum chat_family family, const char *text, size_t len,
			  struct chat_part parts[CHAT_MAX_PARTS]);

#endif
