// SPDX-License-Identifier: MIT
#include "model/chat.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

/* What stands around the two messages; `first` replaces user_open where there is no system one. */
static const struct family {
	const char *name;
	const char *system_open, *system_close;
	const char *user_open, *user_close;
	const char *first;
	const char *answer_open, *answer_close; /* around an answer that is history */
	bool trims; /* white space around messages is dropped */
	bool trims_answer;
} families[CHAT_N_FAMILIES] = {
	[CHAT_NONE] = {
		.name = "none",
		.system_open = "",
		.system_close = "",
		.user_open = "",
		.user_close = "",
		.first = "",
		.answer_open = "",
		.answer_close = "",
	},
	[CHAT_CHATML] = {
		.name = "chatml",
		.system_open = "<|im_start|>system\n",
		.system_close = "<|im_end|>\n",
		.user_open = "<|im_start|>user\n",
		.user_close = "<|im_end|>\n<|im_start|>assistant\n",
		.first = "<|im_start|>user\n",
		.answer_open = "",
		.answer_close = "<|im_end|>\n",
	},
	[CHAT_LLAMA2] = {
		.name = "llama-2",
		.system_open = "[INST] <<SYS>>\n",
		.system_close = "\n<</SYS>>\n\n",
		.user_open = "",
		.user_close = " [/INST]",
		.first = "[INST] ",
		.answer_open = "",
		.answer_close = "</s>",
	},
	[CHAT_LLAMA2_STRIP] = {
		.name = "llama-2 without margins",
		.system_open = "[INST] <<SYS>>\n",
		.system_close = "\n<</SYS>>\n\n",
		.user_open = "",
		.user_close = " [/INST]",
		.first = "[INST] ",
		.answer_open = "",
		.answer_close = "</s>",
		.trims = true,
		.trims_answer = true,
	},
	[CHAT_LLAMA2_PLAIN] = {
		.name = "llama-2 without system",
		.system_open = "[INST] ",
		.system_close = "\n",
		.user_open = "",
		.user_close = " [/INST]",
		.first = "[INST] ",
		.answer_open = "",
		.answer_close = "</s>",
	},
	[CHAT_LLAMA3] = {
		.name = "llama-3",
		.system_open = "<|start_header_id|>system<|end_header_id|>\n\n",
		.system_close = "<|eot_id|>",
		.user_open = "<|start_header_id|>user<|end_header_id|>\n\n",
		.user_close = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
		.first = "<|start_header_id|>user<|end_header_id|>\n\n",
		.answer_open = "",
		.answer_close = "<|eot_id|>",
		.trims = true,
		.trims_answer = true,
	},
	[CHAT_ZEPHYR] = {
		.name = "zephyr",
		.system_open = "<|system|>\n",
		.system_close = "</s>\n",
		.user_open = "<|user|>\n",
		.user_close = "</s>\n<|assistant|>\n",
		.first = "<|user|>\n",
		.answer_open = "",
		.answer_close = "</s>\n",
	},
	[CHAT_ZEPHYR_ENDOFTEXT] = {
		.name = "zephyr with <|endoftext|>",
		.system_open = "<|system|>\n",
		.system_close = "<|endoftext|>\n",
		.user_open = "<|user|>\n",
		.user_close = "<|endoftext|>\n<|assistant|>\n",
		.first = "<|user|>\n",
		.answer_open = "",
		.answer_close = "<|endoftext|>\n",
	},
	[CHAT_MISTRAL_V1] = {
		.name = "mistral v1",
		.system_open = " [INST] ",
		.system_close = "\n\n",
		.user_open = "",
		.user_close = " [/INST]",
		.first = " [INST] ",
		.answer_open = " ",
		.answer_close = "</s>",
	},
	[CHAT_MISTRAL_V3] = {
		.name = "mistral v3",
		.system_open = "[INST] ",
		.system_close = "\n\n",
		.user_open = "",
		.user_close = "[/INST]",
		.first = "[INST] ",
		.answer_open = " ",
		.answer_close = "</s>",
		.trims_answer = true,
	},
	[CHAT_MISTRAL_TEKKEN] = {
		.name = "mistral v3 tekken",
		.system_open = "[INST]",
		.system_close = "\n\n",
		.user_open = "",
		.user_close = "[/INST]",
		.first = "[INST]",
		.answer_open = "",
		.answer_close = "</s>",
	},
	[CHAT_MISTRAL_V7] = {
		.name = "mistral v7",
		.system_open = "[SYSTEM_PROMPT] ",
		.system_close = "[/SYSTEM_PROMPT]",
		.user_open = "[INST] ",
		.user_close = "[/INST]",
		.first = "[INST] ",
		.answer_open = " ",
		.answer_close = "</s>",
	},
};

static bool has(const struct gguf_str *text, const char *mark)
{
	return text->len && memmem(text->ptr, text->len, mark, strlen(mark)) != NULL;
}

static enum chat_family detect_brackets(const struct gguf_str *t)
{
	if (has(t, "[SYSTEM_PROMPT]"))
		return CHAT_MISTRAL_V7;
	if (has(t, "' [INST] ' + system_message") || has(t, "[AVAILABLE_TOOLS]")) {
		if (has(t, " [INST]"))
			return CHAT_MISTRAL_V1;
		return has(t, "\"[INST]\"") ? CHAT_MISTRAL_TEKKEN : CHAT_MISTRAL_V3;
	}
	if (has(t, "content.strip()"))
		return CHAT_LLAMA2_STRIP;
	return has(t, "<<SYS>>") ? CHAT_LLAMA2 : CHAT_LLAMA2_PLAIN;
}

/* What the template puts behind a user's text: all from the mark of his turn to that of another. */
static struct gguf_str user_turn(const struct gguf_str *t)
{
	static const char *const marks[] = { "<|assistant|>", "<|system|>", "<|user|>" };
	struct gguf_str turn = { .len = 0 };
	const char *start = memmem(t->ptr, t->len, "<|user|>", 8), *end;

	if (!start)
		return turn;
	turn.ptr = start + 8;
	turn.len = (size_t)(t->ptr + t->len - turn.ptr);
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		end = memmem(turn.ptr, turn.len, marks[i], strlen(marks[i]));
		if (end)
			turn.len = (size_t)(end - turn.ptr);
	}
	return turn;
}

/*
 * Zephyr ends a user's turn with a token; Phi-3, Falcon3 and GLM write <|user|> too, but end it in
 * ways of their own. Mostly the template says eos_token, and only the vocabulary says which that
 * is. (llama.cpp takes such a template for GLM's, and leaves the token out.)
 */
static enum chat_family detect_zephyr(const struct gguf *g, const struct gguf_str *t)
{
	static const char end[] = "<|endoftext|>";
	const struct gguf_str turn = user_turn(t);
	struct gguf_str eos;
	uint32_t id;

	if (has(t, "<|end|>"))
		return CHAT_NONE;
	if (has(&turn, "</s>"))
		return CHAT_ZEPHYR;
	if (has(&turn, end))
		return CHAT_ZEPHYR_ENDOFTEXT;
	if (!has(&turn, "eos_token") || gguf_get_u32(g, "tokenizer.ggml.eos_token_id", &id) ||
	    gguf_arr_str(g, "tokenizer.ggml.tokens", id, &eos))
		return CHAT_NONE;
	if (eos.len == 4 && !memcmp(eos.ptr, "</s>", 4))
		return CHAT_ZEPHYR;
	if (eos.len == strlen(end) && !memcmp(eos.ptr, end, eos.len))
		return CHAT_ZEPHYR_ENDOFTEXT;
	return CHAT_NONE;
}

enum chat_family chat_detect(const struct gguf *g)
{
	struct gguf_str t;

	if (gguf_get_str(g, "tokenizer.chat_template", &t))
		return CHAT_NONE;
	if (has(&t, "<|im_start|>"))
		return has(&t, "<|im_sep|>") ? CHAT_NONE : CHAT_CHATML; /* Phi-4 */
	if (has(&t, "[INST]"))
		return detect_brackets(&t);
	if (has(&t, "<|user|>"))
		return detect_zephyr(g, &t);
	if (has(&t, "GPT4 Correct "))
		return CHAT_NONE; /* OpenChat, in Llama-3's frame */
	if (has(&t, "<|start_header_id|>") && has(&t, "<|end_header_id|>"))
		return CHAT_LLAMA3;
	return CHAT_NONE;
}

const char *chat_name(enum chat_family family)
{
	return families[family].name;
}

static int render(bool trims, const char *open, const char *text, size_t len, const char *close,
		  struct chat_part parts[CHAT_MAX_PARTS])
{
	int n = 0;

	while (trims && len && isspace((unsigned char)text[0])) {
		text++;
		len--;
	}
	while (trims && len && isspace((unsigned char)text[len - 1]))
		len--;
	if (*open)
		parts[n++] = (struct chat_part){ open, strlen(open), 1 };
	parts[n++] = (struct chat_part){ text, len, 0 };
	if (*close)
		parts[n++] = (struct chat_part){ close, strlen(close), 1 };
	return n;
}

int chat_render_system(enum chat_family family, const char *text, size_t len,
		       struct chat_part parts[CHAT_MAX_PARTS])
{
	const struct family *f = &families[family];

	return render(f->trims, f->system_open, text, len, f->system_close, parts);
}

int chat_render_user(enum chat_family family, const char *text, size_t len, int first,
		     struct chat_part parts[CHAT_MAX_PARTS])
{
	const struct family *f = &families[family];

	return render(f->trims, first ? f->first : f->user_open, text, len, f->user_close, parts);
}

int chat_render_assistant(enum chat_family family, const char *text, size_t len,
			  struct chat_part parts[CHAT_MAX_PARTS])
{
	const struct family *f = &families[family];

	return render(f->trims_answer, f->answer_open, text, len, f->answer_close, parts);
}
