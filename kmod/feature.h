/* SPDX-License-Identifier: GPL-2.0-only */
/* Which features are on, and why not, behind LSLM_GET_INFO. Settled once the module is loaded. */
#ifndef LSLM_FEATURE_H
#define LSLM_FEATURE_H

#include <linux/lslm.h>
#include <linux/types.h>

/* LSLM_OFF_UNKNOWN when it is on. */
enum lslm_off lslm_feature_off(enum lslm_feature feature);

static inline bool lslm_feature_on(enum lslm_feature feature)
{
	return lslm_feature_off(feature) == LSLM_OFF_UNKNOWN;
}

#endif /* LSLM_FEATURE_H */
