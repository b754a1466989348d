// SPDX-License-Identifier: GPL-2.0-only

#include <linux/module.h>

#include "backing.h"
#include "feature.h"
#include "shrinker.h"

/* Whether the kernel accepted it, /sys/kernel/btf/lslm tells; modules cannot ask. */
static enum lslm_off btf_off(void)
{
#ifdef CONFIG_DEBUG_INFO_BTF_MODULES
	return THIS_MODULE->btf_data_size ? LSLM_OFF_UNKNOWN : LSLM_OFF_NO_BTF;
#else
	return LSLM_OFF_KERNEL;
#endif
}

enum lslm_off lslm_feature_off(enum lslm_feature feature)
{
	switch (feature) {
	case LSLM_FEATURE_SHRINKER:
		return lslm_shrinker_on() ? LSLM_OFF_UNKNOWN : LSLM_OFF_PARAM;
	case LSLM_FEATURE_HUGE:
		return lslm_backing_huge_off();
	case LSLM_FEATURE_BTF:
		return btf_off();
	default:
		return LSLM_OFF_UNKNOWN;
	}
}
