/* SPDX-License-Identifier: MIT */
/* A directory of the test's own, with the certificates of a server on loopback and of its clients. */
#ifndef LSLM_TESTS_TLS_DIR_H
#define LSLM_TESTS_TLS_DIR_H

#include "unit/unit.h"

#define TOKEN "correct-horse"

static char dir[] = "/tmp/lslm-test-XXXXXX";
static char cacert[64], cert[64], key[64], client_cert[64], client_key[64];

static inline int tls_dir_make(void)
{
	char command[128];

	if (!mkdtemp(dir))
		return -1;
	snprintf(cacert, sizeof(cacert), "%s/ca.pem", dir);
	snprintf(cert, sizeof(cert), "%s/server.pem", dir);
	snprintf(key, sizeof(key), "%s/server.key", dir);
	snprintf(client_cert, sizeof(client_cert), "%s/client.pem", dir);
	snprintf(client_key, sizeof(client_key), "%s/client.key", dir);
	snprintf(command, sizeof(command), "scripts/certs %s", dir);
	return system(command);
}

static inline int tls_dir_remove(void)
{
	return remove_tree(dir);
}

#endif
