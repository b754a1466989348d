// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "model/chat.h"
#include "unit/tiny_gguf.h"

/*
 * Marks out of real templates, and what llama.cpp's llama_chat_apply_template makes of system "S" and
 * user "U" (for Zephyr: what the template itself makes, with its end token).
 */
static const struct {
	enum chat_family family;
	const char *template;
	const char *eos;
	const char *both, *alone;
} cases[] = {
	{ CHAT_CHATML, "{{'<|im_start|>' + message['role']}}", "<|im_end|>",
	  "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n",
	  "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n" },
	{ CHAT_LLAMA2, "'[INST] ' '<<SYS>>\\n'", "</s>", "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]",
	  "[INST] U [/INST]" },
	{ CHAT_LLAMA2_STRIP, "'[INST] ' '<<SYS>>\\n' content.strip()", "</s>",
	  "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]", "[INST] U [/INST]" },
	{ CHAT_LLAMA2_PLAIN, "{{ bos_token + '[INST] ' + content }}", "</s>", "[INST] S\nU [/INST]",
	  "[INST] U [/INST]" },
	{ CHAT_LLAMA3, "'<|start_header_id|>' '<|end_header_id|>'", "<|eot_id|>",
	  "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user"
	  "<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
	  "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant"
	  "<|end_header_id|>\n\n" },
	{ CHAT_ZEPHYR, "'<|user|>\\n' + message['content'] + eos_token", "</s>",
	  "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\n",
	  "<|user|>\nU</s>\n<|assistant|>\n" },
	{ CHAT_ZEPHYR_ENDOFTEXT, "'<|user|>' '<|endoftext|>'", "<|endoftext|>",
	  "<|system|>\nS<|endoftext|>\n<|user|>\nU<|endoftext|>\n<|assistant|>\n",
	  "<|user|>\nU<|endoftext|>\n<|assistant|>\n" },
	{ CHAT_MISTRAL_V1, "' [INST] ' + system_message", "</s>", " [INST] S\n\nU [/INST]",
	  " [INST] U [/INST]" },
	{ CHAT_MISTRAL_V3, "[AVAILABLE_TOOLS] '[INST] '", "</s>", "[INST] S\n\nU[/INST]",
	  "[INST] U[/INST]" },
	{ CHAT_MISTRAL_TEKKEN, "[AVAILABLE_TOOLS] \"[INST]\"", "</s>", "[INST]S\n\nU[/INST]",
	  "[INST]U[/INST]" },
	{ CHAT_MISTRAL_V7, "[SYSTEM_PROMPT] [INST]", "</s>",
	  "[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] U[/INST]", "[INST] U[/INST]" },
	{ CHAT_NONE, "<|im_start|> <|im_sep|>", "<|im_end|>", NULL, NULL },
	{ CHAT_NONE, "<|user|> <|end|>", "<|end|>", NULL, NULL },
	{ CHAT_NONE, "<|user|> {{eos_token}}", "<eos>", NULL, NULL },
	{ CHAT_NONE, "'<|user|>' content '<|assistant|>' content", "</s>", NULL, NULL }, /* GLM */
	{ CHAT_NONE, "'<|user|>' content '\\n<|assistant|>' content + eos_token", "</s>", NULL,
	  NULL },
	{ CHAT_NONE, "<|start_header_id|> GPT4 Correct <|end_header_id|>", "</s>", NULL, NULL },
	{ CHAT_NONE, "", "</s>", NULL, NULL },
	{ CHAT_NONE, "{{ messages }}", "</s>", NULL, NULL },
};

static struct gguf *make(const char *template, const char *eos)
{
	struct tiny_gguf t;
	struct lslm_error err;
	struct gguf *g;

	tiny_gguf_begin(&t);
	tiny_gguf_key_str(&t, "tokenizer.chat_template", template);
	tiny_gguf_key_strs(&t, "tokenizer.ggml.tokens", &eos, 1);
	tiny_gguf_key_u32(&t, "tokenizer.ggml.eos_token_id", 0);
	assert_ok(gguf_open_mem(&g, t.data, t.size, &err), &err);
	return g;
}

static void join(char *out, const struct chat_part *parts, int n)
{
	for (int i = 0; i < n; i++) {
		strncat(out, parts[i].text, parts[i].len);
		/* Only what the caller wrote may be without control tokens. */
		assert_int_equal(parts[i].is_template,
				 !(parts[i].len == 1 && strchr("SU", parts[i].text[0])));
	}
}

static void chat__families(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct gguf *g = make(cases[i].template, cases[i].eos);
		const enum chat_family f = chat_detect(g);
		struct chat_part parts[CHAT_MAX_PARTS];
		char both[512] = "", alone[512] = "";

		if (f != cases[i].family)
			fail_msg("case %zu: %s", i, chat_name(f));
		gguf_close(g);
		if (f == CHAT_NONE)
			continue;
		join(both, parts, chat_render_system(f, "S", 1, parts));
		join(both, parts, chat_render_user(f, "U", 1, 0, parts));
		join(alone, parts, chat_render_user(f, "U", 1, 1, parts));
		assert_string_equal(both, cases[i].both);
		assert_string_equal(alone, cases[i].alone);
	}
}

static void chat_none__is_the_text(void **state)
{
	struct chat_part parts[CHAT_MAX_PARTS];

	assert_int_equal(chat_render_system(CHAT_NONE, "S", 1, parts), 1);
	assert_int_equal(parts[0].is_template, 0);
	assert_int_equal(chat_render_user(CHAT_NONE, " U", 2, 1, parts), 1);
	assert_int_equal(parts[0].len, 2);
}

static void chat__llama3_trims(void **state)
{
	struct chat_part parts[CHAT_MAX_PARTS];

	assert_int_equal(chat_render_user(CHAT_LLAMA3, " \nU ", 4, 0, parts), 3);
	assert_int_equal(parts[1].len, 1);
	assert_int_equal(parts[1].text[0], 'U');
	assert_int_equal(chat_render_user(CHAT_CHATML, " U", 2, 0, parts), 3);
	assert_int_equal(parts[1].len, 2);
}

static void chat__an_answer_in_between(void **state)
{
	static const struct {
		enum chat_family family;
		const char *text;
	} turns[] = {
		{ CHAT_CHATML,
		  "U<|im_end|>\n<|im_start|>assistant\nS<|im_end|>\n<|im_start|>user\nU" },
		{ CHAT_LLAMA2, "U [/INST]S</s>[INST] U" },
		{ CHAT_LLAMA3, "<|start_header_id|>assistant<|end_header_id|>\n\nS<|eot_id|>"
			       "<|start_header_id|>user<|end_header_id|>\n\nU" },
		{ CHAT_ZEPHYR, "U</s>\n<|assistant|>\nS</s>\n<|user|>\nU" },
		{ CHAT_ZEPHYR_ENDOFTEXT, "<|assistant|>\nS<|endoftext|>\n<|user|>\nU" },
		{ CHAT_MISTRAL_V1, "U [/INST] S</s> [INST] U" },
		{ CHAT_MISTRAL_V3, "U[/INST] S</s>[INST] U" },
		{ CHAT_MISTRAL_TEKKEN, "U[/INST]S</s>[INST]U" },
		{ CHAT_MISTRAL_V7, "[INST] U[/INST] S</s>[INST] U" },
	};

	for (size_t i = 0; i < ARRAY_LEN(turns); i++) {
		const enum chat_family f = turns[i].family;
		struct chat_part parts[CHAT_MAX_PARTS];
		char all[512] = "";

		join(all, parts, chat_render_user(f, "U", 1, 1, parts));
		join(all, parts, chat_render_assistant(f, "S", 1, parts));
		join(all, parts, chat_render_user(f, "U", 1, 1, parts));
		if (!strstr(all, turns[i].text))
			fail_msg("%s: %s", chat_name(f), all);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chat__families),
		cmocka_unit_test(chat_none__is_the_text),
		cmocka_unit_test(chat__llama3_trims),
		cmocka_unit_test(chat__an_answer_in_between),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
