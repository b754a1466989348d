/* SPDX-License-Identifier: MIT */
/* The same random numbers in every run, for tests that fill matrices, stripes and rows with them. */
#ifndef LSLM_TESTS_RANDOM_H
#define LSLM_TESTS_RANDOM_H

#include <stdint.h>

/* 31 bits. */
static inline uint32_t rnd(void)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(state >> 33);
}

/* One of so many steps either side of 0, from -1 to 1. */
static inline float uniform(int steps)
{
	return (float)((int)(rnd() % (2 * (uint32_t)steps + 1)) - steps) / (float)steps;
}

/* As good as normally distributed, of mean 0 and variance 1. */
static inline double bell(void)
{
	double sum = 0;

	for (int i = 0; i < 12; i++)
		sum += (double)(rnd() & 0xffff) / 65536;
	return sum - 6;
}

#endif
