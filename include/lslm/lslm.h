/* SPDX-License-Identifier: MIT */
#ifndef LSLM_LSLM_H
#define LSLM_LSLM_H

#ifdef __cplusplus
extern "C" {
#endif

/* code: 0 or a negative errno. text: one line for a person, no newline. */
struct lslm_error {
	int code;
	char text[508];
};

#ifdef __cplusplus
}
#endif

#endif
