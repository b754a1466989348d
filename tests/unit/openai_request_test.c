// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "serve/openai_request.h"

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

static int parse(struct openai_request *r, bool chat, const char *body, struct openai_param *param,
		 struct lslm_error *err)
{
	return openai_request_parse(r, chat, body, strlen(body), param, err);
}

static void chat__all_fields(void **state)
{
	static const char body[] =
		"{\"model\":\"m\",\"context\":\"handbook\",\"messages\":["
		"{\"role\":\"system\",\"content\":\"S\"},"
		"{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
		"{\"role\":\"user\",\"content\":\"c\",\"name\":\"me\"},"
		"{\"role\":\"assistant\",\"content\":\"d\",\"refusal\":null},"
		"{\"role\":\"user\",\"content\":\"e\"}],"
		"\"n\":3,\"max_completion_tokens\":7,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
		"\"temperature\":0,\"top_p\":0.5,\"top_k\":4,\"min_p\":0.1,\"repeat_penalty\":1.5,\"seed\":-2,"
		"\"logprobs\":true,\"top_logprobs\":5,\"stop\":[\"x\",\"yy\"],\"deadline_s\":9,\"user\":\"u\","
		"\"presence_penalty\":0,\"frequency_penalty\":0.0,\"tools\":[],\"response_format\":{\"type\":\"text\"},"
		"\"logit_bias\":null}";
	struct openai_request r;
	struct openai_param param;
	struct lslm_error err;

	assert_ok(parse(&r, true, body, &param, &err), &err);
	assert_string_equal(r.model, "m");
	assert_string_equal(r.context, "handbook");
	assert_int_equal(r.n_messages, 4);
	assert_int_equal(r.messages[0].role, PROMPT_SYSTEM);
	assert_string_equal(r.messages[1].text, "ab\n\nc");
	assert_int_equal(r.messages[1].len, 5);
	assert_int_equal(r.messages[2].role, PROMPT_ASSISTANT);
	assert_int_equal(r.n, 3);
	assert_int_equal(r.n_predict, 7);
	assert_true(r.stream && r.include_usage && r.logprobs && r.has_seed);
	assert_int_equal(r.top_logprobs, 5);
	assert_int_equal(r.sampling.top_k, 4);
	assert_int_equal(r.sampling.seed, (uint64_t)-2);
	assert_true(r.sampling.temperature == 0 && r.sampling.top_p == 0.5f);
	assert_int_equal(r.stop.n, 2);
	assert_int_equal(r.stop.longest, 2);
	openai_request_free(&r);
}

static void completion__prompts(void **state)
{
	struct openai_request r;
	struct openai_param param;
	struct lslm_error err;

	assert_ok(parse(&r, false, "{\"prompt\":\"a\\u0000b\",\"logprobs\":0}", &param, &err),
		  &err);
	assert_int_equal(r.prompt_len, 3);
	assert_true(r.logprobs);
	assert_true(r.sampling.temperature == 1 && r.sampling.top_p == 1);
	openai_request_free(&r);
	assert_ok(parse(&r, false, "{\"prompt\":[\"ab\"]}", &param, &err), &err);
	assert_string_equal(r.prompt, "ab");
	openai_request_free(&r);
	assert_ok(parse(&r, false, "{\"prompt\":[1,2,3]}", &param, &err), &err);
	assert_int_equal(r.n_ids, 3);
	assert_int_equal(r.ids[2], 3);
	openai_request_free(&r);
}

/* Each is refused, and the field is named. */
static void refused__table(void **state)
{
	static const struct {
		bool chat;
		const char *body, *param;
	} cases[] = {
		{ true, "", "" },
		{ true, "{", "" },
		{ true, "[]", "" },
		{ true, "{\"a\":1,\"a\":2}", "" },
		{ true, "{}", "messages" },
		{ false, "{}", "prompt" },
		{ true, "{\"messages\":[]}", "messages" },
		{ true, "{\"messages\":[1]}", "messages[0]" },
		{ true, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0]" },
		{ true, "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", "messages[0]" },
		{ true, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0]" },
		{ true,
		  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
		  "messages[0]" },
		{ true, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[]}]}",
		  "messages[0]" },
		{ true, "{\"messages\":[{\"role\":\"system\",\"content\":\"x\"}]}", "messages" },
		{ true, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}", "messages" },
		{ true,
		  "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"x\"}]}",
		  "messages" },
		{ true,
		  "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"system\",\"content\":\"x\"}]}",
		  "messages" },
		{ true, "{" USER ",\"prompt\":\"x\"}", "prompt" },
		{ true, "{" USER ",\"nonsense\":1}", "nonsense" },
		{ true, "{" USER ",\"n\":0}", "n" },
		{ true, "{" USER ",\"n\":9}", "n" },
		{ true, "{" USER ",\"n\":1.5}", "n" },
		{ true, "{" USER ",\"max_tokens\":0}", "max_tokens" },
		{ true, "{" USER ",\"max_tokens\":1,\"max_completion_tokens\":1}",
		  "max_completion_tokens" },
		{ true, "{" USER ",\"temperature\":2.1}", "temperature" },
		{ true, "{" USER ",\"temperature\":\"1\"}", "temperature" },
		{ true, "{" USER ",\"top_p\":-1}", "top_p" },
		{ true, "{" USER ",\"stop\":\"\"}", "stop" },
		{ true, "{" USER ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "stop" },
		{ true, "{" USER ",\"stream_options\":{\"include_usage\":true}}",
		  "stream_options" },
		{ true, "{" USER ",\"stream\":true,\"stream_options\":{\"x\":1}}",
		  "stream_options" },
		{ true, "{" USER ",\"top_logprobs\":1}", "top_logprobs" },
		{ true, "{" USER ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs" },
		{ true, "{" USER ",\"presence_penalty\":0.1}", "presence_penalty" },
		{ true, "{" USER ",\"frequency_penalty\":1}", "frequency_penalty" },
		{ true, "{" USER ",\"logit_bias\":{\"1\":2}}", "logit_bias" },
		{ true, "{" USER ",\"tools\":[{}]}", "tools" },
		{ true, "{" USER ",\"response_format\":{\"type\":\"json_object\"}}",
		  "response_format" },
		{ true, "{" USER ",\"model\":\"a\\u0000b\"}", "model" },
		{ false, "{\"prompt\":\"\"}", "prompt" },
		{ false, "{\"prompt\":[\"a\",\"b\"]}", "prompt" },
		{ false, "{\"prompt\":[1,-1]}", "prompt" },
		{ false, "{\"prompt\":\"a\",\"echo\":true}", "echo" },
		{ false, "{\"prompt\":\"a\",\"best_of\":2}", "best_of" },
		{ false, "{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix" },
		{ false, "{\"prompt\":\"a\",\"logprobs\":true}", "logprobs" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct openai_request r;
		struct openai_param param;
		struct lslm_error err = { 0 };
		int rc = parse(&r, cases[i].chat, cases[i].body, &param, &err);

		if (rc != -EINVAL || strcmp(param.name, cases[i].param) || !*err.text)
			fail_msg("%s: %d, param '%s', '%s'", cases[i].body, rc, param.name,
				 err.text);
		openai_request_free(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chat__all_fields),
		cmocka_unit_test(completion__prompts),
		cmocka_unit_test(refused__table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
