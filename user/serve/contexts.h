/* SPDX-License-Identifier: MIT */
/*
 * What the cloud does for each request about contexts; cloud.h lists them.
 *
 * cloud.c has authenticated the client and routed the request before any of these is called. A
 * request with a body goes begin, body..., finish; any of the three may queue a
 * reply, and the library then calls no further one.
 */
#ifndef LSLM_SERVE_CONTEXTS_H
#define LSLM_SERVE_CONTEXTS_H

#include <microhttpd.h>

#include "serve/body.h"
#include "serve/pubqueue.h"
#include "serve/tenants.h"

struct sender;

/* A model that contexts are computed with. */
struct contexts_model {
	char name[128];
	struct kv_hash fingerprint;
};

/* A map between two of them: contexts of the second are made from what the first computes. */
struct contexts_map {
	char name[128];
	struct kv_hash fingerprint;
	uint32_t from, to; /* of the models */
	bool proven; /* by its evaluation, which `why` is about */
	char why[200];
};

/* What all requests share; constant while the server runs. */
struct contexts {
	struct store *store;
	struct pubqueue *queue; /* NULL: POST is refused */
	const struct contexts_model *models; /* of the queue, the usual one first */
	uint32_t n_models;
	const struct contexts_map *maps;
	uint32_t n_maps;
	uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	uint64_t max_text;
	uint64_t max_upload;
	struct sender *sender; /* NULL: no placement over UDP */
};

enum { SESSION_ID_TEXT = 64 };

/* One request from its first header to its last byte. */
struct request {
	struct contexts *contexts;
	struct MHD_Connection *conn;
	struct kv_hash key; /* of the path, where it has one */
	struct kv_hash owner; /* who asks: a digest of its certificate, zero for all others */
	char id[SESSION_ID_TEXT]; /* of a session or a publish, of the path */
	bool is_tenant; /* what follows is the tenant's: contexts of other salts are not there for it */
	struct tenant_store rights;
	struct body body; /* PUT: counted only */
	struct lslm_error failure; /* why the body is not kept; told in finish */
	unsigned int failure_status; /* 0: by errno */
	uint64_t most; /* PUT: bytes that there is room for */
	int fd; /* PUT: the incoming file, -1 for none */
	char path[PATH_MAX];
};

void request_init(struct request *r, struct contexts *contexts, struct MHD_Connection *conn);
/* Frees what the request holds, and drops an upload that was not finished. */
void request_fini(struct request *r);
/* A piece of a body that is kept, in r->body. What is longer than max is refused in the end. */
enum MHD_Result request_keep(struct request *r, const char *data, size_t size, uint64_t max);
/* The context of r->key, if it is there and this tenant's. The reason why not is in r->failure. */
int request_open(struct request *r, struct lskv **f);
/* Why it failed, to the client. */
enum MHD_Result request_refuse(struct request *r);

enum MHD_Result contexts_list(struct request *r);
enum MHD_Result contexts_remove(struct request *r);
enum MHD_Result contexts_add_pin(struct request *r);
enum MHD_Result contexts_remove_pin(struct request *r);
enum MHD_Result contexts_models(struct request *r);
/* How a publish that nobody waits for is going. */
enum MHD_Result contexts_publish_status(struct request *r);
enum MHD_Result contexts_manifest(struct request *r);
enum MHD_Result contexts_blocks(struct request *r);

/* Queues nothing when the body is welcome. */
enum MHD_Result contexts_publish_begin(struct request *r);
enum MHD_Result contexts_publish_body(struct request *r, const char *data, size_t size);
enum MHD_Result contexts_publish(struct request *r);

enum MHD_Result contexts_upload_begin(struct request *r);
enum MHD_Result contexts_upload_body(struct request *r, const char *data, size_t size);
enum MHD_Result contexts_upload(struct request *r);

#endif
