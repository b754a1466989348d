// SPDX-License-Identifier: MIT
#include "serve/page.h"

#include <string.h>

/*
 * The list is made by the build: PAGE(number, "name", "file") for each. The assembler takes the bytes, because a compiler
 * needs long for large arrays.
 */
#define PAGE(n, name, file)                                    \
	__asm__(".pushsection .rodata\n"                       \
		"page_begin_" #n ":\n\t.incbin \"" file "\"\n" \
		"page_end_" #n ":\n"                           \
		".popsection\n");                              \
	extern const char page_begin_##n[], page_end_##n[];
#include "page/files.h"
#undef PAGE

static const struct {
	const char *path;
	const char *begin, *end;
} files[] = {
#define PAGE(n, name, file) { "/" name, page_begin_##n, page_end_##n },
#include "page/files.h"
#undef PAGE
};

enum { N_FILES = sizeof(files) / sizeof(files[0]) };

static const char *type_of(const char *path)
{
	static const struct {
		const char *ending, *type;
	} types[] = {
		{ ".html", "text/html; charset=utf-8" },
		{ ".css", "text/css; charset=utf-8" },
		{ ".js", "text/javascript; charset=utf-8" },
		{ ".svg", "image/svg+xml" },
		{ ".png", "image/png" },
		{ ".ico", "image/x-icon" },
		{ ".json", "application/json" },
		{ ".webmanifest", "application/manifest+json" },
	};
	const char *ending = strrchr(path, '.');

	for (size_t i = 0; ending && i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(ending, types[i].ending))
			return types[i].type;
	return "application/octet-stream";
}

const struct page_file *page_find(const char *path)
{
	static __thread struct page_file found;

	if (!strcmp(path, "/"))
		path = "/index.html";
	for (size_t i = 0; i < N_FILES; i++) {
		if (strcmp(path, files[i].path))
			continue;
		found = (struct page_file){ files[i].path, type_of(files[i].path), files[i].begin,
					    (size_t)(files[i].end - files[i].begin) };
		return &found;
	}
	return NULL;
}
