// SPDX-License-Identifier: MIT
#include "base/device.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int device;
static char reason[128];
static struct lslm_get_info info;
static pthread_once_t once = PTHREAD_ONCE_INIT;

int device_call(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

static void open_device(void)
{
	struct lslm_get_info answer = { .size = sizeof(answer) };
	int ret = 0;

	device = open(LSLM_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		ret = -errno;
	else
		ret = device_call(device, LSLM_GET_INFO, &answer);
	if (!ret) {
		info = answer;
		snprintf(reason, sizeof(reason), "%s, module %u.%u.%u", LSLM_DEVICE,
			 info.out_version[0], info.out_version[1], info.out_version[2]);
		return;
	}
	snprintf(reason, sizeof(reason), "%s: %s%s", LSLM_DEVICE, strerror(-ret),
		 ret == -ENOENT ? " (the module is not loaded)" : "");
	if (device >= 0)
		close(device);
	device = ret;
}

int device_get(void)
{
	pthread_once(&once, open_device);
	return device;
}

const char *device_reason(void)
{
	pthread_once(&once, open_device);
	return reason;
}

const struct lslm_get_info *device_info(void)
{
	pthread_once(&once, open_device);
	return &info;
}

const char *device_off_reason(enum lslm_feature feature)
{
	switch (device_info()->out_off[feature]) {
	case LSLM_OFF_PARAM:
		return "turned off by a parameter of the module";
	case LSLM_OFF_KERNEL:
		return "this kernel was built without what it takes";
	case LSLM_OFF_MOUNT:
		return "the module could not mount its tmpfs with huge pages";
	case LSLM_OFF_NO_BTF:
		return "the module was built without BTF";
	default:
		return "the module does not have it";
	}
}
