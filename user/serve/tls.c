// SPDX-License-Identifier: MIT
#include "serve/tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { TLS_MAX_PEM = 1 << 20 };

static gnutls_datum_t datum(char *text)
{
	return (gnutls_datum_t){ (unsigned char *)text, strlen(text) };
}

/* Also finds a key that does not belong to the certificate. */
static int check(const struct tls_files *t, const char *cert, const char *key,
		 const char *client_ca, struct lslm_error *err)
{
	gnutls_certificate_credentials_t cred;
	gnutls_datum_t c, k, ca;
	int ret = 0;

	if (gnutls_certificate_allocate_credentials(&cred) < 0)
		return error_sys(err, -ENOMEM, "TLS");
	if (cert) {
		c = datum(t->cert);
		k = datum(t->key);
		ret = gnutls_certificate_set_x509_key_mem(cred, &c, &k, GNUTLS_X509_FMT_PEM);
	}
	if (ret < 0) {
		ret = error_set(err, -EINVAL,
				"%s, %s: not a certificate and its key in PEM form (%s)", cert, key,
				gnutls_strerror(ret));
	} else if (client_ca) {
		ca = datum(t->client_ca);
		ret = gnutls_certificate_set_x509_trust_mem(cred, &ca, GNUTLS_X509_FMT_PEM);
		/* The number of certificates found. */
		ret = ret > 0 ? 0 :
				error_set(err, -EINVAL, "%s: holds no CA certificate in PEM form",
					  client_ca);
	}
	gnutls_certificate_free_credentials(cred);
	return ret;
}

int tls_load(struct tls_files *t, const char *cert, const char *key, const char *client_ca,
	     struct lslm_error *err)
{
	size_t size;
	int ret = 0;

	*t = (struct tls_files){ 0 };
	if (cert)
		ret = file_read(cert, TLS_MAX_PEM, &t->cert, &size, err);
	if (!ret && cert)
		ret = file_read(key, TLS_MAX_PEM, &t->key, &size, err);
	if (!ret && client_ca)
		ret = file_read(client_ca, TLS_MAX_PEM, &t->client_ca, &size, err);
	if (!ret)
		ret = check(t, cert, key, client_ca, err);
	if (ret < 0)
		tls_free(t);
	return ret;
}

void tls_free(struct tls_files *t)
{
	if (t->key)
		explicit_bzero(t->key, strlen(t->key));
	free(t->cert);
	free(t->key);
	free(t->client_ca);
	*t = (struct tls_files){ 0 };
}

int tls_check(const char *cert, const char *key, const char *ca, struct lslm_error *err)
{
	struct tls_files t;
	const int ret = tls_load(&t, cert, key ? key : cert, ca, err);

	tls_free(&t);
	return ret;
}

bool tls_client_trusted(void *session)
{
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT,
	};
	unsigned int status;

	return gnutls_certificate_verify_peers(session, &purpose, 1, &status) == 0 && status == 0;
}

bool tls_client_digest(void *session, struct kv_hash *digest)
{
	unsigned int n = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);

	if (!chain || !n)
		return false;
	*digest = kv_digest(chain[0].data, chain[0].size);
	return true;
}
