// SPDX-License-Identifier: MIT
#include "codec/rans.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clones.h"
#include "codec/rans_kernels.h"

enum {
	PARTS = 8, /* that a step of the density is cut into */
	COST_UNIT = 256, /* of a bit */
};

/* exp(-1 / (2 * (8 s)^2)) in units of 2^-32 for each class's standard deviation s, and the largest value. */
static const struct {
	uint32_t ratio;
	uint8_t limit;
} family[RANS_CLASSES] = {
	{ 0, 0 },
	{ 3344923893u, 1 },
	{ 3790295335u, 2 },
	{ 4034748382u, 2 },
	{ 4162825044u, 3 },
	{ 4228380000u, 4 },
	{ 4261543595u, 6 },
	{ 4278222805u, 8 },
	{ 4286586875u, 11 },
	{ 4290775039u, 15 },
	{ 4292870656u, 21 },
	{ 4293918848u, 29 },
	{ 4294443040u, 41 },
	{ 4294705160u, 57 },
	{ 4294836226u, 81 },
	{ 4294901760u, 127 },
};

/*
 * inverse: (2^43 - 1) / frequency, rounded down, so that x / frequency is (x + 1) * inverse / 2^43 for every x < frequency * 2^21, which
 * states are then: the product stays below 2^64, and it falls short of (x + 1) / frequency by no more than frequency / 2^22 <=
 * 1 / frequency.
 */
struct symbol {
	uint32_t start, frequency;
	uint64_t inverse;
};

enum { INVERSE_BITS = 43 };

static rans_slots slots;
static struct symbol symbols[RANS_CLASSES][RANS_SYMBOLS]; /* by q + RANS_MAX_VALUE */
static rans_symbols packed; /* the same, for kernels */
static uint16_t costs[RANS_CLASSES][RANS_MAX_VALUE + 1]; /* by |q|, in COST_UNITs */
static uint32_t mean_costs[RANS_CLASSES + 1]; /* of a value of each class, and of one more */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

/* log2(x) in COST_UNITs, rounded down, by squaring: 1 <= x < 2^32. */
static uint32_t log2_units(uint32_t x)
{
	const uint32_t whole = 31 - (uint32_t)__builtin_clz(x);
	uint64_t m = (uint64_t)x << (31 - whole); /* 1 is 2^31 */
	uint32_t result = whole;

	for (int i = 0; i < 8; i++) {
		m = m * m >> 31;
		result = result << 1 | (m >> 32 & 1);
		if (m >> 32)
			m >>= 1;
	}
	return result;
}

/*
 * mass[k]: integral of the density over the step around k; moment[k]: of 2 PARTS x times the density there. The
 * density at the middle of part n, (n + 1/2) / PARTS from zero, is a product of ratios of neighbours, whose own
 * ratio is constant.
 */
static void integrate(unsigned int class, uint64_t *mass, uint64_t *moment)
{
	const uint64_t one = 1ull << 32, ratio = family[class].ratio, twice = ratio * ratio >> 32;
	const uint32_t limit = family[class].limit;
	uint64_t density = 1u << 31, next = twice;

	memset(mass, 0, (limit + 1) * sizeof(*mass));
	memset(moment, 0, (limit + 1) * sizeof(*moment));
	for (uint32_t n = 0; n < PARTS * limit + PARTS / 2; n++) {
		const uint32_t k = (n + PARTS / 2) / PARTS;

		mass[k] += density;
		moment[k] += density * (2 * n + 1);
		density = density * next / one;
		next = next * twice / one;
	}
	mass[0] *= 2; /* both sides */
}

/* Every value gets at least 1 of RANS_SCALE, zero takes what rounding leaves. */
static void frequencies(unsigned int class, uint32_t *f, const uint64_t *mass)
{
	const uint32_t limit = family[class].limit;
	uint64_t total = mass[0];
	uint32_t used = 0;

	for (uint32_t k = 1; k <= limit; k++)
		total += 2 * mass[k];
	for (uint32_t k = 1; k <= limit; k++) {
		f[k] = (uint32_t)(mass[k] * (RANS_SCALE - 2 * limit) / total) + 1;
		used += 2 * f[k];
	}
	f[0] = RANS_SCALE - used;
}

/* Four times the mean of what becomes k, rounded. */
static int centre(uint32_t k, const uint64_t *mass, const uint64_t *moment)
{
	if (k == 0 || mass[k] == 0)
		return (int)(4 * k);
	return (int)((moment[k] * 4 + mass[k] * PARTS) / (mass[k] * 2 * PARTS));
}

static void build_class(unsigned int class)
{
	uint64_t mass[RANS_MAX_VALUE + 1], moment[RANS_MAX_VALUE + 1];
	const int limit = family[class].limit;
	uint32_t f[RANS_MAX_VALUE + 1], start = 0, sum = 0;

	integrate(class, mass, moment);
	frequencies(class, f, mass);
	for (int q = -limit; q <= limit; q++) {
		const uint32_t k = (uint32_t)(q < 0 ? -q : q);
		const int value = q < 0 ? -centre(k, mass, moment) : centre(k, mass, moment);

		symbols[class][q + RANS_MAX_VALUE] = (struct symbol){
			.start = start,
			.frequency = f[k],
			.inverse = ((1ull << INVERSE_BITS) - 1) / f[k],
		};
		packed[class][q + RANS_MAX_VALUE] = (f[k] - 1) | start << RANS_SCALE_BITS;
		for (uint32_t i = 0; i < f[k]; i++)
			slots[class][start + i] = (f[k] - 1) | i << 11 | (uint32_t)value << 22;
		costs[class][k] = (uint16_t)(RANS_SCALE_BITS * COST_UNIT - log2_units(f[k]));
		start += f[k];
		sum += f[k] * costs[class][k];
	}
	mean_costs[class] = sum / RANS_SCALE;
}

static void build_tables(void)
{
	/* Class 0 has one value that is certain: a state stays as it is. */
	symbols[0][RANS_MAX_VALUE] = (struct symbol){ .frequency = RANS_SCALE };
	packed[0][RANS_MAX_VALUE] = RANS_SCALE - 1;
	for (uint32_t i = 0; i < RANS_SCALE; i++)
		slots[0][i] = (RANS_SCALE - 1) | i << 11;
	for (unsigned int class = 1; class < RANS_CLASSES; class ++)
		build_class(class);
	/* Twice the standard deviation is one bit more, a class is half of that. */
	mean_costs[RANS_CLASSES] = mean_costs[RANS_CLASSES - 1] + COST_UNIT / 2;
}

static void need_tables(void)
{
	pthread_once(&tables_once, build_tables);
}

/* --- classes --- */

size_t rans_bound(size_t n_values)
{
	return n_values * RANS_SCALE_BITS / 8 + RANS_LANES * 8;
}

int rans_limit(unsigned int class)
{
	return family[class].limit;
}

/* Columns side by side, so that loops vectorise: at most 64 * 127^2 fits 32 bits. */
CLONES static void measure(uint32_t *squares, uint16_t *largest, const int16_t *q, uint32_t columns)
{
	memset(squares, 0, columns * sizeof(*squares));
	memset(largest, 0, columns * sizeof(*largest));
	for (uint32_t t = 0; t < RANS_ROWS; t++, q += columns)
		for (uint32_t c = 0; c < columns; c++) {
			const uint16_t v = (uint16_t)(q[c] < 0 ? -q[c] : q[c]);

			squares[c] += (uint32_t)(v * v);
			largest[c] = v > largest[c] ? v : largest[c];
		}
}

/* The variance of class c is 2^(c - 6), that of 64 values squares / 2^6. */
static unsigned int class_of(uint32_t squares, uint32_t largest)
{
	unsigned int class;

	if (squares == 0)
		return 0;
	class = 31 - (unsigned int)__builtin_clz(squares);
	class += (uint64_t)squares * squares >> (2 * class + 1) != 0;
	class = class < 1 ? 1 : class >= RANS_CLASSES ? RANS_CLASSES - 1 : class;
	while (family[class].limit < largest)
		class ++;
	return class;
}

void rans_classify(uint8_t *classes, const int16_t *q, uint32_t columns)
{
	uint32_t squares[RANS_MAX_COLUMNS];
	uint16_t largest[RANS_MAX_COLUMNS];

	measure(squares, largest, q, columns);
	for (uint32_t c = 0; c < columns; c++)
		classes[c] = (uint8_t)class_of(squares[c], largest[c]);
}

/* Of a normal distribution: sum_of_squares is 2^c for class c, and between classes costs are interpolated. */
uint32_t rans_cost(float sum_of_squares)
{
	uint32_t bits, class, part;

	need_tables();
	if (!(sum_of_squares >= 1))
		return 0;
	memcpy(&bits, &sum_of_squares, sizeof(bits));
	class = (bits >> 23) - 127;
	part = bits >> 15 & 255;
	if (class >= RANS_CLASSES)
		return mean_costs[RANS_CLASSES] + (class - RANS_CLASSES) * COST_UNIT / 2;
	return mean_costs[class] + ((mean_costs[class + 1] - mean_costs[class]) * part >> 8);
}

/* --- kernels --- */

/* Where each column's class is in a table; it repeats, so that a kernel can read RANS_LANES from any column. */
static void spread(uint32_t *offsets, const uint8_t *classes, uint32_t columns, uint32_t class_size,
		   uint32_t first)
{
	for (uint32_t i = 0, c = 0; i < columns + RANS_LANES; i++) {
		offsets[i] = (uint32_t)classes[c] * class_size + first;
		c = c + 1 == columns ? 0 : c + 1;
	}
}

static const struct rans_set *const sets[] = { &rans_avx512, &rans_avx2 };
static const struct rans_set *chosen; /* NULL: not yet, or plain C */
static bool plain;

static const struct rans_set *kernel(void)
{
	const struct rans_set *set = __atomic_load_n(&chosen, __ATOMIC_RELAXED);

	if (set || plain)
		return set;
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		if (sets[i]->usable()) {
			__atomic_store_n(&chosen, sets[i], __ATOMIC_RELAXED);
			return sets[i];
		}
	return NULL;
}

/* --- encoder --- */

void rans_encoder_begin(struct rans_encoder *e, uint8_t *start, size_t size)
{
	need_tables();
	e->start = start;
	e->at = e->end = start + size;
	for (int i = 0; i < RANS_LANES; i++)
		e->state[i] = RANS_LOWEST;
}

static void put_word(struct rans_encoder *e, uint32_t x)
{
	e->at -= 2;
	e->at[0] = (uint8_t)x;
	e->at[1] = (uint8_t)(x >> 8);
}

static void encode_plain(struct rans_encoder *e, const int16_t *q, const uint8_t *classes,
			 uint32_t columns)
{
	uint32_t c = columns;

	/* What is decoded first is encoded last. */
	for (size_t i = (size_t)RANS_ROWS * columns; i-- > 0;) {
		const struct symbol *s;
		uint32_t *state = &e->state[i % RANS_LANES], x = *state, quotient;

		c = c ? c - 1 : columns - 1;
		if (classes[c] == 0)
			continue;
		s = &symbols[classes[c]][q[i] + RANS_MAX_VALUE];
		if (x >> (32 - RANS_SCALE_BITS) >= s->frequency) {
			put_word(e, x);
			x >>= 16;
		}
		quotient = (uint32_t)((x + 1ull) * s->inverse >> INVERSE_BITS);
		/* The quotient in units of RANS_SCALE, the remainder, and the start. */
		*state = x + s->start + quotient * (RANS_SCALE - s->frequency);
	}
}

void rans_encode(struct rans_encoder *e, const int16_t *q, const uint8_t *classes, uint32_t columns)
{
	const struct rans_set *set = kernel();
	uint32_t offsets[RANS_MAX_COLUMNS + RANS_LANES];

	if (!columns)
		return;
	if (!set || !set->encode) {
		encode_plain(e, q, classes, columns);
		return;
	}
	spread(offsets, classes, columns, RANS_SYMBOLS, RANS_MAX_VALUE);
	set->encode(e, packed[0], q, offsets, columns, (size_t)RANS_ROWS * columns / RANS_LANES);
}

size_t rans_encoder_end(struct rans_encoder *e)
{
	size_t size;

	for (int i = RANS_LANES; i-- > 0;) {
		put_word(e, e->state[i] >> 16);
		put_word(e, e->state[i]);
	}
	size = (size_t)(e->end - e->at);
	memmove(e->start, e->at, size);
	return size;
}

/* --- decoder --- */

int rans_decoder_begin(struct rans_decoder *d, const uint8_t *in, size_t size)
{
	need_tables();
	if (size < RANS_LANES * sizeof(uint32_t))
		return -EBADMSG;
	for (int i = 0; i < RANS_LANES; i++) {
		d->state[i] = get_le32(in + i * sizeof(uint32_t));
		if (d->state[i] < RANS_LOWEST)
			return -EBADMSG;
	}
	d->at = in + RANS_LANES * sizeof(uint32_t);
	d->end = in + size;
	return 0;
}

int rans_decoder_end(const struct rans_decoder *d)
{
	for (int i = 0; i < RANS_LANES; i++)
		if (d->state[i] != RANS_LOWEST)
			return -EBADMSG;
	return d->at == d->end ? 0 : -EBADMSG;
}

/* One value of one lane. */
static int decode_value(struct rans_decoder *d, uint32_t *state, uint32_t offset, int16_t *v)
{
	const uint32_t slot = slots[offset / RANS_SCALE][*state & (RANS_SCALE - 1)];
	uint32_t x = ((slot & (RANS_SCALE - 1)) + 1) * (*state >> RANS_SCALE_BITS);

	x += slot >> RANS_SCALE_BITS & (RANS_SCALE - 1);
	*v = (int16_t)((int32_t)slot >> 22);
	if (x < RANS_LOWEST) {
		if (d->end - d->at < 2)
			return -EBADMSG;
		x = x << 16 | d->at[0] | (uint32_t)d->at[1] << 8;
		d->at += 2;
	}
	*state = x;
	return 0;
}

int rans_decode(struct rans_decoder *d, int16_t *v, const uint8_t *classes, uint32_t columns)
{
	const size_t groups = (size_t)RANS_ROWS * columns / RANS_LANES;
	const struct rans_set *set = kernel();
	uint32_t offsets[RANS_MAX_COLUMNS + RANS_LANES], c;
	size_t done = 0;

	/* A group of which a calibration keeps nothing; kernels divide by it. */
	if (!columns)
		return 0;
	spread(offsets, classes, columns, RANS_SCALE, 0);
	if (set)
		done = set->decode(d, slots[0], v, offsets, columns, groups);
	c = (uint32_t)(done * RANS_LANES % columns);
	for (size_t i = done * RANS_LANES; i < groups * RANS_LANES; i++) {
		int rc = decode_value(d, &d->state[i % RANS_LANES], offsets[c], v + i);

		if (rc)
			return rc;
		c = c + 1 == columns ? 0 : c + 1;
	}
	return 0;
}

const char *rans_describe(void)
{
	const struct rans_set *set = kernel();

	return set ? set->name : "C";
}

int rans_use(const char *name)
{
	chosen = NULL;
	plain = name && !strcmp(name, "C");
	if (!name || plain)
		return 0;
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		if (!strcmp(sets[i]->name, name) && sets[i]->usable()) {
			chosen = sets[i];
			return 0;
		}
	return -ENOTSUP;
}
