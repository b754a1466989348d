// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static char dir[PATH_MAX];

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/lslm-file-XXXXXX");
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	return chdir("/") || remove_tree(dir);
}

static void assert_content(const char *path, const char *expected)
{
	struct lslm_error err = { 0 };
	size_t size;
	char *data;

	assert_ok(file_read(path, 1000, &data, &size, &err), &err);
	assert_string_equal(data, expected);
	assert_int_equal(size, strlen(expected));
	free(data);
}

static int count_files(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void write__new_and_replaced(void **state)
{
	struct lslm_error err = { 0 };
	struct stat st;
	mode_t old = umask(0);

	assert_ok(file_write("a", "one", 3, 0600, FILE_REPLACE, &err), &err);
	assert_content("a", "one");
	assert_int_equal(stat("a", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_ok(file_write("a", "second", 6, 0644, FILE_REPLACE, &err), &err);
	umask(old);
	assert_content("a", "second");
	assert_int_equal(stat("a", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(count_files("."), 1);
}

static void write__create_leaves_existing(void **state)
{
	struct lslm_error err = { 0 };

	assert_ok(file_write("a", "one", 3, 0600, FILE_CREATE, &err), &err);
	assert_int_equal(file_write("a", "two", 3, 0600, FILE_CREATE, &err), -EEXIST);
	assert_content("a", "one");
	assert_int_equal(count_files("."), 1);
}

static void atomic__target_appears_at_commit(void **state)
{
	struct lslm_error err = { 0 };
	struct file_atomic *f;

	assert_ok(file_atomic_open(&f, "a", 0600, &err), &err);
	assert_int_equal(file_pwrite_all(file_atomic_fd(f), "x", 1, 0), 0);
	assert_int_equal(access("a", F_OK), -1);
	assert_ok(file_atomic_commit(f, FILE_REPLACE, &err), &err);
	assert_content("a", "x");
	assert_ok(file_atomic_open(&f, "a", 0600, &err), &err);
	assert_int_equal(file_pwrite_all(file_atomic_fd(f), "y", 1, 0), 0);
	file_atomic_abort(f);
	file_atomic_abort(NULL);
	assert_content("a", "x");
	assert_int_equal(count_files("."), 1);
}

static void atomic__refused_targets(void **state)
{
	struct lslm_error err = { 0 };
	struct file_atomic *f;

	assert_int_equal(file_atomic_open(&f, "/dev/null", 0600, &err), -EINVAL);
	assert_string_equal(err.text, "/dev/null: is there and is not a regular file");
	assert_null(f);
	assert_int_equal(file_atomic_open(&f, ".", 0600, &err), -EINVAL);
	assert_int_equal(file_atomic_open(&f, "none/a", 0600, &err), -ENOENT);
	assert_int_equal(file_write("b", "x", 1, 0600, FILE_REPLACE, &err), 0);
	assert_int_equal(file_atomic_open(&f, "b/a", 0600, &err), -ENOTDIR);
	assert_int_equal(file_atomic_open(&f, "", 0600, &err), -ENOENT);
}

static void atomic__link_stays_a_link(void **state)
{
	struct lslm_error err = { 0 };
	struct stat st;

	assert_int_equal(mkdir("sub", 0700), 0);
	assert_ok(file_write("sub/real", "old", 3, 0600, FILE_REPLACE, &err), &err);
	assert_int_equal(symlink("sub/real", "link"), 0);
	assert_ok(file_write("link", "new", 3, 0600, FILE_REPLACE, &err), &err);
	assert_int_equal(lstat("link", &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_content("sub/real", "new");
}

static void atomic__longest_name(void **state)
{
	struct lslm_error err = { 0 };
	char name[NAME_MAX + 1];

	memset(name, 'n', NAME_MAX);
	name[NAME_MAX] = 0;
	assert_ok(file_write(name, "x", 1, 0600, FILE_REPLACE, &err), &err);
	assert_content(name, "x");
}

static void atomic__failed_rename_leaves_old(void **state)
{
	struct lslm_error err = { 0 };
	struct file_atomic *f;

	assert_ok(file_write("a", "old", 3, 0600, FILE_REPLACE, &err), &err);
	assert_ok(file_atomic_open(&f, "a", 0600, &err), &err);
	/* The temporary file is gone under us: any failure of rename will do. */
	assert_int_equal(system("rm .lslm-*"), 0);
	assert_int_equal(file_atomic_commit(f, FILE_REPLACE, &err), -ENOENT);
	assert_content("a", "old");
}

static void read__bounds(void **state)
{
	struct lslm_error err = { 0 };
	size_t size = 99;
	char *data;

	assert_ok(file_write("a", "12345", 5, 0600, FILE_REPLACE, &err), &err);
	assert_ok(file_read("a", 5, &data, &size, &err), &err);
	assert_int_equal(size, 5);
	free(data);
	assert_int_equal(file_read("a", 4, &data, &size, &err), -EFBIG);
	assert_string_equal(err.text, "a: has 5 bytes, at most 4 are expected");
	assert_int_equal(file_read(".", 4, &data, &size, &err), -EINVAL);
	assert_int_equal(mkfifo("pipe", 0600), 0);
	assert_int_equal(file_read("pipe", 4, &data, &size, &err), -EINVAL);
	assert_int_equal(file_read("none", 4, &data, &size, &err), -ENOENT);
	assert_string_equal(err.text, "none: cannot open: No such file or directory");
	assert_ok(file_write("e", "", 0, 0600, FILE_REPLACE, &err), &err);
	assert_ok(file_read("e", 0, &data, &size, &err), &err);
	assert_int_equal(size, 0);
	free(data);
}

static void pread__end_of_file(void **state)
{
	struct lslm_error err = { 0 };
	char buf[8];
	int fd;

	assert_ok(file_write("a", "12345", 5, 0600, FILE_REPLACE, &err), &err);
	fd = open("a", O_RDONLY);
	assert_int_equal(file_pread_all(fd, buf, 3, 2), 0);
	assert_memory_equal(buf, "345", 3);
	assert_int_equal(file_pread_all(fd, buf, 4, 2), -ENODATA);
	assert_int_equal(file_pread_all(fd, buf, 0, 100), 0);
	assert_int_equal(file_pwrite_all(fd, buf, 1, 0), -EBADF);
	close(fd);
}

static void mkdirs__table(void **state)
{
	struct lslm_error err = { 0 };
	struct stat st;

	assert_ok(file_mkdirs("x/y/z", 0700, &err), &err);
	assert_int_equal(stat("x/y/z", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_ok(file_mkdirs("x/y/z/", 0700, &err), &err);
	assert_ok(file_mkdirs("/", 0700, &err), &err);
	assert_ok(file_write("f", "", 0, 0600, FILE_REPLACE, &err), &err);
	assert_int_equal(file_mkdirs("f", 0700, &err), -ENOTDIR);
	assert_int_equal(file_mkdirs("f/g", 0700, &err), -ENOTDIR);
	assert_int_equal(file_mkdirs("", 0700, &err), -ENOENT);
}

static void make_parent__table(void **state)
{
	static const struct {
		const char *path;
		int ret;
		const char *made;
	} t[] = {
		{ "p/q/file", 0, "p/q" }, { "p/q/other", 0, "p/q" },   { "bare", 0, "." },
		{ "/rooted", 0, "/" },	  { "f/file", -ENOTDIR, "." },
	};
	struct lslm_error err = { 0 };
	struct stat st;

	assert_ok(file_write("f", "", 0, 0600, FILE_REPLACE, &err), &err);
	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		assert_int_equal(file_make_parent(t[i].path, 0700, &err), t[i].ret);
		assert_int_equal(stat(t[i].made, &st), 0);
		assert_int_equal(stat(t[i].path, &st), -1);
	}
	assert_int_equal(stat("p/q", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void cache_path__makes_its_directory(void **state)
{
	struct lslm_error err = { 0 };
	char here[4096], want[4200], *path;
	struct stat st;

	assert_non_null(getcwd(here, sizeof(here)));
	setenv("XDG_CACHE_HOME", here, 1);
	assert_ok(file_cache_path(&path, "d", "n", &err), &err);
	snprintf(want, sizeof(want), "%s/lslm/d/n", here);
	assert_string_equal(path, want);
	free(path);
	assert_int_equal(stat("lslm/d", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat("lslm/d/n", &st), -1);
	assert_ok(file_write("lslm/f", "", 0, 0600, FILE_REPLACE, &err), &err);
	assert_int_equal(file_cache_path(&path, "f", "n", &err), -ENOTDIR);
	assert_null(path);
}

static void xdg__rules(void **state)
{
	struct lslm_error err = { 0 };
	char *path;

	setenv("HOME", "/home/u", 1);
	setenv("XDG_CACHE_HOME", "/c", 1);
	assert_ok(file_xdg_path(&path, FILE_XDG_CACHE, "n", &err), &err);
	assert_string_equal(path, "/c/lslm/n");
	free(path);
	setenv("XDG_CACHE_HOME", "relative", 1);
	assert_ok(file_xdg_path(&path, FILE_XDG_CACHE, "n", &err), &err);
	assert_string_equal(path, "/home/u/.cache/lslm/n");
	free(path);
	unsetenv("XDG_CONFIG_HOME");
	assert_ok(file_xdg_path(&path, FILE_XDG_CONFIG, "n", &err), &err);
	assert_string_equal(path, "/home/u/.config/lslm/n");
	free(path);
	unsetenv("XDG_DATA_HOME");
	assert_ok(file_xdg_path(&path, FILE_XDG_DATA, "n", &err), &err);
	assert_string_equal(path, "/home/u/.local/share/lslm/n");
	free(path);
	unsetenv("HOME");
	assert_int_equal(file_xdg_path(&path, FILE_XDG_DATA, "n", &err), -ENOENT);
	assert_string_equal(err.text, "no place for n: set HOME or XDG_DATA_HOME");
	assert_null(path);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(write__new_and_replaced),
		TEST(write__create_leaves_existing),
		TEST(atomic__target_appears_at_commit),
		TEST(atomic__refused_targets),
		TEST(atomic__link_stays_a_link),
		TEST(atomic__longest_name),
		TEST(atomic__failed_rename_leaves_old),
		TEST(read__bounds),
		TEST(pread__end_of_file),
		TEST(mkdirs__table),
		TEST(make_parent__table),
		TEST(cache_path__makes_its_directory),
		TEST(xdg__rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
