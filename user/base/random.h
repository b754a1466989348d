/* SPDX-License-Identifier: MIT */
/* SplitMix64 (Steele et al. 2014): the same numbers from the same seed, and nothing to guard a secret with. */
#ifndef LSLM_BASE_RANDOM_H
#define LSLM_BASE_RANDOM_H

#include <stdint.h>

/* *state: any seed, then the generator's. */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* In [0, 1), of 53 bits. */
static inline double random_unit(uint64_t *state)
{
	return (double)(random_next(state) >> 11) * 0x1p-53;
}

#endif
