/* SPDX-License-Identifier: MIT */
/* A matrix of numbers from 0 to 1 as a picture: the similarity of two models' layers. */
#ifndef LSLM_CLI_HEAT_MAP_H
#define LSLM_CLI_HEAT_MAP_H

#include <stdint.h>

#include "base/error.h"

/*
 * A PNG with a square for each value, row 0 at the bottom, dark for 0 and light for 1. values: [rows][columns]; mark: [columns], in each
 * column the row with a frame around it. -EINVAL for more than a few hundred rows or columns.
 */
int heat_map_write(const char *path, const double *values, uint32_t rows, uint32_t columns,
		   const uint32_t *mark, struct lslm_error *err);

#endif
