/* SPDX-License-Identifier: MIT */
/*
 * UTF-8 and the classes of characters that pre-tokenizers tell apart.
 *
 * The regular expressions of byte-level tokenizers use \p{L}, \p{N}, \p{P} and \s
 * and their complements, and nothing else of Unicode; so a class is one of five.
 * The table (unicode_data.c, written by scripts/unicode.py) is that of Unicode 15.1,
 * which is what llama.cpp has: a letter of a later version would cut differently.
 */
#ifndef LSLM_MODEL_UNICODE_H
#define LSLM_MODEL_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum unicode_class {
	UNICODE_OTHER, /* symbols, marks, controls, unassigned, and bytes that are not UTF-8 */
	UNICODE_SPACE, /* the White_Space property */
	UNICODE_LETTER, /* L* */
	UNICODE_NUMBER, /* N* */
	UNICODE_PUNCT, /* P* */
};

/* What a byte that is not UTF-8 reads as. */
#define UNICODE_REPLACEMENT 0xfffdu

enum unicode_class unicode_class(uint32_t code);

/*
 * The character at text, len >= 1: stores its code point and returns its length in
 * bytes, 1 to 4. Strict: an overlong form, a surrogate, a value past U+10FFFF or a
 * sequence cut short is UNICODE_REPLACEMENT of length 1, so that reading goes on with the
 * next byte and every byte belongs to exactly one character.
 */
size_t unicode_decode(const char *text, size_t len, uint32_t *code);

/* Writes 1 to 4 bytes; code is a Unicode scalar value. */
size_t unicode_encode(uint32_t code, char out[4]);

/*
 * The byte alphabet of GPT-2: byte-level vocabularies write each byte as one printable
 * character, so that tokens have no white space. '!' to '~', U+00A1 to U+00AC and
 * U+00AE to U+00FF stand for themselves; the other 68 bytes, in order, for
 * U+0100 to U+0143. unicode_to_byte() returns -1 for a character outside of it.
 */
uint32_t unicode_from_byte(uint8_t byte);
int unicode_to_byte(uint32_t code);

/* The table: (first code point << 8 | class) of each run, ascending, from 0. */
extern const uint32_t unicode_runs[];
extern const unsigned int unicode_n_runs;

#endif
