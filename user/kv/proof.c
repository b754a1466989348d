// SPDX-License-Identifier: MIT
#include "kv/proof.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/bytes.h"

enum { AT_NUMBERS = 16 };

static int refuse(struct lslm_error *err, const char *why)
{
	return error_set(err, -EINVAL, "the evaluation of a map %s", why);
}

static bool is_share(double x)
{
	return x >= 0 && x <= 1;
}

static int check(const struct proof *p, struct lslm_error *err)
{
	if (p->metric == PROOF_NONE)
		return 0;
	if (p->contexts > p->observations)
		return refuse(err, "has more contexts than observations");
	if (!(p->low <= p->gain && p->gain <= p->high))
		return refuse(err, "has an interval without its value");
	if (p->metric == PROOF_EXACT && (!is_share(p->alone) || !is_share(p->mapped)))
		return refuse(err, "has a share that is none");
	return 0;
}

int proof_get(struct proof *out, const uint8_t bytes[PROOF_BYTES], struct lslm_error *err)
{
	double *const numbers[] = { &out->alone, &out->mapped, &out->gain, &out->low, &out->high };
	const uint32_t metric = get_le32(bytes), bar = get_le32(bytes + 12);

	if (metric > PROOF_NATS || bar > PROOF_NO_WORSE)
		return refuse(err, "is of an unknown kind");
	out->metric = (enum proof_metric)metric;
	out->contexts = get_le32(bytes + 4);
	out->observations = get_le32(bytes + 8);
	out->bar = (enum proof_bar)bar;
	for (uint32_t i = 0; i < 5; i++) {
		*numbers[i] = get_lef64(bytes + AT_NUMBERS + i * 8);
		if (!isfinite(*numbers[i]))
			return refuse(err, "has no numbers");
	}
	return check(out, err);
}

void proof_put(uint8_t bytes[PROOF_BYTES], const struct proof *p)
{
	const double numbers[] = { p->alone, p->mapped, p->gain, p->low, p->high };

	put_le32(bytes, p->metric);
	put_le32(bytes + 4, p->contexts);
	put_le32(bytes + 8, p->observations);
	put_le32(bytes + 12, p->bar);
	for (uint32_t i = 0; i < 5; i++)
		put_lef64(bytes + AT_NUMBERS + i * 8, numbers[i]);
}

bool proof_holds(const struct proof *p, char *why, size_t room)
{
	const char *unit = p->metric == PROOF_EXACT ? "points of exact match" : "nats per token";
	const double scale = p->metric == PROOF_EXACT ? 100 : 1;

	if (p->metric == PROOF_NONE) {
		snprintf(why, room, "it was never evaluated against the model alone");
		return false;
	}
	if (p->contexts < PROOF_LEAST_CONTEXTS) {
		snprintf(
			why, room,
			"it was evaluated on %u contexts, which are too few: at least %d are needed",
			p->contexts, PROOF_LEAST_CONTEXTS);
		return false;
	}
	snprintf(why, room,
		 "on %u observations it gained %+.3g (%+.3g to %+.3g) %s over the model alone",
		 p->observations, p->gain * scale, p->low * scale, p->high * scale, unit);
	return p->low > (p->bar == PROOF_NO_WORSE ? -PROOF_MARGIN : 0);
}
