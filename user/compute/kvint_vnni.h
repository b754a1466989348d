/* SPDX-License-Identifier: MIT */
/* Whether the functions of kvint.h that need integers can be called at all. */
#ifndef LSLM_COMPUTE_KVINT_VNNI_H
#define LSLM_COMPUTE_KVINT_VNNI_H

#include <stdbool.h>

bool kvint_has_vnni(void);

#endif
