// SPDX-License-Identifier: MIT
#include "codec/steps.h"

#include "base/clones.h"
#include "codec/rans.h"
#include "compute/half.h"
#include "compute/quant.h"

enum {
	STEP_SHIFT = 7, /* of a step's number in a half */
};

uint16_t steps_half(uint32_t number)
{
	return (uint16_t)(number << STEP_SHIFT);
}

float steps_value(uint32_t number)
{
	return half_to_float(steps_half(number));
}

bool steps_valid(uint16_t half)
{
	const uint32_t number = half >> STEP_SHIFT;

	return steps_half(number) == half && number >= 1 && number <= STEPS_LARGEST;
}

uint32_t steps_at_least(float value)
{
	uint32_t low = 1, high = STEPS_LARGEST;

	while (low < high) {
		const uint32_t middle = (low + high) / 2;

		if (steps_value(middle) >= value)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

uint32_t steps_holding(float largest)
{
	return steps_at_least(largest / RANS_MAX_VALUE);
}

uint64_t steps_cost(const float *squares, size_t n, uint32_t number)
{
	const float inverse = 1 / steps_value(number);
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += rans_cost(squares[i] * inverse * inverse);
	return sum;
}

/* Costs fall as steps grow, so bisect. */
uint32_t steps_choose(const float *squares, size_t n, float largest, uint64_t cost)
{
	uint32_t low = steps_holding(largest), high = STEPS_LARGEST;

	while (low < high) {
		const uint32_t middle = (low + high) / 2;

		if (steps_cost(squares, n, middle) <= cost)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* To nearest even by the adder, for magnitudes below 2^22. */
CLONES void steps_quantise(int16_t *q, const float *x, float inverse, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float v = x[i] * inverse;

		v = v > RANS_MAX_VALUE ? RANS_MAX_VALUE : v;
		v = v < -RANS_MAX_VALUE ? -RANS_MAX_VALUE : v;
		q[i] = (int16_t)(int)(v + 0x1.8p23f - 0x1.8p23f);
	}
}

CLONES static void scale_row(float *x, const int16_t *v, float scale, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)v[i] * scale;
}

void steps_restore(uint16_t *x, const int16_t *v, float scale, size_t n)
{
	float row[256];

	for (size_t i = 0, m; i < n; i += m) {
		m = n - i < 256 ? n - i : 256;
		scale_row(row, v + i, scale, m);
		f32_row_to_f16(row, x + i, m);
	}
}

CLONES static void add_squares(float *squares, float *largest, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const float v = x[i] < 0 ? -x[i] : x[i];

		squares[i] += v * v;
		largest[i] = v > largest[i] ? v : largest[i];
	}
}

float steps_measure(float *squares, const float *x, size_t rows, size_t columns)
{
	float peaks[RANS_MAX_COLUMNS] = { 0 }, largest = 0;

	for (size_t t = 0; t < rows; t++)
		add_squares(squares, peaks, x + t * columns, columns);
	for (size_t i = 0; i < columns; i++)
		largest = peaks[i] > largest ? peaks[i] : largest;
	return largest;
}

void steps_put_classes(uint8_t *out, size_t at, const uint8_t *classes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++, at++)
		out[at / 2] = (uint8_t)(at % 2 ? (out[at / 2] & 15) | classes[i] << 4 :
						 (out[at / 2] & 0xf0) | classes[i]);
}

void steps_get_classes(uint8_t *classes, const uint8_t *in, size_t at, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++, at++)
		classes[i] = at % 2 ? in[at / 2] >> 4 : in[at / 2] & 15;
}
