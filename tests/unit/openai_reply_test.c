// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <strings.h>

#include "serve/openai_reply.h"
#include "serve/page.h"

static const struct openai_head head = {
	.chat = true, .id = "chatcmpl-1", .model = "m", .created = 7
};

static char *dump(json_t *o)
{
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	assert_non_null(text);
	return text;
}

static void openai_body__chat(void **state)
{
	const struct openai_usage usage = { 10, 8, 3 };
	json_t *choices = json_array();
	char *text;

	json_array_append_new(choices, openai_choice(true, 0, "a\xff\"", 3, NULL, "stop"));
	text = dump(openai_body(&head, false, choices, &usage));
	assert_string_equal(
		text,
		"{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\","
		"\"system_fingerprint\":null,\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
		"\"content\":\"a\xef\xbf\xbd\\\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
		"\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3,\"total_tokens\":13,"
		"\"prompt_tokens_details\":{\"cached_tokens\":8}}}");
	free(text);
}

static void openai_event__is_one_line(void **state)
{
	json_t *choices = json_array();
	size_t len;
	char *text;

	json_array_append_new(choices, openai_delta(true, 1, true, "a\nb", 3, NULL, NULL));
	text = openai_event(openai_body(&head, true, choices, NULL), &len);
	assert_non_null(text);
	assert_memory_equal(text, "data: {", 7);
	assert_memory_equal(text + len - 2, "\n\n", 2);
	assert_ptr_equal(memchr(text, '\n', len), text + len - 2);
	assert_non_null(strstr(text, "\"delta\":{\"role\":\"assistant\",\"content\":\"a\\nb\"}"));
	free(text);
	assert_null(openai_event(NULL, &len));
}

static void page_find__the_files(void **state)
{
	const struct page_file *f = page_find("/");

	assert_non_null(f);
	assert_string_equal(f->path, "/index.html");
	assert_string_equal(f->type, "text/html; charset=utf-8");
	assert_int_equal(strncasecmp(f->data, "<!doctype html>", 15), 0);
	assert_memory_equal((const char *)f->data + f->size - 8, "</html>\n", 8);
	f = page_find("/style.css");
	assert_non_null(f);
	assert_string_equal(f->type, "text/css; charset=utf-8");
	assert_null(page_find("/nothing"));
	assert_null(page_find(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openai_body__chat),
		cmocka_unit_test(openai_event__is_one_line),
		cmocka_unit_test(page_find__the_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
