/* SPDX-License-Identifier: MIT */
/* The part of `lslm stat` about what engines were asked. */
#ifndef LSLM_CLI_STAT_SERVING_H
#define LSLM_CLI_STAT_SERVING_H

#include <jansson.h>

#include "net/courier_client.h"

/* What was shown last in a terminal, for what happened since. */
struct stat_serving {
	double at; /* clock_seconds(); 0: nothing was */
	struct courier_serving seen;
};

/* For people; last: NULL for once. 0 too where there are no engines. */
int stat_serving_print(struct courier_client *c, struct stat_serving *last, struct lslm_error *err);
/* For programs: null where there are no engines; NULL with a line when the courier cannot be asked. */
json_t *stat_serving_object(struct courier_client *c, struct lslm_error *err);

#endif
