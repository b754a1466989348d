// SPDX-License-Identifier: MIT
/* The clouds that a courier asks, over real TLS: what counts as a failure, who is refused, and who hears of their return. */
#include "cloud_rig.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "net/sites.h"

/* For what comes by itself, on a busy machine. */
enum { PATIENCE_S = 60 };

static struct sites *all;
static struct site *site;
static struct http_client *guarded; /* asks it */
static atomic_uint calls;
static struct sites_listener listener;
static bool known_away;

static void changed(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static bool was_away(void *arg, const char *name)
{
	return known_away;
}

static void open_sites(const char *url)
{
	const struct sites_opts opts = {
		.http = { .cacert = cacert },
		.log = log_line,
		.was_away = was_away,
	};
	struct http_opts http_opts = { .cacert = cacert, .token = TOKEN };
	struct lslm_error err = { 0 };

	log_text[0] = 0;
	atomic_store(&calls, 0);
	assert_ok(sites_open(&all, &opts, &err), &err);
	listener = (struct sites_listener){ .changed = changed, .arg = &calls };
	sites_listen(all, &listener);
	site = http_opts.site = sites_find(all, url);
	assert_non_null(site);
	assert_ok(http_open(&guarded, &http_opts, &err), &err);
}

static void close_sites(void)
{
	http_close(guarded);
	sites_unlisten(all, &listener);
	sites_close(all);
}

static enum breaker_state state_now(struct site_stats *s)
{
	struct site_stats none = { 0 };

	s = s ? s : &none;
	assert_int_equal(sites_look(all, 0, s), 0);
	return s->state;
}

static void wait_for(enum breaker_state state)
{
	const double until = clock_seconds() + PATIENCE_S;

	while (state_now(NULL) != state) {
		assert_true(clock_seconds() < until);
		usleep(5000);
	}
}

/* How often a line like this was said. */
static unsigned int said(const char *what)
{
	unsigned int n = 0;

	pthread_mutex_lock(&log_lock);
	for (const char *at = log_text; (at = strstr(at, what)); at++)
		n++;
	pthread_mutex_unlock(&log_lock);
	return n;
}

/* A line like this, and so many calls of the listener. */
static void wait_told(const char *what, unsigned int n)
{
	const double until = clock_seconds() + PATIENCE_S;

	while (!said(what) || atomic_load(&calls) < n) {
		assert_true(clock_seconds() < until);
		usleep(5000);
	}
}

static int ask(const char *path)
{
	struct lslm_error err;
	int ret = send_with(guarded, "GET", path, NULL, 0, NULL, &err);

	if (ret == -ENETDOWN)
		assert_says(err.text, "the cloud is away: ");
	return ret;
}

/* At this port, once it is free. */
static void start_again(int port)
{
	char listen_at[32];
	struct cloud_opts opts = plain_opts();
	struct lslm_error err = { 0 };

	snprintf(listen_at, sizeof(listen_at), "127.0.0.1:%d", port);
	opts.listen = listen_at;
	assert_ok(cloud_start(&cloud, &opts, &err), &err);
}

static void sites__open_and_close_with_their_cloud(void **state)
{
	const struct cloud_opts opts = plain_opts();
	struct site_stats s;
	char url[512];
	int port;

	start(&opts);
	port = cloud_port(cloud);
	snprintf(url, sizeof(url), "%s", url_of("/v1/contexts/7"));
	open_sites(url);
	snprintf(url, sizeof(url), "%s", url_of("/health"));
	assert_int_equal(ask("/health"), 0);
	cloud_stop(cloud);
	for (int i = 0; i < BREAKER_FAILURES; i++) {
		const struct http_request req = { .url = url, .max_size = 1 << 20 };

		assert_int_equal(site_may_ask(site, NULL), 0);
		assert_true(http_is_outage(http_perform(guarded, &req, NULL)));
	}
	/* Nobody asks. */
	for (int i = 0; i < 100; i++) {
		const struct http_request req = { .url = url, .max_size = 1 << 20 };

		assert_int_equal(http_perform(guarded, &req, NULL), -ENETDOWN);
	}
	assert_true(site_away_since(site) > 0);
	assert_int_not_equal(state_now(&s), BREAKER_CLOSED);
	assert_int_equal(s.opened, 1);
	assert_true(*s.why && s.next_s <= BREAKER_FIRST_S);
	assert_int_equal(said("it is not asked before it answers a probe"), 1);
	start_again(port);
	wait_for(BREAKER_CLOSED);
	assert_int_equal(ask("/health"), 0);
	assert_int_equal(site_returns(site), 1);
	assert_true(site_away_since(site) == 0);
	state_now(&s);
	assert_true(s.probes >= 1 && !*s.why);
	/* It opened, a probe began, it closed; all are told after that. */
	wait_told("answers again", 3);
	assert_int_equal(said("answers again"), 1);
	close_sites();
	stop();
}

/* Whoever says no is there; one that always fails for itself is not. */
static void sites__count_what_is_a_failure(void **state)
{
	const struct cloud_opts opts = plain_opts();
	const struct kv_hash none = { 0 };
	struct site_stats s;
	struct kv_hash k;
	char path[512];

	start(&opts);
	open_sites(url_of(""));
	k = publish_text("{\"text\":\"to be damaged\"}");
	for (int i = 0; i < 4 * BREAKER_FAILURES; i++) {
		assert_int_equal(ask(context_path(&none, "/manifest")), -ENOENT);
		assert_int_equal(state_now(NULL), BREAKER_CLOSED);
	}
	/* What whoever asked thinks of an answer is nobody's failure. */
	for (int i = 0; i < 4 * BREAKER_FAILURES; i++) {
		const struct http_request req = { .url = url_of("/health"), .max_size = 1 };

		assert_int_equal(http_perform(guarded, &req, NULL), -EMSGSIZE);
		assert_int_equal(state_now(NULL), BREAKER_CLOSED);
	}
	snprintf(path, sizeof(path), "%s%s.lskv", store_dir, strrchr(context_path(&k, ""), '/'));
	assert_int_equal(truncate(path, 5000), 0);
	for (int i = 0; i < BREAKER_FAILURES; i++)
		assert_int_equal(ask(context_path(&k, "/manifest")), -EREMOTEIO);
	/* It opened, and nobody asks until a probe has closed it again, which may have been already. */
	assert_in_set(-ask("/health"), ((uintmax_t[]){ 0, ENETDOWN }), 2);
	wait_for(BREAKER_CLOSED);
	state_now(&s);
	assert_int_equal(s.opened, 1);
	close_sites();
	stop();
}

static void *ask_and_wait(void *arg)
{
	const struct http_request req = { .url = arg, .max_size = 1 };

	return (void *)(intptr_t)http_perform(guarded, &req, NULL);
}

/* A request that has heard nothing does not wait for its own time to end, here a minute. */
static void sites__end_what_hears_nothing(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct lslm_error why = { 0 };
	socklen_t len = sizeof(at);
	pthread_t thread;
	char url[64];
	void *ret;
	double began;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), peer;

	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 8), 0);
	getsockname(fd, (struct sockaddr *)&at, &len);
	snprintf(url, sizeof(url), "https://127.0.0.1:%d", ntohs(at.sin_port));
	open_sites(url);
	http_close(guarded);
	assert_ok(http_open(&guarded,
			    &(struct http_opts){
				    .cacert = cacert, .connect_timeout_ms = 3600000, .site = site },
			    &why),
		  &why);
	assert_int_equal(pthread_create(&thread, NULL, ask_and_wait, url), 0);
	peer = accept(fd, NULL, NULL);
	assert_true(peer >= 0);
	began = clock_seconds();
	error_set(&why, -ETIMEDOUT, "somebody else found it so");
	for (int i = 0; i < BREAKER_FAILURES; i++)
		site_failed(site, &why);
	pthread_join(thread, &ret);
	assert_int_equal((intptr_t)ret, -ENETDOWN);
	assert_true(clock_seconds() - began < PATIENCE_S);
	close_sites();
	close(peer);
	close(fd);
}

static void sites__ask_with_a_probe_first_after_a_restart(void **state)
{
	const struct cloud_opts opts = plain_opts();
	struct site_stats s;

	start(&opts);
	known_away = true;
	open_sites(url_of(""));
	known_away = false;
	wait_for(BREAKER_CLOSED);
	state_now(&s);
	assert_int_equal(s.opened, 0);
	assert_int_equal(s.probes, 1);
	assert_int_equal(site_returns(site), 1);
	close_sites();
	stop();
}

static void sites__are_found_by_their_urls(void **state)
{
	const struct sites_opts opts = { 0 };
	struct lslm_error err = { 0 };
	struct site_stats s;
	struct sites *x;
	char url[600];

	assert_ok(sites_open(&x, &opts, &err), &err);
	assert_ptr_equal(sites_find(x, "https://a:1/v1/contexts/7"), sites_find(x, "https://a:1"));
	assert_ptr_equal(sites_find(x, "https://a:1?q"), sites_find(x, "https://a:1#f"));
	assert_ptr_not_equal(sites_find(x, "https://a:1"), sites_find(x, "https://a:12"));
	assert_ptr_not_equal(sites_find(x, "https://a:1"), sites_find(x, "https://a"));
	assert_null(sites_find(x, "http://a"));
	assert_null(sites_find(x, "/var/a.lskv"));
	assert_null(sites_find(x, "https://user:password@a"));
	memset(url, 'a', sizeof(url));
	memcpy(url, "https://", 8);
	url[SITE_BYTES] = 0;
	assert_null(sites_find(x, url));
	url[SITE_BYTES - 1] = 0;
	assert_non_null(sites_find(x, url));
	assert_int_equal(sites_look(x, 0, &s), 0);
	assert_string_equal(s.name, "https://a:1");
	for (int i = 0; i < SITES_MAX; i++) {
		snprintf(url, sizeof(url), "https://b%d", i);
		assert_true(!sites_find(x, url) == (i >= SITES_MAX - 4));
	}
	assert_int_equal(sites_look(x, SITES_MAX, &s), -ENOENT);
	sites_close(x);
	/* Without any all may be asked. */
	assert_null(sites_find(NULL, "https://a"));
	assert_int_equal(site_may_ask(NULL, NULL), 0);
	site_failed(NULL, &err);
	site_answered(NULL);
	assert_int_equal(sites_look(NULL, 0, &s), -ENOENT);
}

/* A shelf, the supervisor's, and a list for each token: however many there are. */
static void sites__tell_all_who_listen(void **state)
{
	enum { MANY = 100 };
	const struct sites_opts opts = { 0 };
	struct sites_listener many[MANY];
	atomic_uint heard[MANY];
	struct lslm_error err = { 0 };
	struct sites *x;

	assert_ok(sites_open(&x, &opts, &err), &err);
	for (int i = 0; i < MANY; i++) {
		atomic_init(&heard[i], 0);
		many[i] = (struct sites_listener){ .changed = changed, .arg = &heard[i] };
		sites_listen(x, &many[i]);
	}
	sites_find(x, "https://a");
	for (int i = 0; i < MANY; i++)
		assert_int_equal(atomic_load(&heard[i]), 1);
	for (int i = 0; i < MANY; i += 3)
		sites_unlisten(x, &many[i]);
	/* Who does not listen any more may say so once more. */
	sites_unlisten(x, &many[0]);
	sites_find(x, "https://b");
	for (int i = 0; i < MANY; i++)
		assert_int_equal(atomic_load(&heard[i]), i % 3 ? 2 : 1);
	sites_close(x);
	sites_listen(NULL, &many[0]);
	sites_unlisten(NULL, &many[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sites__open_and_close_with_their_cloud),
		cmocka_unit_test(sites__count_what_is_a_failure),
		cmocka_unit_test(sites__end_what_hears_nothing),
		cmocka_unit_test(sites__ask_with_a_probe_first_after_a_restart),
		cmocka_unit_test(sites__are_found_by_their_urls),
		cmocka_unit_test(sites__tell_all_who_listen),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
