/* SPDX-License-Identifier: MIT */
/*
 * A server's certificate, key and the CA of its clients: PEM files, checked before
 * they are used, because the HTTP library would only say that it cannot start.
 */
#ifndef LSLM_SERVE_TLS_H
#define LSLM_SERVE_TLS_H

#include <stdbool.h>

#include "base/error.h"
#include "kv/key.h"

struct tls_files {
	char *cert; /* NUL-terminated PEM, owned here */
	char *key;
	char *client_ca; /* NULL: clients need no certificate */
};

/* cert and key may both be NULL, and so may client_ca. On failure nothing is left to free. */
int tls_load(struct tls_files *t, const char *cert, const char *key, const char *client_ca,
	     struct lslm_error *err);
/* Wipes the key. */
void tls_free(struct tls_files *t);
/* Of what a client shows and believes (net/http_client.h), and each may be NULL: key, as its key is in cert then. Only looks. */
int tls_check(const char *cert, const char *key, const char *ca, struct lslm_error *err);

/* The other side of this gnutls_session_t has shown a certificate that its CA vouches for. */
bool tls_client_trusted(void *session);
/* A digest of that certificate; false: it showed none. */
bool tls_client_digest(void *session, struct kv_hash *digest);

#endif
