/* SPDX-License-Identifier: GPL-2.0-only */
/* /dev/lslm: an open of it is a client (client.h), which asks questions and makes buffers. */
#ifndef LSLM_DEVICE_H
#define LSLM_DEVICE_H

/* From init on user space can come in; from exit on it cannot, nor is anybody inside. */
int lslm_device_init(void);
void lslm_device_exit(void);

#endif /* LSLM_DEVICE_H */
