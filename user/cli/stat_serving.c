// SPDX-License-Identifier: MIT
#include "cli/stat_serving.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "serve/metrics.h"

static uint64_t count_of(const struct courier_histogram *h)
{
	uint64_t n = 0;

	for (int i = 0; i < COURIER_WIRE_BUCKETS; i++)
		n += h->buckets[i];
	return n;
}

static double mean_of(const struct courier_histogram *h)
{
	const uint64_t n = count_of(h);

	return n ? h->sum / (double)n : 0;
}

/* What so large a share lie below, as if each bucket were evenly filled; of what lies beyond all bounds the last bound. */
static double quantile(const struct courier_histogram *h, double share)
{
	const double wanted = share * (double)count_of(h);
	double before = 0, low = 0;

	for (int i = 0; i < COURIER_WIRE_BUCKETS && h->bounds[i] > 0; i++) {
		const double in = (double)h->buckets[i];

		if (in > 0 && before + in >= wanted)
			return low + (h->bounds[i] - low) * (wanted - before) / in;
		before += in;
		low = h->bounds[i];
	}
	return before < wanted ? low : 0;
}

static uint64_t requests_of(const struct courier_serving *s)
{
	return s->answered + s->refused + s->failed + s->wrong + s->cut;
}

/* ---- for people ---- */

static void print_choices(const struct courier_serving *s)
{
	const char *before = "  choices      ";

	for (uint32_t i = 0; i < METRICS_N_ENDS; i++)
		if (s->ends[i]) {
			printf("%s%" PRIu64 " %s", before, s->ends[i], metrics_end_name(i));
			before = ", ";
		}
	if (*before == ',')
		putchar('\n');
}

static void print_histogram(const char *what, const char *unit, const struct courier_histogram *h)
{
	if (count_of(h))
		printf("  %-12s p50 %.3g %s, p95 %.3g, p99 %.3g, mean %.3g\n", what,
		       quantile(h, 0.5), unit, quantile(h, 0.95), quantile(h, 0.99), mean_of(h));
}

/* Engines that were replaced take nothing back, but a supervisor that was started anew begins at 0. */
static void print_since(const struct courier_serving *s, struct stat_serving *last)
{
	const double now = clock_seconds(), past = now - last->at;
	const struct courier_serving *was = &last->seen;

	if (last->at > 0 && requests_of(s) >= requests_of(was) && s->generated >= was->generated)
		printf("  now          %.1f requests/s, %.1f tokens/s\n",
		       (double)(requests_of(s) - requests_of(was)) / past,
		       (double)(s->generated - was->generated) / past);
	last->at = now;
	last->seen = *s;
}

int stat_serving_print(struct courier_client *c, struct stat_serving *last, struct lslm_error *err)
{
	struct courier_serving s;
	const int rc = courier_client_serving(c, &s, err);

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	printf("requests %" PRIu64 "  %" PRIu64 " running, %" PRIu64 " queued, %" PRIu64
	       " places\n",
	       requests_of(&s), s.running, s.queued, s.places);
	printf("  answered     %" PRIu64 ", refused %" PRIu64 ", failed %" PRIu64 ", wrong %" PRIu64
	       ", cut %" PRIu64 "\n",
	       s.answered, s.refused, s.failed, s.wrong, s.cut);
	print_choices(&s);
	printf("  tokens       %" PRIu64 " of prompts, %" PRIu64 " of them cached, %" PRIu64
	       " generated\n",
	       s.prompt, s.cached, s.generated);
	print_histogram("first token", "s", &s.ttft);
	print_histogram("decoding", "tokens/s", &s.rate);
	if (last)
		print_since(&s, last);
	return 0;
}

/* ---- for programs ---- */

static json_t *histogram_object(const struct courier_histogram *h)
{
	return json_pack("{s:I, s:f, s:f, s:f, s:f}", "count", (json_int_t)count_of(h), "mean",
			 mean_of(h), "p50", quantile(h, 0.5), "p95", quantile(h, 0.95), "p99",
			 quantile(h, 0.99));
}

json_t *stat_serving_object(struct courier_client *c, struct lslm_error *err)
{
	json_t *choices;
	struct courier_serving s;
	const int rc = courier_client_serving(c, &s, err);

	if (rc)
		return rc == -ENOENT ? json_null() : NULL;
	choices = json_object();
	for (uint32_t i = 0; i < METRICS_N_ENDS; i++)
		json_object_set_new(choices, metrics_end_name(i),
				    json_integer((json_int_t)s.ends[i]));
	return json_pack(
		"{s:{s:I, s:I, s:I, s:I, s:I}, s:I, s:I, s:I, s:o, s:{s:I, s:I, s:I}, s:o, s:o}",
		"requests", "answered", (json_int_t)s.answered, "refused", (json_int_t)s.refused,
		"failed", (json_int_t)s.failed, "wrong", (json_int_t)s.wrong, "cut",
		(json_int_t)s.cut, "running", (json_int_t)s.running, "queued", (json_int_t)s.queued,
		"places", (json_int_t)s.places, "choices", choices, "tokens", "prompt",
		(json_int_t)s.prompt, "cached", (json_int_t)s.cached, "generated",
		(json_int_t)s.generated, "ttft_s", histogram_object(&s.ttft), "tokens_per_s",
		histogram_object(&s.rate));
}
