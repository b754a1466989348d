// SPDX-License-Identifier: MIT
/* The directory, against a real nats-server on loopback: found, taken back, forgotten, away and back. */
#include "net/directory.h"
#include "net/peers.h"

#include <arpa/inet.h>
#include <nats/nats.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "unit/unit.h"

static const char *server; /* NULL: there is none here */
static char dir[64], url[64];
static int port, reserved;
static pid_t pid;

/* Long against whatever a busy machine does. */
enum { TICKS = 6000 };

static void tick(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

static bool answers(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), ret;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ret = connect(fd, (struct sockaddr *)&at, sizeof(at));
	close(fd);
	return !ret;
}

static void start_server(void)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", port);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(server, server, "-a", "127.0.0.1", "-p", number, "-js", "-sd", dir, "-l",
		      "/dev/null", NULL);
		_exit(127);
	}
	for (int i = 0; i < TICKS && !answers(); i++)
		tick();
	assert_true(answers());
}

static void stop_server(int signal_number)
{
	if (pid <= 0)
		return;
	kill(pid, signal_number);
	waitpid(pid, NULL, 0);
	pid = 0;
}

/* One that nobody gets but the server, which says SO_REUSEADDR, as often as it is started: `reserved` keeps it. */
static int free_port(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);
	const int one = 1;

	reserved = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(reserved, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(reserved, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(getsockname(reserved, (struct sockaddr *)&at, &len), 0);
	return ntohs(at.sin_port);
}

static int setup(void **state)
{
	static const char *const places[] = { "/usr/sbin/nats-server", "/usr/bin/nats-server",
					      "/usr/local/bin/nats-server" };

	for (size_t i = 0; i < ARRAY_LEN(places) && !server; i++)
		if (!access(places[i], X_OK))
			server = places[i];
	strcpy(dir, "/tmp/lslm-directory-XXXXXX");
	assert_non_null(mkdtemp(dir));
	port = free_port();
	snprintf(url, sizeof(url), "nats://127.0.0.1:%d", port);
	if (server)
		start_server();
	return 0;
}

static int teardown(void **state)
{
	stop_server(SIGKILL);
	close(reserved);
	return remove_tree(dir);
}

/* Lines that a directory has said. */
struct said {
	atomic_uint n;
	char last[512];
};

static void hear(void *arg, const char *line)
{
	struct said *s = arg;

	snprintf(s->last, sizeof(s->last), "%s", line);
	s->n++;
}

static struct directory *open_as(const char *self, uint32_t ttl_s, struct said *said)
{
	const struct directory_opts opts = {
		.url = url,
		.self = self,
		.ttl_s = ttl_s,
		.log = said ? hear : NULL,
		.arg = said,
	};
	struct lslm_error err = { 0 };
	struct directory *d;

	if (!server)
		skip();
	assert_ok(directory_open(&d, &opts, &err), &err);
	return d;
}

static struct kv_hash key_of(const char *text)
{
	return kv_digest(text, strlen(text));
}

static void wait_found(struct directory *d, const char *context, uint32_t want)
{
	const struct kv_hash key = key_of(context);
	char urls[8][HOLDERS_URL_BYTES];
	uint32_t n = 0;

	for (int i = 0; i < TICKS; i++) {
		n = directory_find(d, &key, urls, 8);
		if (n == want)
			return;
		tick();
	}
	fail_msg("%s: %u holders instead of %u", context, n, want);
}

static void have(struct directory *d, const char *context)
{
	const struct kv_hash key = key_of(context);

	directory_have(d, &key, 1, 2);
}

static void directory__tells_who_has_what(void **state)
{
	struct directory *a = open_as("https://a:1", 0, NULL);
	struct directory *b = open_as("https://b:1", 0, NULL);
	const struct kv_hash key = key_of("one");
	struct directory *c;

	have(a, "one");
	have(b, "one");
	have(b, "two");
	wait_found(a, "one", 1);
	wait_found(a, "two", 1);
	wait_found(b, "one", 1);
	wait_found(b, "two", 0);
	/* Who comes later hears what was said before. */
	c = open_as(NULL, 0, NULL);
	wait_found(c, "one", 2);
	directory_drop(b, &key);
	wait_found(c, "one", 1);
	/* And has it again. */
	have(b, "one");
	wait_found(c, "one", 2);
	directory_close(b);
	wait_found(c, "one", 1);
	wait_found(c, "two", 0);
	directory_close(a);
	wait_found(c, "one", 0);
	directory_close(c);
}

/* The server is killed, and is back with all that it had, then with nothing. */
static void directory__goes_on_without_and_with(void **state)
{
	struct said said = { 0 };
	struct directory *a = open_as("https://a:1", 0, &said);
	struct directory *b = open_as("https://b:1", 0, NULL);

	for (int round = 0; round < 2; round++) {
		have(a, "three");
		wait_found(b, "three", 1);
		stop_server(SIGKILL);
		for (int i = 0; i < TICKS && said.n < 1 + 2 * (unsigned int)round; i++)
			tick();
		assert_int_equal(said.n, 1 + 2 * round);
		assert_non_null(strstr(said.last, "until it is back"));
		assert_false(directory_is_up(a));
		/* What was known last is known. */
		wait_found(b, "three", 1);
		have(a, "four");
		if (round)
			assert_int_equal(remove_tree(dir) | mkdir(dir, 0700), 0);
		start_server();
		for (int i = 0; i < TICKS && said.n < 2 + 2 * (unsigned int)round; i++)
			tick();
		assert_non_null(strstr(said.last, "it is back"));
		wait_found(b, "four", 1);
		wait_found(b, "three", 1);
	}
	directory_close(a);
	wait_found(b, "three", 0);
	directory_close(b);
}

/* It cannot be reached from the start: one line, and nothing waits. */
static void directory__may_be_away_from_the_start(void **state)
{
	const struct directory_opts opts = { .url = "nats://127.0.0.1:1", .self = "https://a:1" };
	struct lslm_error err = { 0 };
	struct directory *d;

	assert_ok(directory_open(&d, &opts, &err), &err);
	have(d, "one");
	wait_found(d, "one", 0);
	assert_false(directory_is_up(d));
	directory_close(d);
}

/* Whoever ends is asked no more, and the directory's thread has nothing left to use. */
static void peers__take_back_what_they_told(void **state)
{
	const struct directory_opts opts = { .url = url, .self = "https://peer.example:1" };
	const struct peers_opts po = { .directory = &opts };
	struct directory *other = open_as(NULL, 0, NULL);
	struct kv_hash key = key_of("of peers");
	struct lslm_error err = { 0 };
	struct peers *p;

	assert_ok(peers_open(&p, &po, &err), &err);
	peers_have(p, &key, 3, 3);
	wait_found(other, "of peers", 1);
	peers_close(p);
	wait_found(other, "of peers", 0);
	directory_close(other);
}

static void directory__keeps_its_password(void **state)
{
	struct said said = { 0 };
	const struct directory_opts opts = { .url = "nats://user:secret@127.0.0.1:9",
					     .log = hear,
					     .arg = &said };
	struct lslm_error err = { 0 };
	struct directory *d;

	assert_ok(directory_open(&d, &opts, &err), &err);
	for (int i = 0; i < TICKS && !said.n; i++)
		tick();
	directory_close(d);
	assert_int_equal(said.n, 1);
	assert_non_null(strstr(said.last, "nats://127.0.0.1:9"));
	assert_null(strstr(said.last, "secret"));
}

static void directory__is_told_where(void **state)
{
	struct directory_opts opts = { .url = "http://127.0.0.1" };
	struct lslm_error err = { 0 };
	struct directory *d = NULL;

	assert_int_equal(directory_open(&d, &opts, &err), -EINVAL);
	opts.url = url;
	opts.self = "http://a:1";
	assert_int_equal(directory_open(&d, &opts, &err), -EINVAL);
	assert_null(d);
}

/* One who may write there writes nonsense: it is passed over, and what is right is found. */
static void directory__passes_over_nonsense(void **state)
{
	struct directory *d = open_as("https://a:1", 0, NULL);
	natsConnection *nc = NULL;
	struct kv_hash key = key_of("five");
	char name[HOLDERS_NAME_MAX], value[HOLDERS_VALUE_MAX];
	kvStore *kv = NULL;
	jsCtx *js = NULL;

	for (int i = 0; i < TICKS && !directory_is_up(d); i++)
		tick();
	assert_int_equal(natsConnection_ConnectTo(&nc, url), NATS_OK);
	assert_int_equal(natsConnection_JetStream(&js, nc, NULL), NATS_OK);
	assert_int_equal(js_KeyValue(&kv, js, "lslm-contexts"), NATS_OK);
	assert_int_equal(kvStore_PutString(NULL, kv, "x", "y"), NATS_OK);
	holders_name("https://b:1", &key, name);
	assert_int_equal(kvStore_PutString(NULL, kv, name, ""), NATS_OK);
	assert_int_equal(kvStore_PutString(NULL, kv, name, "{\"url\":\"http://b:1\"}"), NATS_OK);
	holders_name("https://c:1", &key, name);
	holders_value("https://c:1", 1, 1, value);
	assert_int_equal(kvStore_PutString(NULL, kv, name, value), NATS_OK);
	wait_found(d, "five", 1);
	assert_int_equal(kvStore_Delete(kv, name), NATS_OK);
	wait_found(d, "five", 0);
	kvStore_Destroy(kv);
	jsCtx_Destroy(js);
	natsConnection_Destroy(nc);
	directory_close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(directory__tells_who_has_what),
		cmocka_unit_test(directory__goes_on_without_and_with),
		cmocka_unit_test(directory__may_be_away_from_the_start),
		cmocka_unit_test(peers__take_back_what_they_told),
		cmocka_unit_test(directory__keeps_its_password),
		cmocka_unit_test(directory__is_told_where),
		cmocka_unit_test(directory__passes_over_nonsense),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
