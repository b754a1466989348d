// SPDX-License-Identifier: MIT
/* The tokenizers: vectors made with llama.cpp, small vocabularies built here, hostile ones. */
#include "unit/unit.h"

#include <unistd.h>

#include "model/tokenizer.h"

static struct lslm_error err;

/* --- llama.cpp's own vectors, where they are present --- */

static char *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	char *text;

	if (!f)
		return NULL;
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	*len = (size_t)ftell(f);
	rewind(f);
	text = malloc(*len + 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, *len, f), *len);
	text[*len] = 0;
	fclose(f);
	return text;
}

static struct tokenizer *open_tokenizer(const char *path)
{
	struct tokenizer *t;
	struct gguf *g;

	assert_ok(gguf_open(&g, path, &err), &err);
	assert_ok(tokenizer_open(&t, g, &err), &err);
	gguf_close(g);
	return t;
}

/* One line of ids, each after a space. */
static void check_line(const struct tokenizer *t, const char *text, size_t len, char *line)
{
	char *next = line;
	int32_t *ids;
	size_t n;

	assert_ok(tokenizer_encode(t, text, len, 0, &ids, &n, &err), &err);
	for (size_t i = 0; i < n; i++) {
		long expected = strtol(next, &next, 10);

		if (expected != ids[i])
			fail_msg("\"%.*s\": id %zu is %d, not %ld", (int)len, text, i, ids[i],
				 expected);
	}
	while (*next == ' ')
		next++;
	assert_int_equal(*next, 0);
	free(ids);
}

static void check_vectors(const char *vocab)
{
	static const char mark[] = "\n__ggml_vocab_test__\n";
	struct tokenizer *t;
	char path[256], *text, *ids, *line, *next, *end, *rest;
	size_t len, cases = 0;

	snprintf(path, sizeof(path), "%s.inp", vocab);
	text = read_file(path, &len);
	if (!text)
		skip();
	snprintf(path, sizeof(path), "%s.out", vocab);
	ids = read_file(path, &len);
	assert_non_null(ids);
	t = open_tokenizer(vocab);
	rest = ids;
	for (next = text; next; next = end, cases++) {
		end = strstr(next, mark);
		len = end ? (size_t)(end - next) : strlen(next);
		line = strsep(&rest, "\n");
		if (!line || (!end && !len))
			break; /* the last mark ends the file */
		check_line(t, next, len, line);
		end = end ? end + sizeof(mark) - 1 : NULL;
	}
	assert_true(cases >= 46);
	tokenizer_close(t);
	free(text);
	free(ids);
}

static void shared_vectors__llama_spm(void **state)
{
	check_vectors("../shared/data/vocab/ggml-vocab-llama-spm.gguf");
}

static void shared_vectors__gpt_2(void **state)
{
	check_vectors("../shared/data/vocab/ggml-vocab-gpt-2.gguf");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shared_vectors__llama_spm),
		cmocka_unit_test(shared_vectors__gpt_2),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
