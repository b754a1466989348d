/* SPDX-License-Identifier: MIT */
/*
 * liblslm: a small language model that answers from a context computed elsewhere.
 *
 *   struct lslm_error err;
 *   lslm_model_open(&model, "edge.gguf", NULL, &err);
 *   lslm_context_attach(&context, model, "https://cloud/v1/contexts/KEY", &copts, &err);
 *   lslm_generate(model, context, "Where is the amber pump?", &gopts, NULL, &err);
 *
 * Conventions. Every call that can fail returns 0 or a negative errno and fills
 * in an lslm_error (NULL: not wanted) with one line for a person. The library never prints,
 * exits, changes signal handlers or reads the environment, except for XDG_CACHE_HOME, XDG_CONFIG_HOME and
 * HOME, under which it keeps fingerprints, manifests and the publisher's key.
 *
 * Option structures begin with their size: declare them with LSLM_OPTS(), which zeroes the
 * rest. Zero means the default everywhere. A newer caller's unknown fields must be zero
 * (-E2BIG otherwise), so programs and library may differ in age.
 *
 * Handles are opaque. A model may serve several contexts, one generation at a time: calls on one model
 * and its contexts must not overlap; a second thread opens a second model (the weights are
 * shared through the page cache). Contexts are closed before their model.
 */
#ifndef LSLM_LSLM_H
#define LSLM_LSLM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LSLM_API __attribute__((visibility("default")))
#else
#define LSLM_API
#endif

/* code: 0 or a negative errno. text: one line, no newline, control characters replaced. */
struct lslm_error {
	int code;
	char text[508];
};

/* Declares an option structure with its size set and the rest zero. */
#define LSLM_OPTS(type, name) struct type name = { .sz = sizeof(struct type) }

/* "0.1.0" */
LSLM_API const char *lslm_version(void);

/* ---- models ---- */

struct lslm_model;

/* How weights get to where they are computed with. */
enum lslm_load {
	/* Mapped if the page cache has them, or can have them in 2 MiB pages, else read; packed at start for want of a packed file. */
	LSLM_LOAD_AUTO = 0,
	LSLM_LOAD_READ = 1, /* O_DIRECT into own 2 MiB pages */
	LSLM_LOAD_MAP = 2, /* shared through the page cache */
	LSLM_LOAD_PACK = 3, /* from the model, at start */
};

struct lslm_model_opts {
	size_t sz;
	uint32_t n_threads; /* 0: the processors this process may use */
	uint32_t n_ctx; /* positions per sequence; 0: what the model was trained for */
	enum lslm_load load;
	const char *packed; /* the packed weights; NULL: where `lslm pack` puts them by itself */
	uint64_t weights_bytes; /* memory that weights may take; 0: most of what is available */
	/*
	 * Non-zero: with LSLM_LOAD_AUTO and no packed weights there, write them beside the work, for the next start, if
	 * they take no more than a quarter of the room that is left; lslm_model_close() waits for the end of it.
	 */
	uint32_t keep_packed;
	/*
	 * Socket of a courier (lslm edge), or NULL: with LSLM_LOAD_AUTO and LSLM_LOAD_READ, weights that it has read for its
	 * engines are used where they stand, read-only; what it has not, or nobody being there, is no error.
	 */
	const char *courier;
};

/*
 * Open a GGUF (llama, qwen2 or qwen3 architecture). The file is mapped; when it changes while the model
 * is open, generating ends with -ENOTRECOVERABLE. Packed weights that were made with `lslm pack` may
 * still be on their way from the disk on return: generating waits for what it needs. -EINVAL for a file that is
 * damaged or not supported, and why; of packed weights that were asked for -ENOENT, -ESTALE (of another
 * model) and -EBADMSG (damaged); -ENOMEM when weights_bytes is too little to work in.
 */
LSLM_API int lslm_model_open(struct lslm_model **out, const char *path,
			     const struct lslm_model_opts *opts, struct lslm_error *err);
LSLM_API void lslm_model_close(struct lslm_model *model);

/* ---- contexts ---- */

struct lslm_context;

/*
 * Where the context's KV comes from. With BOTH it streams in from its tail while this side computes from
 * its head, until the two meet: about as fast as the two together, and a stream that is dead,
 * wrong or slow costs time only, whatever on_miss says. BOTH is the default, 0; that number had the name
 * LSLM_SOURCE_STREAM when streaming was all that 0 could mean, and programs that use it get the
 * default: the same answers, sooner. Whoever wants the stream alone, and errors from it, says STREAM_ONLY.
 */
enum lslm_source {
	LSLM_SOURCE_BOTH = 0,
	LSLM_SOURCE_STREAM = 0, /* the older name of the default */
	LSLM_SOURCE_COMPUTE = 1, /* only its manifest, and compute the KV here */
	LSLM_SOURCE_STREAM_ONLY = 2, /* receive all of it, computing as layers arrive */
};

/* When a stream fails that is needed: of STREAM_ONLY. */

enum lslm_on_miss {
	LSLM_ON_MISS_FAIL = 0, /* an error, no answer */
	LSLM_ON_MISS_COMPUTE = 1, /* compute from the manifest's tokens instead */
};

enum lslm_backend {
	LSLM_BACKEND_AUTO = 0, /* /dev/lslm where it opens, else memfd */
	LSLM_BACKEND_KERNEL = 1,
	LSLM_BACKEND_MEMFD = 2,
};

/*
 * How the KV comes from a URL; the path in the statistics says what became of it, and why. Over links
 * that lose packets UDP is many times faster than HTTPS over TCP with CUBIC, Linux's default; on clean ones
 * it takes 1.1 to 1.3 times as long (docs/benchmarks.md), so it is for those who know their link.
 */
enum lslm_transport {
	LSLM_TRANSPORT_HTTPS = 0,
	LSLM_TRANSPORT_AUTO = 1, /* over UDP, and what that cannot bring over HTTPS */
	LSLM_TRANSPORT_UDP = 2, /* over UDP alone */
};

struct lslm_context_opts {
	size_t sz;
	enum lslm_source source;
	enum lslm_backend backend;
	/* Also when a known context's server cannot be reached; BOTH computes then in any case. */
	enum lslm_on_miss on_miss;
	/*
	 * Publishers to believe: a file with one public key of 64 hexadecimal digits per line, or such
	 * a key itself. NULL: this machine's own publisher only.
	 */
	const char *trust;
	const char *salt; /* 64 hexadecimal digits; NULL: none */
	/* For https: CA file (PEM), bearer token, client certificate and key. NULL: system CAs, none. */
	const char *cacert;
	const char *token;
	const char *cert;
	const char *key;
	uint32_t connect_timeout_ms; /* 0: 5000 */
	uint32_t stall_timeout_ms; /* 0: 10000 */
	/*
	 * Socket of a courier that has the context already, `lslm edge`: this process then holds only read-only
	 * descriptors and no connection to anybody else. With trust NULL what that courier has verified is
	 * believed; of the other fields only source, on_miss, salt and connect_timeout_ms matter. NULL: none.
	 */
	const char *courier;
	/* Directory in which verified stripes of https contexts are kept and looked for; NULL: none. */
	const char *store;
	enum lslm_transport transport;
	/*
	 * File of the cross-model map whose contexts are wanted; NULL: none. A context that was made through another one, or through a map
	 * whose own evaluation does not show it to be better than the model alone, is computed here instead (stats.miss says so), or
	 * refused with -ENOEXEC where only the stream was asked for.
	 */
	const char *map;
	/*
	 * At which the KV may come, finest first: names with commas between them of f16, q8, q4, e and p. Of several
	 * each stripe comes at the finest at which all of a URL's context is here in time, as far as the link
	 * lets it; a file's at the finest. NULL: all that are on offer. Not of a courier's.
	 */
	const char *levels;
	double deadline_s; /* that time, from attaching on; 0: 5 */
	/* File of the model's calibration (lslm calibrate), without which level p cannot come; NULL: none. Not with a courier. */
	const char *calibration;
};

/*
 * Attach a context: a .lskv file or an https URL, or, of a courier's: its key, a beginning of that, its title, or
 * NULL where the courier has only one. Returns once its manifest has arrived and was
 * found to be signed by a trusted publisher and made for this very model; the KV arrives in the
 * background, straight into a buffer, and lslm_generate() computes or waits for what it needs. Nothing
 * is used before its digest was checked.
 *
 * -EKEYREJECTED: signature. -ENOEXEC: another model's context. -EBADMSG: damaged.
 * -ENOENT, -ECONNREFUSED, -ETIMEDOUT, ...: could not be had. -ENXIO, -ENOTUNIQ: a courier has none, or more
 * than one, of that name.
 */
LSLM_API int lslm_context_attach(struct lslm_context **out, struct lslm_model *model,
				 const char *source, const struct lslm_context_opts *opts,
				 struct lslm_error *err);
LSLM_API void lslm_context_close(struct lslm_context *context);

/* ---- generation ---- */

struct lslm_generate_opts {
	size_t sz;
	uint32_t n_predict; /* tokens at most; 0: 256 */
	float temperature; /* 0: greedy */
	uint32_t top_k; /* 0: all */
	float top_p; /* 0: all */
	float min_p; /* 0: all */
	float repeat_penalty; /* 0: none */
	uint32_t repeat_last_n; /* 0: 64 */
	uint64_t seed;
	int raw; /* prompt is continued as it is; 0: it is a user's message to a chat model */
	/*
	 * Called with each piece of the answer as soon as it exists: any bytes, a character may be
	 * split over two calls. Non-zero ends the generation. NULL: none.
	 */
	int (*on_piece)(void *arg, const char *piece, size_t len);
	void *arg;
};

struct lslm_generate_stats {
	size_t sz; /* set by the caller: at most so much is written */
	uint32_t context_tokens; /* of the attached context */
	uint32_t shared_tokens; /* of those, read from the streamed buffer: the tail */
	uint32_t computed_tokens; /* prefilled in this call: what of the context was not there, and the prompt */
	uint32_t generated_tokens;
	double ttft_s; /* from lslm_context_attach() or, later and without one, from this call, to the first token */
	double decode_s; /* of the tokens after the first */
	uint64_t bytes_received; /* of the context so far, from network or file */
	char backend[32]; /* where the context's KV is: "kernel", "memfd", "private" */
	char path[64]; /* how it came: "https", "udp (kernel)", "file (io_uring)", ..., "none" */
	char miss[508]; /* what was wrong with a stream that was asked for, so that more was computed; or "" */
	/*
	 * The context in stripes of 64 tokens: head computed here (by this call or an earlier one), tail
	 * streamed. They met at token met_token; 0 with all streamed. What of the context fills no stripe is
	 * always computed.
	 */
	uint32_t computed_stripes;
	uint32_t streamed_stripes;
	uint32_t met_token;
	/*
	 * From the same moment as ttft_s until all of the context's stripes could be read: computed, streamed or both.
	 * Where a stream alone brings them a pass runs while they arrive, and this is its end. 0 without a context.
	 */
	double context_ready_s;
	double weights_s; /* from opening until all weights that stay were in memory; 0: not yet */
	double weights_waited_s; /* that generating has waited for weights since the model was opened */
	char weights[512]; /* where weights come from, and why from there */
	char compute[192]; /* the kernels that multiply with them, and why these */
	/* At which levels the context's blocks came so far, and how many at each: "f16 36, q4 12"; "none". */
	char levels[96];
};

/*
 * Answer a prompt, after a context or (NULL) without one. stats may be NULL.
 * -EIO or -ESTALE when the context did not arrive in full, with STREAM_ONLY and on_miss FAIL; -E2BIG when context and
 * prompt do not fit n_ctx.
 */
LSLM_API int lslm_generate(struct lslm_model *model, struct lslm_context *context,
			   const char *prompt, const struct lslm_generate_opts *opts,
			   struct lslm_generate_stats *stats, struct lslm_error *err);

#ifdef __cplusplus
}
#endif

#endif
