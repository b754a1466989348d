// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "cli/commands.h"
#include "codec/calibration.h"
#include "codec/calibration_file.h"
#include "compute/kvbf16.h"
#include "compute/matmul.h"
#include "engine/matrices.h"
#include "kv/buffer.h"
#include "kv/fingerprint.h"
#include "kv/lskv.h"
#include "kv/publisher.h"
#include "model/model.h"

struct values {
	bool tensors, tokens, metadata, verify;
};

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "metadata", 0, OPT_FLAG, AT(metadata), NULL, "of a model: list every key" },
	{ "tensors", 0, OPT_FLAG, AT(tensors), NULL, "of a model: list every tensor" },
	{ "tokens", 0, OPT_FLAG, AT(tokens), NULL, "of a context: print its token ids" },
	{ "verify", 0, OPT_FLAG, AT(verify), NULL,
	  "of a context: check every block's digest; of a model: the sums of its packed weights" },
	{ NULL },
};

static void defaults(void *values)
{
	memset(values, 0, sizeof(struct values));
}

static void hash_line(const char *name, const struct kv_hash *h)
{
	char hex[KV_HASH_TEXT];

	kv_hash_format(h, hex);
	printf("%-12s %s\n", name, hex);
}

static void list_tensors(const struct gguf *g)
{
	for (size_t i = 0; i < gguf_n_tensors(g); i++) {
		const struct gguf_tensor *t = gguf_tensor(g, i);

		printf("tensor       %-28s %-5s %" PRIu64 " x %" PRIu64 "\n", t->name,
		       gguf_type_name(t->type), t->ne[0], t->ne[1]);
	}
}

static void list_metadata(const struct gguf *g)
{
	char text[120];

	for (size_t i = 0; i < gguf_n_kv(g); i++) {
		const struct gguf_str key = gguf_kv_key(g, i);

		gguf_kv_text(g, i, text, sizeof(text));
		printf("key          %.*s = %s\n", (int)key.len, key.ptr, text);
	}
}

/* Bytes of tensors by type, largest share first is not worth a sort: in order of the type. */
static void list_types(const struct gguf *g)
{
	for (int type = 0; type <= GGUF_BF16; type++) {
		uint64_t bytes = 0;
		size_t n = 0;

		for (size_t i = 0; i < gguf_n_tensors(g); i++)
			if ((int)gguf_tensor(g, i)->type == type) {
				bytes += gguf_tensor(g, i)->size;
				n++;
			}
		if (n)
			printf("type         %-5s %zu tensors, %.1f MB\n",
			       gguf_type_name((enum gguf_type)type), n, (double)bytes / 1e6);
	}
}

static int inspect_model(const struct values *v, const char *path, struct lslm_error *err)
{
	const struct model_params *p;
	struct kv_hash fingerprint;
	char weights[600];
	struct model *m;
	bool cached;
	int rc;

	rc = model_open(&m, path, err);
	if (rc)
		return rc;
	p = &m->params;
	printf("model        %s\narchitecture %s, GGUF v%u, %.1f MB, %.2f M parameters\n", path,
	       p->arch, gguf_version(m->gguf), (double)gguf_file_size(m->gguf) / 1e6,
	       (double)model_n_params(m) / 1e6);
	printf("sizes        %u layers, width %u, feed-forward %u, %u heads of %u, %u key/value "
	       "heads\n",
	       p->n_layer, p->n_embd, p->n_ff, p->n_head, p->head_dim, p->n_head_kv);
	printf("positions    %u trained, RoPE base %g, %u dimensions as %s, scale %g%s\n",
	       p->n_ctx_train, (double)p->rope_base, p->rope_dims,
	       p->rope_layout == ROPE_PAIRS ? "pairs" : "halves", (double)p->rope_scale,
	       m->rope_factors ? ", with factors" : "");
	printf("tokenizer    %s%s%s, %u tokens, chat template %s\n", tokenizer_kind(m->tokenizer),
	       *tokenizer_pre(m->tokenizer) ? "/" : "", tokenizer_pre(m->tokenizer),
	       tokenizer_n_vocab(m->tokenizer), chat_name(m->chat));
	printf("KV           %zu bytes per token at f16\n",
	       (size_t)p->n_layer * 2 * p->n_head_kv * p->head_dim * sizeof(uint16_t));
	list_types(m->gguf);
	rc = matrices_foresee(m, v->verify, weights, sizeof(weights), err);
	if (rc) {
		model_close(m);
		return rc;
	}
	printf("weights      %s\n", weights);
	rc = fingerprint_model(m->gguf, &fingerprint, &cached, err);
	if (!rc)
		hash_line("fingerprint", &fingerprint);
	printf("compute      %s, contexts of f16 %s\nbuffers      %s\n", matmul_describe(),
	       kvbf16_describe(p->head_dim), buffer_backend_reason());
	if (v->metadata)
		list_metadata(m->gguf);
	if (v->tensors)
		list_tensors(m->gguf);
	model_close(m);
	return rc;
}

/* Digests of every unit of a level. */
static int verify_level(const struct lskv *f, const struct manifest_level *lv, uint32_t *bad,
			struct lslm_error *err)
{
	const struct manifest *m = lskv_manifest(f);

	for (uint32_t s = 0; s < m->n_stripes; s++)
		for (uint32_t u = 0; u < lv->n_units; u++) {
			struct kv_hash got;
			int rc = lskv_unit_digest(f, lv, s, u, &got);

			if (rc)
				return error_sys(err, rc, "cannot read block %u of stripe %u", u,
						 s);
			*bad += !kv_hash_equal(&got, manifest_digest(m, lv, s, u));
		}
	return 0;
}

static int verify(const struct lskv *f, struct lslm_error *err)
{
	const struct manifest *m = lskv_manifest(f);
	uint32_t bad = 0, n = 0;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < m->n_levels; i++) {
		n += m->n_stripes * m->levels[i].n_units;
		rc = verify_level(f, &m->levels[i], &bad, err);
	}
	if (rc)
		return rc;
	printf("digests      %u of %u blocks are right\n", n - bad, n);
	return bad ? error_set(err, -EBADMSG, "%u of %u blocks are damaged; publish it again", bad,
			       n) :
		     0;
}

/* With all that is sent for it: its share of the manifest, digests above all, too. */
static void print_level(const struct manifest *m, const struct manifest_level *lv)
{
	const uint32_t hidden = m->geo.hidden, layers = m->geo.n_layer - (hidden != 0);
	const double values = ((double)kv_channels(&m->geo) * 2 * layers + hidden) *
			      KV_BLOCK_TOKENS * m->n_stripes;
	uint64_t bytes = 0;

	for (uint32_t s = 0; s < m->n_stripes; s++)
		bytes += lv->length[s];
	printf("level        %-4s %" PRIu64 " bytes", kv_level_name(lv->level), bytes);
	if (kv_level_is_plain(lv->level))
		printf(", %zu per block", kv_block_bytes(&m->geo, lv->level));
	if (m->n_stripes)
		printf(", %.3f bits per value, %.3f with its part of the manifest",
		       8 * (double)bytes / values,
		       8 * (double)(bytes + manifest_level_bytes(m, lv)) / values);
	putchar('\n');
	if (!kv_hash_is_zero(&lv->calibration))
		hash_line("calibration", &lv->calibration);
}

static void print_context(const struct lskv *f, const char *path)
{
	const struct manifest *m = lskv_manifest(f);
	char pub[PUBLISHER_TEXT], when[32], worth[200];
	const time_t created = (time_t)m->created;
	struct tm tm;

	publisher_key_text(m->publisher, pub);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&created, &tm));
	printf("context      %s\ntitle        %s\ncreated      %s\n", path, m->title, when);
	printf("tokens       %u in %u stripes of %d, %u left over\n", m->n_tokens, m->n_stripes,
	       KV_BLOCK_TOKENS, m->n_tokens % KV_BLOCK_TOKENS);
	printf("sizes        %u layers, %u key/value heads of %u\n", m->model_geo.n_layer,
	       m->geo.n_head_kv, m->geo.head_dim);
	if (!kv_run_is_none(&m->run))
		printf("run          layers %u to %u are computed where it is used, from %s\n",
		       m->run.first, m->run.end - 1,
		       m->run.hidden ? "a hidden state in E blocks" : "the tokens");
	for (uint32_t i = 0; i < m->n_levels; i++)
		print_level(m, &m->levels[i]);
	hash_line("key", &m->key);
	hash_line("model", &m->identity.model);
	hash_line("tokenizer", &m->identity.tokenizer);
	hash_line("rope", &m->identity.rope);
	hash_line("map", &m->identity.map);
	if (m->proof.metric) {
		proof_holds(&m->proof, worth, sizeof(worth));
		printf("evaluation   %s\n", worth);
	}
	hash_line("salt", &m->identity.salt);
	printf("%-12s %s\n", "publisher", pub);
}

static int inspect_context(const struct values *v, const char *path, struct lslm_error *err)
{
	const struct manifest *m;
	const void *data;
	struct lskv *f;
	size_t size;
	int rc;

	rc = lskv_open(&f, path, err);
	if (rc)
		return rc;
	m = lskv_manifest(f);
	print_context(f, path);
	data = lskv_manifest_data(f, &size);
	rc = manifest_verify(data, size, &m->publisher, 1, err);
	printf("signature    %s\n", rc ? "WRONG" : "right, by the publisher named above");
	if (v->tokens) {
		printf("ids         ");
		for (uint32_t i = 0; i < m->n_tokens; i++)
			printf(" %d", m->tokens[i]);
		putchar('\n');
	}
	if (!rc && v->verify)
		rc = verify(f, err);
	lskv_close(f);
	return rc;
}

static int inspect_calibration(const char *path, struct lslm_error *err)
{
	struct calibration *cal;
	uint32_t kept[2] = { 0 };
	int rc = calibration_open(&cal, path, err);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < 2 * cal->geo.n_layer; i++)
		for (uint32_t g = 0; g < cal->n_groups; g++)
			kept[i % 2] += cal->halves[i].groups[g].kept;
	printf("calibration  %s, %zu bytes, for level p\n", path, cal->size);
	printf("sizes        %u layers, %u key/value heads of %u, in %u groups\n", cal->geo.n_layer,
	       cal->geo.n_head_kv, cal->geo.head_dim, cal->n_groups);
	printf("components   %u of keys, %u of values\ntokens       %u\n", kept[0], kept[1],
	       cal->n_tokens);
	hash_line("model", &cal->model);
	hash_line("fingerprint", &cal->fingerprint);
	calibration_free(cal);
	return 0;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	char magic[8] = "";
	FILE *f = fopen(words[0], "rb");

	if (!f) {
		error_sys(err, -errno, "%s: cannot open", words[0]);
		return EXIT_FAILED;
	}
	if (fread(magic, 1, sizeof(magic), f) != sizeof(magic))
		memset(magic, 0, sizeof(magic));
	fclose(f);
	if (!memcmp(magic, CALIBRATION_MAGIC, sizeof(magic)))
		return inspect_calibration(words[0], err) ? EXIT_FAILED : EXIT_DONE;
	if (!memcmp(magic, "GGUF", 4))
		return inspect_model(values, words[0], err) ? EXIT_FAILED : EXIT_DONE;
	return inspect_context(values, words[0], err) ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_inspect = {
	.name = "inspect",
	.summary = "explain a model (.gguf), a context (.lskv) or a calibration",
	.words = "FILE",
	.min_words = 1,
	.max_words = 1,
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
};
