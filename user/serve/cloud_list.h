/* SPDX-License-Identifier: MIT */
/*
 * Which contexts a cloud offers, asked again and again: new ones are put on a shelf, unless only those are wanted that an
 * admin asks for.
 *
 * The pauses grow from a second to a minute, and something new starts that over. What a cloud does not
 * offer any more stays where it is. A cloud that cannot be asked at the start is taken to offer what it did at last, where
 * there is a store that may have it (serve/list_cache.h).
 */
#ifndef LSLM_SERVE_CLOUD_LIST_H
#define LSLM_SERVE_CLOUD_LIST_H

#include "serve/shelf.h"

struct cloud_list;

/*
 * The context that this name means, a key, the beginning of one, a title or a URL, among those that the cloud lists: its key and URL.
 * What it listed last is looked through first, then it is asked; of what it lists the contexts of other salts are not looked at. Nothing of the name is
 * sent. One thread at a time. -ENOENT; -ENOTUNIQ;
 * -EACCES: a URL of another server; or why the cloud cannot be asked.
 */
int cloud_list_find(struct cloud_list *l, const char *name, const struct shelf_whose *whose,
		    struct kv_hash *key, char *url, size_t size, struct lslm_error *err);
/* The URL of this context. */
void cloud_list_url(const struct cloud_list *l, const struct kv_hash *key, char *url, size_t size);
/* Is it one of this cloud's URLs? */
bool cloud_list_owns(const struct cloud_list *l, const char *url);

/* cloud: https://HOST[:PORT]; access and clocks as in opts, whose strings and log outlive it, as the shelf does. */
int cloud_list_start(struct cloud_list **out, const char *cloud, const struct shelf_opts *opts,
		     struct shelf *shelf, struct lslm_error *err);
/* Whoever looks for one is to come to an end soon; before cloud_list_stop(). NULL is allowed, in both. */
void cloud_list_cancel(struct cloud_list *l);
void cloud_list_stop(struct cloud_list *l);

#endif
