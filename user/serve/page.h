/* SPDX-License-Identifier: MIT */
/*
 * The web page: files that are a part of the program.
 *
 * They are those in user/serve/page/, put in at build time; the type follows from the ending of the name. They may
 * use nothing from elsewhere, and no script or style that is written into the page: PAGE_POLICY is sent
 * with each of them.
 */
#ifndef LSLM_SERVE_PAGE_H
#define LSLM_SERVE_PAGE_H

#include <stddef.h>

struct page_file {
	const char *path; /* as it is asked for: "/style.css" */
	const char *type; /* of Content-Type */
	const void *data;
	size_t size;
};

#define PAGE_POLICY                                                                                     \
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " \
	"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/* "/" is "/index.html". NULL: there is no such file. */
const struct page_file *page_find(const char *path);

#endif
