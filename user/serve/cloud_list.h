/* SPDX-License-Identifier: MIT */
/*
 * Which contexts a cloud offers, asked again and again: new ones are put on a shelf.
 *
 * The pauses grow from a second to a minute, and something new starts that over. What a cloud does not
 * offer any more stays where it is. A cloud that cannot be asked at the start is taken to offer what it did at last, where
 * there is a store that may have it (serve/list_cache.h).
 */
#ifndef LSLM_SERVE_CLOUD_LIST_H
#define LSLM_SERVE_CLOUD_LIST_H

#include "serve/shelf.h"

struct cloud_list;

/* cloud: https://HOST[:PORT]; access and clocks as in opts, whose strings and log outlive it, as the shelf does. */
int cloud_list_start(struct cloud_list **out, const char *cloud, const struct shelf_opts *opts,
		     struct shelf *shelf, struct lslm_error *err);
/* NULL is allowed. */
void cloud_list_stop(struct cloud_list *l);

#endif
