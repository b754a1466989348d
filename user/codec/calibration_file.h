/* SPDX-License-Identifier: MIT */
/* The file of a calibration, between its writer and its reader; docs/protocol.md has the table. */
#ifndef LSLM_CODEC_CALIBRATION_FILE_H
#define LSLM_CODEC_CALIBRATION_FILE_H

#define CALIBRATION_MAGIC "LSLMCALB"

enum {
	CALIBRATION_VERSION = 1,
	CALIBRATION_HEADER = 72,
	CALIBRATION_MAX_BYTES = 1 << 30,
};

/* The least unit of a half: coordinates are divided by it, and stay finite. */
#define CALIBRATION_LEAST_UNIT 0x1p-14f

#endif
