/* SPDX-License-Identifier: MIT */
/* What a supervisor's engines have been asked, from the tally (serve/tally.h) to whoever asks the courier for it. */
#ifndef LSLM_SERVE_SERVING_H
#define LSLM_SERVE_SERVING_H

#include "net/courier_wire.h"
#include "serve/tally.h"

/* All models together. The head stays as it is. */
void serving_fill(const struct tally_page *from, struct courier_serving *to);

#endif
