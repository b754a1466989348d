// SPDX-License-Identifier: MIT
#include "serve/daemon.h"

void daemon_tls(const struct tls_files *tls, struct MHD_OptionItem items[DAEMON_TLS_ITEMS])
{
	int n = 0;

	items[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_CERT, 0, tls->cert };
	items[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_KEY, 0, tls->key };
	items[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_PRIORITIES, 0,
					      "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" };
	if (tls->client_ca)
		items[n++] =
			(struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_TRUST, 0, tls->client_ca };
	items[n] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
}

void daemon_silence(void *arg, const char *fmt, va_list ap)
{
}

struct MHD_Daemon *daemon_start(const struct daemon_opts *o)
{
	const unsigned int flags = MHD_USE_TLS | MHD_USE_INTERNAL_POLLING_THREAD |
				   MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC |
				   MHD_USE_ERROR_LOG;
	struct MHD_OptionItem tls[DAEMON_TLS_ITEMS];

	daemon_tls(o->tls, tls);
	return MHD_start_daemon(flags, 0, NULL, NULL, o->handler, o->arg,
				MHD_OPTION_EXTERNAL_LOGGER, daemon_silence, NULL,
				MHD_OPTION_LISTEN_SOCKET, o->fd, MHD_OPTION_CONNECTION_LIMIT,
				o->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, o->idle_s,
				MHD_OPTION_NOTIFY_COMPLETED, o->completed, o->arg,
				MHD_OPTION_NOTIFY_CONNECTION, o->connection, o->arg,
				MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
}
