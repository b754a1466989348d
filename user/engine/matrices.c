// SPDX-License-Identifier: MIT
#include "engine/matrices.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/residency.h"
#include "engine/loader.h"
#include "engine/packfile.h"
#include "engine/packkeeper.h"
#include "engine/weights_gate.h"
#include "kv/buffer.h"
#include "kv/control.h"
#include "kv/hugemem.h"
#include "lslm/page.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

enum {
	/* Two slots are enough to read one layer while another computes; small layers get more. */
	MIN_SLOTS = 2,
	SLOTS_BYTES = 32 << 20,
	/* For a section of another process's: more than the slowest disk takes for the largest. */
	SHARED_WAIT_MS = 120000,
};

struct matrices {
	const struct model *model;
	uint32_t n; /* matrices */
	struct weight *w; /* [n]: the layers' and the output */
	enum matrices_load load; /* never AUTO */
	const char *why; /* that, and not another */
	struct lslm_error no_file; /* code 0: there is one */
	struct stamp source; /* of the GGUF */
	bool has_source;
	struct packfile_plan plan;
	struct packfile file;
	struct hugemem memory;
	const struct matrices_share *share; /* the reader's; NULL: none */
	uint8_t have[PACKFILE_MAX_SECTIONS]; /* sections that were in that memory before */
	/* A user's, of the process that reads. */
	struct buffer *shared;
	struct control *page;
	double shared_waited;
	const uint8_t *mapping;
	void *room; /* in which the mapping lies */
	uint64_t kept[PACKFILE_MAX_SECTIONS]; /* places in memory */
	uint64_t slots, slot_bytes;
	struct weights_gate gate;
	struct loader *loader;
	struct packkeeper *keeper;
	double seconds; /* of packing at start */
};

/* --- which matrices --- */

static int list(struct matrices *m, struct lslm_error *err)
{
	const uint32_t n_layer = m->model->params.n_layer;
	struct matrices_layer *layers;

	m->n = n_layer * MATRICES_PER_LAYER + 1;
	m->w = calloc(m->n, sizeof(*m->w));
	if (!m->w)
		return error_set(err, -ENOMEM, "out of memory");
	layers = (struct matrices_layer *)m->w;
	for (uint32_t l = 0; l < n_layer; l++) {
		const struct model_layer *y = &m->model->layers[l];

		layers[l] = (struct matrices_layer){
			.wq = weight_of(y->wq),
			.wk = weight_of(y->wk),
			.wv = weight_of(y->wv),
			.wo = weight_of(y->wo),
			.gate = weight_of(y->gate),
			.up = weight_of(y->up),
			.down = weight_of(y->down),
		};
	}
	m->w[m->n - 1] = weight_of(m->model->output);
	return packfile_plan_make(&m->plan, m->w, m->n, MATRICES_PER_LAYER, err);
}

static struct matrices *fresh(const struct model *model)
{
	struct matrices *m = calloc(1, sizeof(*m));

	if (m) {
		m->model = model;
		m->file.fd = -1;
	}
	return m;
}

static int path_of(const struct matrices *m, const char *given, char **path, struct lslm_error *err)
{
	if (!given)
		return packfile_cache_path(m->model->gguf, path, err);
	*path = strdup(given);
	return *path ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* Section s stands at base from now on. */
static void point(struct matrices *m, uint32_t s, const uint8_t *base)
{
	const struct packfile_section *sec = &m->plan.sections[s];

	for (uint32_t i = sec->first; i < sec->first + sec->n; i++)
		weight_take(&m->w[i], base + m->plan.at[i]);
}

/* --- packed at start --- */

static uint64_t packed_bytes(const struct matrices *m)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < m->n; i++)
		if (weight_is_packed(&m->w[i]))
			bytes += weight_bytes(&m->w[i]);
	return bytes;
}

/*
 * Into memory of our own. Pages of the file are then not needed any more, but for the
 * embedding's, whose rows are looked up, and for floats, which are used where they stand.
 */
static int pack_now(struct matrices *m, struct pool *pool, struct lslm_error *err)
{
	const uint64_t bytes = packed_bytes(m);
	const double start = clock_seconds();
	uint8_t *at;
	int rc;

	gguf_read_all(m->model->gguf);
	if (!bytes)
		return 0;
	rc = hugemem_create(&m->memory, bytes, err);
	if (rc)
		return rc;
	at = m->memory.data;
	for (uint32_t i = 0; i < m->n; i++) {
		struct weight *w = &m->w[i];

		if (!weight_is_packed(w))
			continue;
		weight_store(w, at, pool);
		if (w->rows != m->model->embd->data)
			gguf_forget(m->model->gguf, w->rows,
				    gguf_row_bytes(w->type, w->n_in) * w->n_out);
		weight_take(w, at);
		at += weight_bytes(w);
	}
	m->seconds = clock_seconds() - start;
	return 0;
}

/* --- from a file --- */

/*
 * At a multiple of 2 MiB, so that file systems with large folios (ext4 from Linux 6.16, XFS) can map what they read
 * in pages of that size: shared, and no slower than memory of our own.
 */
static int map(struct matrices *m, struct lslm_error *err)
{
	const size_t all = m->plan.file_bytes + LSLM_HUGE_PAGE;
	void *room = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *at = (void *)lslm_round_up((uintptr_t)room, LSLM_HUGE_PAGE);

	if (room != MAP_FAILED) {
		m->room = room;
		at = mmap(at, m->plan.file_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, m->file.fd, 0);
	}
	if (room == MAP_FAILED || at == MAP_FAILED)
		return error_sys(err, -errno, "%s: cannot map", m->file.path);
	madvise(at, m->plan.file_bytes, MADV_HUGEPAGE);
	m->mapping = at;
	return 0;
}

static void unmap(struct matrices *m)
{
	if (m->room)
		munmap(m->room, m->plan.file_bytes + LSLM_HUGE_PAGE);
	m->mapping = NULL;
	m->room = NULL;
}

/*
 * Does the file system keep the mapped file in 2 MiB pages? Nothing but reading one tells, and that only where nothing
 * is cached yet: pages that are there stay as they are.
 */
static bool is_huge(const struct matrices *m)
{
	for (uint64_t at = 0; at + LSLM_HUGE_PAGE <= m->plan.file_bytes; at += LSLM_HUGE_PAGE) {
		const uint8_t *page = m->mapping + at;

		if (residency_cached(page, LSLM_HUGE_PAGE) > 0)
			continue;
		return !madvise((void *)page, LSLM_HUGE_PAGE, MADV_POPULATE_READ) &&
		       residency_huge(page);
	}
	return false;
}

static uint64_t largest_layer(const struct matrices *m, uint32_t from)
{
	uint64_t bytes = 0;

	for (uint32_t s = from; s < m->plan.n_sections - 1; s++)
		if (m->plan.sections[s].bytes > bytes)
			bytes = m->plan.sections[s].bytes;
	return bytes;
}

/* Places of the output and the first `pinned` layers; returns their bytes. */
static uint64_t place_kept(struct matrices *m, uint32_t pinned)
{
	const uint32_t output = m->plan.n_sections - 1;
	uint64_t at = 0;

	for (uint32_t s = 0; s < pinned; s++) {
		m->kept[s] = at;
		at += m->plan.sections[s].bytes;
	}
	m->kept[output] = at;
	return at + m->plan.sections[output].bytes;
}

/* As many slots as small layers need for a queue of reads, as many layers that stay as fit beside them. */
static int place_ring(struct matrices *m, uint64_t memory, uint32_t *pinned, uint32_t *slots,
		      struct lslm_error *err)
{
	const uint32_t layers = m->plan.n_sections - 1;
	const uint64_t kept = place_kept(m, 0);
	uint64_t n = MIN_SLOTS;

	m->slot_bytes = largest_layer(m, 0);
	if (kept + MIN_SLOTS * m->slot_bytes > memory)
		return error_set(
			err, -ENOMEM,
			"%s: the output matrix and two layers take %llu MiB, more than the %llu MiB "
			"for weights; raise --weights-mem",
			m->model->params.arch,
			(unsigned long long)((kept + MIN_SLOTS * m->slot_bytes) >> 20) + 1,
			(unsigned long long)(memory >> 20));
	while (n < layers && n < WEIGHTS_GATE_SLOTS && n * m->slot_bytes < SLOTS_BYTES &&
	       kept + (n + 1) * m->slot_bytes <= memory)
		n++;
	*slots = (uint32_t)n;
	*pinned = 0;
	while (*pinned < layers && place_kept(m, *pinned + 1) + n * m->slot_bytes <= memory)
		(*pinned)++;
	m->slots = place_kept(m, *pinned);
	return 0;
}

/* --- for others, or by another --- */

static struct kv_hash share_key(const struct matrices *m)
{
	uint8_t stamp[STAMP_BYTES];
	struct kv_hash key = { 0 };
	struct hash h;

	stamp_put(&m->file.stamp, stamp);
	hash_start(&h, "lslm shared weights 1");
	hash_raw(&h, m->plan.digest.b, sizeof(m->plan.digest.b));
	hash_raw(&h, stamp, sizeof(stamp));
	hash_raw(&h, m->file.fingerprint.b, sizeof(m->file.fingerprint.b));
	hash_finish(&h, key.b);
	return key;
}

static int make_shared_room(struct matrices *m, uint64_t bytes, uint64_t limit,
			    struct lslm_error *err)
{
	const struct kv_hash key = share_key(m);

	if (limit && bytes > limit)
		return error_set(err, -ENOMEM,
				 "%s: the weights take %llu MiB, more than the %llu MiB there are",
				 m->file.path, (unsigned long long)(bytes >> 20),
				 (unsigned long long)(limit >> 20));
	return m->share->room(m->share->arg, &key, bytes, m->plan.n_sections, &m->memory, m->have,
			      err);
}

static int import_shared(struct matrices *m, int fds[2], struct lslm_error *err)
{
	int rc = buffer_import(&m->shared, fds[0], err);

	fds[0] = rc ? fds[0] : -1;
	if (!rc)
		rc = control_import(&m->page, fds[1], err);
	fds[1] = rc ? fds[1] : -1;
	return rc;
}

static int take_shared(struct matrices *m, const struct matrices_share *share,
		       struct lslm_error *err)
{
	const uint64_t bytes = place_kept(m, m->plan.n_sections - 1);
	const struct kv_hash key = share_key(m);
	int fds[2];
	int rc = share->find(share->arg, &key, &fds[0], &fds[1], err);

	if (rc)
		return rc;
	rc = import_shared(m, fds, err);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (!rc && (buffer_size(m->shared) < bytes || control_n_stripes(m->page) != 1 ||
		    control_n_layer(m->page) != m->plan.n_sections))
		rc = error_set(err, -EBADF, "%s: what is shared is not these weights",
			       m->file.path);
	for (uint32_t s = 0; !rc && s < m->plan.n_sections; s++)
		point(m, s, (const uint8_t *)buffer_ro_data(m->shared) + m->kept[s]);
	return rc;
}

static int wait_for(const struct matrices *m, uint32_t section, struct lslm_error *err)
{
	const int rc = control_wait_layer(m->page, section, SHARED_WAIT_MS);

	if (!rc)
		return 0;
	if (rc == -EIO)
		return error_set(err, -ENOTRECOVERABLE,
				 "%s: section %u could not be loaded; the courier has said why",
				 m->file.path, section);
	return error_sys(err, rc, "%s: section %u does not come", m->file.path, section);
}

static int await_shared(struct matrices *m, uint32_t section, struct lslm_error *err)
{
	double start;
	int rc;

	if (control_get(m->page, 0, section) == CONTROL_READY)
		return 0;
	start = clock_seconds();
	rc = wait_for(m, section, err);
	m->shared_waited += clock_seconds() - start;
	return rc;
}

/* Where everything goes, and memory for it. */
static int make_room(struct matrices *m, uint64_t memory, struct lslm_error *err)
{
	const uint32_t layers = m->plan.n_sections - 1;
	uint32_t pinned = layers, slots = 0;
	uint64_t bytes = place_kept(m, layers);
	int rc = 0;

	if (m->share) {
		rc = make_shared_room(m, bytes, memory, err);
	} else if (m->load == MATRICES_READ) {
		if (memory && bytes > memory) {
			rc = place_ring(m, memory, &pinned, &slots, err);
			bytes = m->slots + slots * m->slot_bytes;
		}
		if (!rc)
			rc = hugemem_create(&m->memory, bytes, err);
	}
	weights_gate_init(&m->gate, layers + 1, pinned, slots);
	return rc;
}

/* All sections that stay have their place now, whether there is anything in it yet or not. */
static void point_kept(struct matrices *m)
{
	for (uint32_t s = 0; s < m->plan.n_sections; s++)
		if (m->mapping)
			point(m, s, m->mapping + m->plan.sections[s].offset);
		else if (s < m->gate.pinned || s == m->plan.n_sections - 1)
			point(m, s, (uint8_t *)m->memory.data + m->kept[s]);
}

static int load(struct matrices *m, uint64_t memory, struct lslm_error *err)
{
	struct loader_opts o = {
		.fd = m->file.fd,
		.path = m->file.path,
		.stamp = m->file.stamp,
		.sections = m->plan.sections,
		.kept = m->kept,
	};
	int rc = make_room(m, memory, err);

	if (rc)
		return rc;
	point_kept(m);
	o.memory = m->memory.data;
	o.mapping = m->mapping;
	o.slots = m->slots;
	o.slot_bytes = m->slot_bytes;
	o.have = m->have;
	o.present = m->share ? m->memory.size : 0;
	return loader_start(&m->loader, &o, &m->gate, err);
}

/* --- the choice --- */

static int open_file(struct matrices *m, const struct matrices_opts *o, struct lslm_error *err)
{
	char *path;
	int rc = path_of(m, o->packed, &path, err);

	if (rc)
		return rc;
	rc = packfile_open(&m->file, path, m->model->gguf, &m->plan, err);
	free(path);
	return rc;
}

/* Memory is what a machine has to spare, but never by pushing out what it needs. */
static int choose(struct matrices *m, const struct matrices_opts *o, uint64_t *memory,
		  struct lslm_error *err)
{
	const uint64_t available = memory_available() / 4 * 3;
	int rc = 0;

	*memory = o->memory ? o->memory : available;
	m->load = o->load;
	m->why = "as asked";
	if (o->load == MATRICES_READ || o->load == MATRICES_SHARED)
		return 0;
	rc = map(m, err);
	if (rc || o->load == MATRICES_MAP)
		return rc;
	m->load = MATRICES_READ;
	if (!o->memory && place_kept(m, 0) + MIN_SLOTS * largest_layer(m, 0) > *memory) {
		m->load = MATRICES_MAP;
		m->why = "there is no memory for layers";
	} else if (*memory && place_kept(m, m->plan.n_sections - 1) > *memory) {
		m->why = "they take more than the memory for them";
	} else if (residency_cached(m->mapping, m->plan.file_bytes) > 0.9) {
		m->load = MATRICES_MAP;
		m->why = "the page cache has them";
	} else if (is_huge(m)) {
		m->load = MATRICES_MAP;
		m->why = "their file system has 2 MiB pages";
	} else {
		m->why = "the page cache has them not, and their file system no 2 MiB pages";
	}
	if (m->load == MATRICES_READ)
		unmap(m);
	return 0;
}

static int open_with(struct matrices *m, struct pool *pool, const struct matrices_opts *o,
		     struct lslm_error *err)
{
	uint64_t memory;
	int rc = list(m, err);

	if (rc)
		return rc;
	m->has_source = !stamp_of(gguf_fd(m->model->gguf), &m->source);
	if (o->load == MATRICES_PACK)
		m->no_file = (struct lslm_error){ .code = -ENOENT, .text = "as asked" };
	else
		open_file(m, o, &m->no_file);
	if (m->no_file.code && o->load != MATRICES_PACK &&
	    (o->load || o->packed || o->memory || o->share))
		return error_set(err, m->no_file.code, "%s", m->no_file.text);
	if (m->no_file.code) {
		m->load = MATRICES_PACK;
		m->why = m->no_file.text;
		rc = pack_now(m, pool, err);
		if (!rc && o->keep && o->load == MATRICES_AUTO && m->memory.data)
			m->keeper = packkeeper_start(m->model->gguf, &m->plan, m->w);
		return rc;
	}
	rc = choose(m, o, &memory, err);
	if (rc)
		return rc;
	if (m->load == MATRICES_SHARED)
		return take_shared(m, o->share, err);
	m->share = o->share;
	if (m->share && m->load == MATRICES_MAP)
		return error_set(err, -EALREADY, "%s: mapped by every engine (%s)", m->file.path,
				 m->why);
	return load(m, memory, err);
}

int matrices_open(struct matrices **out, const struct model *model, struct pool *pool,
		  const struct matrices_opts *opts, struct lslm_error *err)
{
	static const struct matrices_opts none;
	struct matrices *m = fresh(model);
	int rc;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	rc = open_with(m, pool, opts ? opts : &none, err);
	if (rc)
		matrices_close(m);
	else
		*out = m;
	return rc;
}

void matrices_close(struct matrices *m)
{
	if (!m)
		return;
	loader_stop(m->loader);
	packkeeper_finish(m->keeper);
	if (m->gate.n)
		weights_gate_destroy(&m->gate);
	unmap(m);
	hugemem_free(&m->memory);
	buffer_close(m->shared);
	control_close(m->page);
	packfile_close(&m->file);
	packfile_plan_free(&m->plan);
	free(m->w);
	free(m);
}

/* --- what passes ask --- */

const struct matrices_layer *matrices_layers(const struct matrices *m)
{
	return (const struct matrices_layer *)m->w;
}

const struct weight *matrices_output(const struct matrices *m)
{
	return &m->w[m->n - 1];
}

int matrices_begin(struct matrices *m, struct lslm_error *err)
{
	if (m->has_source && !stamp_unchanged(gguf_fd(m->model->gguf), &m->source))
		return error_set(err, -ENOTRECOVERABLE,
				 "%s: was written to while it was in use; start again",
				 gguf_path(m->model->gguf));
	if (m->mapping && !stamp_unchanged(m->file.fd, &m->file.stamp))
		return error_set(err, -ENOTRECOVERABLE,
				 "%s: was written to while it was in use; start again",
				 m->file.path);
	return 0;
}

int matrices_need(struct matrices *m, uint32_t layer, struct lslm_error *err)
{
	struct weights_turn turn;
	int rc;

	if (m->page)
		return await_shared(m, layer, err);
	if (!m->loader)
		return 0;
	rc = weights_gate_need(&m->gate, layer, &turn, err);
	if (!rc && turn.slot >= 0)
		point(m, layer,
		      (uint8_t *)m->memory.data + m->slots + (uint64_t)turn.slot * m->slot_bytes);
	return rc;
}

int matrices_await_shared(const struct matrices *m, struct lslm_error *err)
{
	int rc = 0;

	for (uint32_t s = 0; m->page && s < m->plan.n_sections && !rc; s++)
		rc = wait_for(m, s, err);
	return rc;
}

int matrices_check(const struct matrices *m, uint32_t layer, struct lslm_error *err)
{
	return packfile_check_section(&m->file, &m->plan, layer,
				      (const uint8_t *)m->memory.data + m->kept[layer], err);
}

void matrices_give_up(struct matrices *m)
{
	const struct lslm_error why = { .code = -ECANCELED, .text = "given up" };

	if (m->loader)
		weights_gate_fail(&m->gate, &why);
}

const struct kv_hash *matrices_fingerprint(const struct matrices *m)
{
	return m->file.fd >= 0 ? &m->file.fingerprint : NULL;
}

/* --- reports --- */

static __attribute__((format(printf, 2, 3))) void say(struct matrices_stats *s, const char *fmt,
						      ...)
{
	const size_t at = strlen(s->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->text + at, sizeof(s->text) - at, fmt, ap);
	va_end(ap);
}

static void say_reason(struct matrices_stats *s, const char *why)
{
	if (*why)
		say(s, " (%.120s)", why);
}

static void describe_loaded(struct matrices *m, struct matrices_stats *s)
{
	struct loader_stats l;

	loader_stats(m->loader, &l);
	s->arrived = l.bytes;
	s->seconds = l.seconds;
	s->ringed = m->mapping ? 0 : m->plan.n_sections - 1 - m->gate.pinned;
	s->how = m->mapping ? "mapped" : s->ringed ? "ringed" : "read";
	pthread_mutex_lock(&m->gate.lock);
	s->waited = m->gate.waited;
	pthread_mutex_unlock(&m->gate.lock);
	say(s, "%s from %.120s", s->how, m->file.path);
	say_reason(s, m->why);
	if (m->mapping) {
		say(s, ", in %s pages",
		    residency_huge(m->mapping + LSLM_HUGE_PAGE) ? "2 MiB" : "small");
		return;
	}
	say(s, " by %s", l.how);
	say_reason(s, l.why);
	say(s, " into %s %s pages", m->memory.kind, m->memory.small ? "small" : "2 MiB");
	say_reason(s, m->memory.why);
	if (s->ringed)
		say(s, ", %u of %u layers in every pass, in %zu MiB", s->ringed,
		    m->plan.n_sections - 1, m->memory.size >> 20);
}

void matrices_stats(struct matrices *m, struct matrices_stats *s)
{
	char kept[192];

	*s = (struct matrices_stats){ .how = "packed at start", .seconds = m->seconds };
	for (uint32_t i = 0; i < m->n; i++)
		s->bytes += weight_bytes(&m->w[i]);
	if (m->loader) {
		describe_loaded(m, s);
		return;
	}
	if (m->page) {
		s->how = "shared";
		s->waited = m->shared_waited;
		say(s, "shared by the courier, which reads %.120s", m->file.path);
		return;
	}
	say(s, "packed at start, into %s memory (%.200s)", m->memory.kind ? m->memory.kind : "no",
	    m->why);
	if (m->keeper) {
		packkeeper_describe(m->keeper, kept, sizeof(kept));
		say(s, ", %s", kept);
	}
}

static int foresee(struct matrices *m, bool verify, char *text, size_t size, struct lslm_error *err)
{
	static const struct matrices_opts none;
	uint64_t memory;
	int rc = list(m, err);

	if (rc)
		return rc;
	if (open_file(m, &none, &m->no_file)) {
		snprintf(text, size, "packed at every start (%s)", m->no_file.text);
		return 0;
	}
	rc = choose(m, &none, &memory, err);
	if (rc)
		return rc;
	snprintf(text, size, "%s from %s (%s)%s", m->load == MATRICES_MAP ? "mapped" : "read",
		 m->file.path, m->why, verify ? ", its sums are right" : "");
	return verify ? packfile_verify(&m->file, &m->plan, err) : 0;
}

int matrices_foresee(const struct model *model, bool verify, char *text, size_t size,
		     struct lslm_error *err)
{
	struct matrices *m = fresh(model);
	int rc;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	rc = foresee(m, verify, text, size, err);
	matrices_close(m);
	return rc;
}

int matrices_pack(const struct model *model, struct pool *pool, const char *path,
		  const struct packfile_progress *progress, char **written, struct lslm_error *err)
{
	struct matrices *m = fresh(model);
	char *to = NULL, *slash;
	int rc;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	rc = list(m, err);
	if (!rc)
		rc = path_of(m, path, &to, err);
	if (!rc && !path) {
		slash = strrchr(to, '/');
		*slash = 0;
		rc = file_mkdirs(to, 0700, err);
		*slash = '/';
	}
	if (!rc)
		rc = packfile_write(to, path ? 0644 : 0600, model->gguf, &m->plan, m->w, pool,
				    progress, err);
	matrices_close(m);
	if (rc)
		free(to);
	else
		*written = to;
	return rc;
}
