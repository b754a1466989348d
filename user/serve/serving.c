// SPDX-License-Identifier: MIT
#include "serve/serving.h"

#include <microhttpd.h>

#include "serve/visit.h"

_Static_assert((int)TALLY_ENDS <= (int)COURIER_WIRE_ENDS, "room for every end");
_Static_assert((int)TALLY_BOUNDS < (int)COURIER_WIRE_BUCKETS, "room for every bucket");
_Static_assert((int)N_ROUTES <= (int)TALLY_ROUTES, "room for every route");

static void count_requests(const uint64_t by_status[TALLY_STATUSES], struct courier_serving *to)
{
	for (uint32_t i = 0; i < TALLY_STATUSES; i++) {
		const unsigned int status = tally_statuses[i];
		uint64_t *sum = &to->answered;

		if (!status)
			sum = &to->cut;
		else if (status == MHD_HTTP_TOO_MANY_REQUESTS ||
			 status == MHD_HTTP_SERVICE_UNAVAILABLE)
			sum = &to->refused;
		else if (status >= 500)
			sum = &to->failed;
		else if (status >= 400)
			sum = &to->wrong;
		*sum += by_status[i];
	}
}

static void add_histogram(const struct tally_histogram *from, const double bounds[TALLY_BOUNDS],
			  struct courier_histogram *to)
{
	for (uint32_t i = 0; i <= TALLY_BOUNDS; i++) {
		to->buckets[i] += from->buckets[i];
		to->bounds[i] = i < TALLY_BOUNDS ? bounds[i] : 0;
	}
	to->sum += (double)from->sum / TALLY_UNIT;
}

void serving_fill(const struct tally_page *from, struct courier_serving *to)
{
	count_requests(from->counts.requests[ROUTE_CHAT], to);
	count_requests(from->counts.requests[ROUTE_COMPLETIONS], to);
	for (uint32_t i = 0; i < TALLY_MODELS; i++) {
		const struct tally_model *m = &from->counts.models[i];

		for (uint32_t k = 0; k < TALLY_ENDS; k++)
			to->ends[k] += m->ends[k];
		to->prompt += m->prompt;
		to->cached += m->cached;
		to->generated += m->generated;
		to->running += from->now[i].running;
		to->queued += from->now[i].queued;
		to->places += from->now[i].places;
		add_histogram(&m->ttft, tally_seconds, &to->ttft);
		add_histogram(&m->rate, tally_rates, &to->rate);
	}
}
