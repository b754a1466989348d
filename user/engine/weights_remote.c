// SPDX-License-Identifier: MIT
#include "engine/weights_remote.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "net/courier_client.h"

/* More models than an edge has; a number that it does not know is refused like weights that it has not. */
enum { MODELS = 16 };

static bool is_over(int code)
{
	return code == -EPIPE || code == -ECONNRESET || code == -EPROTO;
}

static int look(struct weights_remote *r, struct courier_client *c, const struct kv_hash *key,
		int fds[COURIER_WIRE_WEIGHTS_FDS], struct lslm_error *err)
{
	struct courier_weights w;

	for (uint32_t index = 0; index < MODELS; index++) {
		const int ret = courier_client_weights(c, index, &w, fds, err);

		if (is_over(ret))
			return ret;
		r->bad |= ret == -EBADMSG;
		if (ret)
			continue;
		if (!memcmp(w.key, key->b, sizeof(w.key)))
			return 0;
		for (int i = 0; i < COURIER_WIRE_WEIGHTS_FDS; i++)
			close(fds[i]);
	}
	return error_set(err, r->bad ? -EBADMSG : -ENOENT, "%s: has read no such weights",
			 r->socket);
}

int weights_remote_find(void *arg, const struct kv_hash *key, int *memory, int *page,
			struct lslm_error *err)
{
	struct weights_remote *r = arg;
	struct courier_client *c;
	int fds[COURIER_WIRE_WEIGHTS_FDS];
	int ret;

	if (courier_client_open(&c, r->socket, 0, err))
		return -ENOTCONN;
	ret = look(r, c, key, fds, err);
	courier_client_close(c);
	if (ret)
		return ret;
	*memory = fds[0];
	*page = fds[1];
	return 0;
}
