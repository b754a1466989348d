/* SPDX-License-Identifier: MIT */
/* A growing list of token ids; zeroed memory is an empty one, and free(list.ids) ends it. */
#ifndef LSLM_MODEL_IDLIST_H
#define LSLM_MODEL_IDLIST_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct idlist {
	int32_t *ids;
	size_t n, cap;
};

/* 0 or -ENOMEM. */
static inline int idlist_push(struct idlist *list, int32_t id)
{
	if (list->n == list->cap) {
		size_t cap = list->cap ? list->cap * 2 : 64;
		int32_t *ids = realloc(list->ids, cap * sizeof(*ids));

		if (!ids)
			return -ENOMEM;
		list->ids = ids;
		list->cap = cap;
	}
	list->ids[list->n++] = id;
	return 0;
}

#endif
