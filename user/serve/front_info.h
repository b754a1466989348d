/* SPDX-License-Identifier: MIT */
/* What the front tells of itself: health, models, metrics. */
#ifndef LSLM_SERVE_FRONT_INFO_H
#define LSLM_SERVE_FRONT_INFO_H

#include "serve/visit.h"

enum MHD_Result front_health(struct visit *v);
/* 503 while it drains. */
enum MHD_Result front_ready(struct visit *v);
enum MHD_Result front_metrics(struct visit *v);
enum MHD_Result front_models(struct visit *v);
enum MHD_Result front_one_model(struct visit *v);

#endif
