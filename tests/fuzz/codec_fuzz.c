// SPDX-License-Identifier: MIT
/*
 * Every level's decoder on any bytes. Byte 0 chooses level and geometry, byte 1 how the rest is taken: as a whole unit, or, since
 * a fuzzer seldom finds 32 states that come out right, as changes to a good one: bytes to cut from its end (two), then
 * places to overwrite: position (two bytes), value. What was accepted is the same on every instruction set.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/calibration.h"
#include "codec/codec.h"
#include "codec/rans.h"
#include "synthetic_kv.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct kv_geometry geos[] = { { 2, 2, 8 }, { 1, 3, 5 }, { 1, 2, 32 }, { 1, 1, 1 } };

enum { GEOS = sizeof(geos) / sizeof(geos[0]), LEVELS = 5 };

static struct calibration *calibrations[GEOS];

/* A unit that the encoder made, in exactly as much memory as it has. */
static uint8_t *good_unit(uint32_t g, enum kv_level level, size_t *size)
{
	uint8_t *stripe = synthetic_stripe(&geos[g], 1);
	uint8_t *coded = malloc(codec_stripe_bound(&geos[g], level)), *unit;
	uint32_t lengths[2];

	if (!codec_encode(&geos[g], level, calibrations[g], 0, stripe, coded, lengths))
		abort();
	*size = lengths[0];
	unit = malloc(*size);
	memcpy(unit, coded, *size);
	free(stripe);
	free(coded);
	return unit;
}

static void decode(uint32_t g, enum kv_level level, const uint8_t *in, size_t size)
{
	static const char *const sets[] = { "AVX-512", "AVX2", "C" };
	const size_t unit_bytes =
		kv_stripe_bytes(&geos[g], KV_LEVEL_F16) / codec_units(&geos[g], level);
	uint8_t *exact = malloc(size ? size : 1), *first = calloc(1, unit_bytes);
	uint8_t *out = calloc(1, unit_bytes);
	int want = 1;

	memcpy(exact, in, size);
	for (size_t s = 0; s < 3; s++) {
		struct lslm_error err = { 0 };
		int rc;

		if (rans_use(sets[s]))
			continue;
		rc = codec_decode(&geos[g], level, calibrations[g], 64, 0, exact, size, out, &err);
		if (want == 1) {
			want = rc;
			memcpy(first, out, unit_bytes);
		}
		if (rc != want || (!rc && memcmp(first, out, unit_bytes)))
			abort();
	}
	free(exact);
	free(first);
	free(out);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	for (uint32_t g = 0; g < GEOS; g++)
		if (synthetic_calibration(&calibrations[g], &geos[g]))
			abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum kv_level level;
	uint8_t *unit;
	uint32_t g;
	size_t n;

	if (size < 4)
		return 0;
	level = (enum kv_level)(data[0] % LEVELS);
	g = data[0] / LEVELS % GEOS;
	if (data[1] % 2) {
		decode(g, level, data + 2, size - 2);
		return 0;
	}
	unit = good_unit(g, level, &n);
	n -= (data[2] | data[3] << 8) % (n + 1);
	data += 4;
	size -= 4;
	for (; n && size >= 3; data += 3, size -= 3)
		unit[(data[0] | data[1] << 8) % n] = data[2];
	decode(g, level, unit, n);
	free(unit);
	return 0;
}
