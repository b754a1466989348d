/* SPDX-License-Identifier: MIT */
/*
 * How the HTTP servers are started: with the same versions of TLS, and silent. The cloud and the service for
 * peers send large bodies to few clients and have a thread for each; the front answers many and does not.
 */
#ifndef LSLM_SERVE_DAEMON_H
#define LSLM_SERVE_DAEMON_H

#include <microhttpd.h>
#include <stdarg.h>

#include "serve/tls.h"

enum { DAEMON_TLS_ITEMS = 5 };

/* Options for MHD_OPTION_ARRAY; the files outlive the daemon. Clients are asked for a certificate where there is a CA. */
void daemon_tls(const struct tls_files *tls, struct MHD_OptionItem items[DAEMON_TLS_ITEMS]);

/* A MHD_OPTION_EXTERNAL_LOGGER: the library's own complaints are about single connections and may quote them. */
void daemon_silence(void *arg, const char *fmt, va_list ap);

/* A thread for each connection. */
struct daemon_opts {
	int fd; /* it listens; the daemon's once it has started */
	const struct tls_files *tls;
	unsigned int max_connections;
	unsigned int idle_s;
	MHD_AccessHandlerCallback handler;
	MHD_RequestCompletedCallback completed; /* may be NULL */
	MHD_NotifyConnectionCallback connection;
	void *arg; /* of all three */
};

/* NULL: the library does not say why. */
struct MHD_Daemon *daemon_start(const struct daemon_opts *o);

#endif
