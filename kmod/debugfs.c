// SPDX-License-Identifier: GPL-2.0-only

#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "buffer.h"
#include "debugfs.h"

static struct dentry *root;

static void show_buffer(struct lslm_buffer *buffer, void *arg)
{
	struct lslm_buffer_state state;

	lslm_buffer_state(buffer, &state);
	seq_printf(arg, "%10llu %14llu %14llu %14llu %10llu %6llu %s %s %s\n", buffer->id,
		   buffer->bytes, state.resident_bytes, state.huge_bytes, state.generation,
		   state.holds, state.flags & LSLM_BUF_HUGE ? "huge" : "-",
		   state.flags & LSLM_BUF_PURGEABLE ? "purgeable" : "needed",
		   state.flags & LSLM_BUF_RETAINED ? "retained" : "lost");
}

static int buffers_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "%10s %14s %14s %14s %10s %6s state\n", "id", "bytes", "resident", "huge",
		   "generation", "holds");
	lslm_buffer_for_each(show_buffer, m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(buffers);

void __init lslm_debugfs_init(void)
{
	root = debugfs_create_dir("lslm", NULL);
	debugfs_create_file("buffers", 0400, root, NULL, &buffers_fops);
}

void lslm_debugfs_exit(void)
{
	debugfs_remove(root);
}
