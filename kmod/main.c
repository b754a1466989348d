// SPDX-License-Identifier: GPL-2.0-only

#include <linux/init.h>
#include <linux/module.h>

#include "backing.h"
#include "debugfs.h"
#include "device.h"
#include "kfunc.h"
#include "shrinker.h"
#include "version.h"

static int __init lslm_init(void)
{
	int ret;

	ret = lslm_backing_init();
	if (ret)
		return ret;
	ret = lslm_shrinker_init();
	if (ret)
		goto err_backing;
	lslm_kfunc_init();
	lslm_debugfs_init();
	ret = lslm_device_init();
	if (ret)
		goto err_debugfs;
	return 0;

err_debugfs:
	lslm_debugfs_exit();
	lslm_shrinker_exit();
err_backing:
	lslm_backing_exit();
	return ret;
}

static void __exit lslm_exit(void)
{
	lslm_device_exit();
	lslm_debugfs_exit();
	lslm_shrinker_exit();
	lslm_backing_exit();
}

module_init(lslm_init);
module_exit(lslm_exit);
MODULE_LICENSE("GPL");
MODULE_VERSION(LSLM_VERSION_TEXT);
MODULE_DESCRIPTION("Shared memory for attention state");
