// SPDX-License-Identifier: GPL-2.0-only

#include "backing.h"
#include "feature.h"
#include "kfunc.h"
#include "session.h"
#include "shrinker.h"

enum lslm_off lslm_feature_off(enum lslm_feature feature)
{
	switch (feature) {
	case LSLM_FEATURE_SHRINKER:
		return lslm_shrinker_on() ? LSLM_OFF_UNKNOWN : LSLM_OFF_PARAM;
	case LSLM_FEATURE_HUGE:
		return lslm_backing_huge_off();
	case LSLM_FEATURE_BTF:
		return lslm_kfunc_btf_off();
	case LSLM_FEATURE_PLACE_XDP:
		return lslm_kfunc_xdp_off();
	case LSLM_FEATURE_PLACE_TC:
		return lslm_kfunc_tc_off();
	case LSLM_FEATURE_PLAIN:
		return lslm_session_plain_on() ? LSLM_OFF_UNKNOWN : LSLM_OFF_PARAM;
	default:
		return LSLM_OFF_UNKNOWN;
	}
}
