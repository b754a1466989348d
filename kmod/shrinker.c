// SPDX-License-Identifier: GPL-2.0-only

#include <linux/module.h>
#include <linux/shrinker.h>

#include "buffer.h"
#include "shrinker.h"

static bool shrinker = true;
module_param(shrinker, bool, 0444);
MODULE_PARM_DESC(shrinker, "purge purgeable buffers under memory pressure (default: yes)");

static struct shrinker *registered;

static unsigned long count_idle(struct shrinker *unused, struct shrink_control *sc)
{
	return lslm_buffer_idle_pages() ?: SHRINK_EMPTY;
}

static unsigned long purge_idle(struct shrinker *unused, struct shrink_control *sc)
{
	unsigned long freed;

	/* Freeing an inode's pages may wait for a page that a file system has locked. */
	if (!(sc->gfp_mask & __GFP_FS))
		return SHRINK_STOP;
	freed = lslm_buffer_purge_idle(sc->nr_to_scan);
	sc->nr_scanned = max(freed, sc->nr_to_scan);
	return freed ?: SHRINK_STOP;
}

int __init lslm_shrinker_init(void)
{
	int ret;

	if (!shrinker)
		return 0;
	registered = shrinker_alloc(0, "lslm");
	if (!registered)
		return -ENOMEM;
	registered->count_objects = count_idle;
	registered->scan_objects = purge_idle;
	ret = compat_shrinker_register(registered);
	if (ret)
		registered = NULL;
	return ret;
}

void lslm_shrinker_exit(void)
{
	if (registered)
		shrinker_free(registered);
}

bool lslm_shrinker_on(void)
{
	return registered;
}
