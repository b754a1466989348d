// SPDX-License-Identifier: MIT
/* Tokenizers of files that lie. */
#include "unit/vocab_rig.h"

static const struct token two[] = { { "a", NORMAL, 0 }, { "b", NORMAL, 0 } };

static void lie_no_model(void)
{
	tiny_gguf_begin(&file);
	put_tokens(two, 2);
}

static void lie_model(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "bert");
}

static void lie_no_pre(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "gpt2");
	put_tokens(two, 2);
}

static void lie_pre(void)
{
	begin_bpe("tekken", two, 2, NULL, 0);
}

static void lie_pre_default(void)
{
	begin_bpe("default", two, 2, NULL, 0);
}

static void lie_no_tokens(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "llama");
}

static void lie_empty_tokens(void)
{
	begin_spm(two, 0);
}

static void lie_tokens_type(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "llama");
	tiny_gguf_key_array(&file, KEY("tokens"), 4, 1);
	tiny_gguf_u32(&file, 7);
}

static void lie_same_token(void)
{
	static const struct token tokens[] = { { "a", NORMAL, 0 },
					       { "b", NORMAL, 0 },
					       { "a", NORMAL, 0 } };

	begin_spm(tokens, 3);
}

static void lie_same_as_empty(void)
{
	static const struct token tokens[] = { { "[EMPTY_1]", NORMAL, 0 }, { "", NORMAL, 0 } };

	begin_spm(tokens, 2);
}

static void lie_types_short(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "llama");
	tiny_gguf_key_strs(&file, KEY("tokens"), (const char *const[]){ "a", "b" }, 2);
	tiny_gguf_key_array(&file, KEY("token_type"), 5, 1);
	tiny_gguf_u32(&file, 1);
	put_scores(two, 2);
}

static void lie_types_type(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "llama");
	tiny_gguf_key_strs(&file, KEY("tokens"), (const char *const[]){ "a" }, 1);
	tiny_gguf_key_strs(&file, KEY("token_type"), (const char *const[]){ "a" }, 1);
}

static void lie_no_scores(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "llama");
	put_tokens(two, 2);
}

static void lie_score_nan(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "llama");
	put_tokens(two, 2);
	tiny_gguf_key_array(&file, KEY("scores"), 6, 2);
	tiny_gguf_u32(&file, 0);
	tiny_gguf_u32(&file, 0x7fc00000);
}

static void lie_byte_token(void)
{
	static const struct token tokens[] = { { "a", NORMAL, 0 }, { "<0xGG>", BYTE, 0 } };

	begin_spm(tokens, 2);
}

static void lie_bos(void)
{
	begin_spm(two, 2);
	tiny_gguf_key_u32(&file, KEY("bos_token_id"), 2);
}

static void lie_bos_huge(void)
{
	begin_spm(two, 2);
	tiny_gguf_key_u32(&file, KEY("bos_token_id"), UINT32_MAX);
}

static void lie_eos_type(void)
{
	begin_spm(two, 2);
	tiny_gguf_key_str(&file, KEY("eos_token_id"), "0");
}

static void lie_eot(void)
{
	begin_spm(two, 2);
	tiny_gguf_key_u32(&file, KEY("eot_token_id"), 9);
}

static void lie_flag(void)
{
	begin_spm(two, 2);
	tiny_gguf_key_u32(&file, KEY("add_bos_token"), 1);
}

static void lie_no_bos(void)
{
	begin_bpe("llama-bpe", two, 2, NULL, 0);
}

static void lie_no_merges(void)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "gpt2");
	tiny_gguf_key_str(&file, KEY("pre"), "gpt-2");
	put_tokens(two, 2);
}

static void lie_merges_type(void)
{
	lie_no_merges();
	tiny_gguf_key_array(&file, KEY("merges"), 4, 1);
	tiny_gguf_u32(&file, 7);
}

static void lie_merge_no_space(void)
{
	begin_bpe("gpt-2", two, 2, (const char *const[]){ "a b", "ab" }, 2);
}

static void lie_merge_only_space(void)
{
	begin_bpe("gpt-2", two, 2, (const char *const[]){ " " }, 1);
}

static void lie_merge_half(void)
{
	begin_bpe("gpt-2", two, 2, (const char *const[]){ "a " }, 1);
}

static void lie_merge_empty(void)
{
	begin_bpe("gpt-2", two, 2, (const char *const[]){ "" }, 1);
}

static void tokenizer_open__refuses_in_one_line(void **state)
{
	static const struct {
		void (*make)(void);
		int code;
		const char *line;
	} lies[] = {
		{ lie_no_model, -EINVAL, "no tokenizer" },
		{ lie_model, -ENOTSUP, "tokenizer.ggml.model bert is not supported" },
		{ lie_no_pre, -ENOTSUP, "tokenizer.ggml.pre is missing" },
		{ lie_pre, -ENOTSUP, "pre-tokenizer tekken is not supported" },
		{ lie_pre_default, -ENOTSUP, "pre-tokenizer default is not supported" },
		{ lie_no_tokens, -EINVAL, "tokens is missing or empty" },
		{ lie_empty_tokens, -EINVAL, "tokens is missing or empty" },
		{ lie_tokens_type, -EINVAL, "tokens is not an array of strings" },
		{ lie_same_token, -EINVAL, "tokens 0 and 2 have the same text" },
		{ lie_same_as_empty, -EINVAL, "tokens 0 and 1 have the same text" },
		{ lie_types_short, -EINVAL, "token_type has 1 entries for 2 tokens" },
		{ lie_types_type, -EINVAL, "token_type is not an array of integers" },
		{ lie_no_scores, -EINVAL, "scores has 0 entries for 2 tokens" },
		{ lie_score_nan, -EINVAL, "scores: entry 1 is not a number" },
		{ lie_byte_token, -EINVAL, "byte token 1" },
		{ lie_bos, -EINVAL, "bos_token_id is 2, but there are only 2 tokens" },
		{ lie_bos_huge, -EINVAL, "bos_token_id is 4294967295" },
		{ lie_eos_type, -EINVAL, "eos_token_id is not a token id" },
		{ lie_eot, -EINVAL, "eot_token_id is 9" },
		{ lie_flag, -EINVAL, "add_bos_token is not a bool" },
		{ lie_no_bos, -EINVAL, "there is no BOS token" },
		{ lie_no_merges, -EINVAL, "merges is missing" },
		{ lie_merges_type, -EINVAL, "merges is not an array of strings" },
		{ lie_merge_no_space, -EINVAL, "merges: entry 1 is not two parts" },
		{ lie_merge_only_space, -EINVAL, "merges: entry 0 is not two parts" },
		{ lie_merge_half, -EINVAL, "merges: entry 0 is not two parts" },
		{ lie_merge_empty, -EINVAL, "merges: entry 0 is not two parts" },
	};

	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		struct tokenizer *t = NULL;

		lies[i].make();
		err = (struct lslm_error){ 0 };
		if (try_open(&t) != lies[i].code || !strstr(err.text, lies[i].line))
			fail_msg("case %zu (%s): %d, %s", i, lies[i].line, err.code, err.text);
		assert_null(t);
		assert_null(strchr(err.text, '\n'));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tokenizer_open__refuses_in_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
