// SPDX-License-Identifier: MIT
/*
 * A calibration's reader on any bytes, and on changed good ones (byte 0 even: bytes to cut from the end, two, then position, two,
 * and value). With what it accepts a stripe is encoded and decoded.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/calibration.h"
#include "codec/codec.h"
#include "synthetic_kv.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct kv_geometry geo = { 1, 1, 8 };
static struct calibration *good;

static void use(const struct calibration *cal)
{
	uint8_t *stripe, *coded, *out;
	struct lslm_error err = { 0 };
	uint32_t length;
	size_t size;

	if (kv_stripe_bytes(&cal->geo, KV_LEVEL_F16) > 1 << 20 ||
	    codec_check(&cal->geo, KV_LEVEL_P, cal, &err))
		return;
	stripe = synthetic_stripe(&cal->geo, 1);
	coded = malloc(codec_stripe_bound(&cal->geo, KV_LEVEL_P));
	out = malloc(kv_stripe_bytes(&cal->geo, KV_LEVEL_F16));
	size = codec_encode(&cal->geo, KV_LEVEL_P, cal, 0, stripe, coded, &length);
	if (!size || codec_decode(&cal->geo, KV_LEVEL_P, cal, 0, 0, coded, size, out, &err))
		abort();
	free(stripe);
	free(coded);
	free(out);
}

static void check(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);
	struct lslm_error err = { 0 };
	struct calibration *cal;

	memcpy(exact, data, size);
	if (calibration_parse(&cal, exact, size, &err) == 0) {
		use(cal);
		calibration_free(cal);
	}
	free(exact);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return synthetic_calibration(&good, &geo) ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;
	size_t n;

	if (size < 3)
		return 0;
	if (data[0] % 2) {
		check(data + 1, size - 1);
		return 0;
	}
	n = good->size - (size_t)(data[1] | data[2] << 8) % (good->size + 1);
	copy = malloc(good->size);
	memcpy(copy, good->data, good->size);
	data += 3;
	size -= 3;
	for (; n && size >= 3; data += 3, size -= 3)
		copy[(data[0] | data[1] << 8) % n] = data[2];
	check(copy, n);
	free(copy);
	return 0;
}
