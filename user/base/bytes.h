/* SPDX-License-Identifier: MIT */
/*
 * Little-endian integers and IEEE 754 numbers at any address: what files and the wire are made of.
 * Compilers turn each of these into one load or store where the machine allows it.
 */
#ifndef LSLM_BASE_BYTES_H
#define LSLM_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t get_le16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static inline void put_le16(void *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}

static inline uint32_t get_le32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static inline uint64_t get_le64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static inline void put_le32(void *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void put_le64(void *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

static inline float get_lef32(const void *p)
{
	const uint32_t bits = get_le32(p);
	float v;

	memcpy(&v, &bits, sizeof(v));
	return v;
}

static inline void put_lef32(void *p, float v)
{
	uint32_t bits;

	memcpy(&bits, &v, sizeof(bits));
	put_le32(p, bits);
}

static inline double get_lef64(const void *p)
{
	const uint64_t bits = get_le64(p);
	double v;

	memcpy(&v, &bits, sizeof(v));
	return v;
}

static inline void put_lef64(void *p, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	put_le64(p, bits);
}

#endif
