package wasip1

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// cFiles exercises the files of a container with C and wasi-libc. It prints
// what fails and ends with the number of failures.
const cFiles = `
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int failures;
#define CHECK(x) do { errno = 0; if (!(x)) { failures++; \
	printf("line %d: %s (errno %d: %s)\n", __LINE__, #x, errno, strerror(errno)); } } while (0)
#define FAILS(x, e) do { errno = 0; if ((x) != -1 || errno != (e)) { failures++; \
	printf("line %d: %s: errno %d (%s), want %s\n", __LINE__, #x, errno, strerror(errno), #e); } } while (0)

static void put(const char *name, const char *text) {
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	CHECK(fd >= 0);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	CHECK(close(fd) == 0);
}

static int count(const char *dir, int *dots) {
	DIR *d = opendir(dir);
	if (!d) return -1;
	int n = 0;
	struct dirent *e;
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) (*dots)++;
		else n++;
	}
	closedir(d);
	return n;
}

int main(int argc, char **argv) {
	struct stat st, st2;
	char buf[256], name[64];
	int fd, fd2, dots = 0;

	/* directories and rename */
	CHECK(mkdir("/d", 0755) == 0);
	FAILS(mkdir("/d", 0755), EEXIST);
	CHECK(mkdir("/d/sub", 0755) == 0);
	put("/d/f", "0123456789");
	FAILS(rmdir("/d"), ENOTEMPTY);
	FAILS(rmdir("/d/f"), ENOTDIR);
	FAILS(unlink("/d/sub"), EISDIR);
	CHECK(rename("/d/f", "/d/sub/g") == 0);
	FAILS(stat("/d/f", &st), ENOENT);
	CHECK(mkdir("/d/empty", 0755) == 0);
	CHECK(mkdir("/d/other", 0755) == 0);
	CHECK(rename("/d/other", "/d/empty") == 0); /* over an empty directory */
	FAILS(rename("/d/empty", "/d/sub"), ENOTEMPTY);
	FAILS(rename("/d", "/d/sub/inside"), EINVAL);
	FAILS(rename("/d/sub/g", "/d/empty"), EISDIR);
	FAILS(rename("/d/empty", "/d/sub/g"), ENOTDIR);

	/* stat, hard links, times */
	CHECK(link("/d/sub/g", "/d/hard") == 0);
	CHECK(stat("/d/hard", &st) == 0 && stat("/d/sub/g", &st2) == 0);
	CHECK(st.st_ino == st2.st_ino && st.st_dev == st2.st_dev && st.st_nlink == 2 && st.st_size == 10);
	CHECK(S_ISREG(st.st_mode));
	struct timespec ts[2] = {{1000, 7}, {2000, 8}};
	CHECK(utimensat(AT_FDCWD, "/d/hard", ts, 0) == 0);
	CHECK(stat("/d/hard", &st) == 0 && st.st_atim.tv_sec == 1000 && st.st_mtim.tv_sec == 2000 && st.st_mtim.tv_nsec == 8);

	/* symbolic links */
	CHECK(symlink("/d/sub/g", "/abs") == 0);
	CHECK(symlink("sub", "/d/rel") == 0);
	CHECK(symlink("loop", "/loop") == 0);
	CHECK(symlink("../d/rel/../hard", "/d/dotdot") == 0);
	CHECK(symlink("/nowhere", "/dangling") == 0);
	FAILS(symlink("x", "/abs"), EEXIST);
	CHECK(stat("/abs", &st) == 0 && st.st_size == 10);
	CHECK(lstat("/abs", &st) == 0 && S_ISLNK(st.st_mode));
	CHECK(stat("/d/rel/g", &st) == 0 && stat("/d/dotdot", &st) == 0 && st.st_size == 10);
	FAILS(stat("/loop", &st), ELOOP);
	FAILS(stat("/dangling", &st), ENOENT);
	CHECK(readlink("/abs", buf, sizeof buf) == 8 && !memcmp(buf, "/d/sub/g", 8));
	CHECK(readlink("/abs", buf, 3) == 3);
	FAILS(readlink("/d", buf, sizeof buf), EINVAL);
	FAILS(open("/abs", O_RDONLY | O_NOFOLLOW), ELOOP);
	CHECK((fd = open("/dangling", O_WRONLY | O_CREAT, 0644)) >= 0 && close(fd) == 0);
	CHECK(stat("/nowhere", &st) == 0);
	FAILS(open("/dangling", O_WRONLY | O_CREAT | O_EXCL, 0644), EEXIST);
	FAILS(rmdir("/d/rel/"), ENOTDIR);

	/* reading and writing */
	CHECK((fd = open("/d/hard", O_RDWR)) >= 0);
	CHECK(pwrite(fd, "ab", 2, 4) == 2 && pread(fd, buf, 4, 3) == 4 && !memcmp(buf, "3ab6", 4));
	CHECK(lseek(fd, 0, SEEK_CUR) == 0 && lseek(fd, -1, SEEK_END) == 9 && read(fd, buf, 9) == 1);
	FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
	CHECK(ftruncate(fd, 3) == 0 && fstat(fd, &st) == 0 && st.st_size == 3);
	CHECK(posix_fallocate(fd, 0, 100) == 0 && fstat(fd, &st) == 0 && st.st_size == 100);
	CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL) == 0);
	CHECK(fsync(fd) == 0 && fdatasync(fd) == 0 && close(fd) == 0);
	CHECK((fd = open("/d/hard", O_WRONLY | O_APPEND)) >= 0);
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && write(fd, "x", 1) == 1 && fstat(fd, &st) == 0 && st.st_size == 101);
	CHECK(fcntl(fd, F_GETFL) == (O_WRONLY | O_APPEND) && fcntl(fd, F_SETFL, 0) == 0);
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && write(fd, "x", 1) == 1 && fstat(fd, &st) == 0 && st.st_size == 101);
	FAILS(read(fd, buf, 1), EBADF);
	CHECK(close(fd) == 0);
	FAILS(close(fd), EBADF);
	FAILS(open("/d/hard", O_RDONLY | O_DIRECTORY), ENOTDIR);
	FAILS(open("/d", O_WRONLY), EISDIR);
	FAILS(open("/missing", O_RDONLY), ENOENT);
	FAILS(open("/d/hard/x", O_RDONLY), ENOTDIR);

	/* many entries, removed while they are read */
	CHECK(mkdir("/many", 0755) == 0);
	for (int i = 0; i < 2000; i++) {
		snprintf(name, sizeof name, "/many/a-rather-long-file-name-%d", i);
		put(name, "");
	}
	CHECK(count("/many", &dots) == 2000 && dots == 2);
	DIR *d = opendir("/many");
	struct dirent *e;
	int removed = 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.') continue;
		CHECK(e->d_type == DT_REG);
		CHECK(unlinkat(dirfd(d), e->d_name, 0) == 0);
		removed++;
	}
	CHECK(removed == 2000);
	CHECK(closedir(d) == 0 && rmdir("/many") == 0);

	/* working relative to a directory that moves */
	CHECK(mkdir("/work", 0755) == 0 && (fd = open("/work", O_RDONLY | O_DIRECTORY)) >= 0);
	CHECK(rename("/work", "/moved") == 0);
	CHECK((fd2 = openat(fd, "new", O_WRONLY | O_CREAT, 0644)) >= 0 && close(fd2) == 0);
	CHECK(stat("/moved/new", &st) == 0);
	FAILS(openat(fd, "../d/hard", O_RDONLY), ENOTCAPABLE);
	CHECK(close(fd) == 0);

	/* the lowest number is reused, and the table has its bound */
	CHECK((fd = open("/", O_RDONLY | O_DIRECTORY)) == 4 && (fd2 = open("/", O_RDONLY | O_DIRECTORY)) == 5);
	CHECK(close(fd) == 0 && open("/", O_RDONLY | O_DIRECTORY) == 4);
	while ((fd = open("/d/hard", O_RDONLY)) >= 0 && fd < 100) {}
	FAILS(open("/d/hard", O_RDONLY), EMFILE);

	/* poll and select; stdin has a line and then ends */
	for (fd = 6; fd < 16; fd++) close(fd);
	struct pollfd p[2] = {{0, POLLIN, 0}, {1, POLLOUT, 0}};
	CHECK(poll(p, 2, 1000) >= 1 && p[1].revents == POLLOUT);
	CHECK(poll(p, 1, 10000) == 1 && (p[0].revents & POLLIN));
	CHECK(read(0, buf, sizeof buf) == 5 && !memcmp(buf, "line\n", 5));
	fd_set r;
	FD_ZERO(&r);
	FD_SET(0, &r);
	struct timeval tv = {10, 0};
	CHECK(select(1, &r, NULL, NULL, &tv) == 1 && FD_ISSET(0, &r));
	CHECK(read(0, buf, sizeof buf) == 0);
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	CHECK(usleep(20000) == 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	CHECK((after.tv_sec - before.tv_sec) * 1000000000ll + after.tv_nsec - before.tv_nsec >= 20000000ll);
	CHECK(!isatty(0) && !isatty(1));

	/* devices */
	CHECK((fd = open("/dev/null", O_RDWR)) >= 0 && write(fd, "x", 1) == 1 && read(fd, buf, 1) == 0);
	CHECK(!isatty(fd));
	close(fd);
	CHECK((fd = open("/dev/zero", O_RDONLY)) >= 0 && read(fd, buf, 4) == 4 && !buf[0] && !buf[3]);
	close(fd);
	CHECK((fd = open("/dev/full", O_WRONLY)) >= 0);
	FAILS(write(fd, "x", 1), ENOSPC);
	close(fd);
	CHECK((fd = open("/dev/urandom", O_RDONLY)) >= 0 && read(fd, buf, 64) == 64);
	close(fd);
	CHECK((fd = open("/dev/stdout", O_WRONLY)) >= 0 && write(fd, "via device\n", 11) == 11);
	CHECK(close(fd) == 0);
	CHECK(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
	FAILS(unlink("/dev/null"), EBUSY);
	FAILS(rename("/dev/null", "/d/null"), EBUSY);
	dots = 0;
	CHECK(count("/dev", &dots) == 8);

	/* a read-only mount, a mounted file, and what the mount table forbids */
	CHECK(stat("/ro/file", &st) == 0 && stat("/d", &st2) == 0 && st.st_dev != st2.st_dev);
	FAILS(open("/ro/file", O_RDWR), EROFS);
	FAILS(open("/ro/new", O_WRONLY | O_CREAT, 0644), EROFS);
	CHECK((fd = open("/ro/file", O_RDONLY | O_CREAT, 0644)) >= 0 && close(fd) == 0);
	FAILS(mkdir("/ro/new", 0755), EROFS);
	FAILS(mkdir("/ro/dir", 0755), EEXIST);
	FAILS(unlink("/ro/file"), EROFS);
	FAILS(rmdir("/ro/dir"), EROFS);
	FAILS(rename("/ro/file", "/ro/x"), EROFS);
	FAILS(link("/ro/file", "/ro/x"), EROFS);
	FAILS(symlink("x", "/ro/x"), EROFS);
	FAILS(utimensat(AT_FDCWD, "/ro/file", ts, 0), EROFS);
	FAILS(truncate("/ro/file", 0), EROFS);
	FAILS(rename("/d/hard", "/vol/hard"), EXDEV);
	FAILS(link("/d/hard", "/vol/hard"), EXDEV);
	put("/vol/x", "in the volume");
	FAILS(rmdir("/vol"), EBUSY);
	FAILS(rename("/vol", "/d/vol"), EBUSY);
	FAILS(unlink("/etc/one"), EBUSY);
	CHECK((fd = open("/etc/one", O_RDONLY)) >= 0 && read(fd, buf, 3) == 3 && close(fd) == 0);
	FAILS(open("/etc/one", O_WRONLY), EROFS);
	FAILS(open("/etc/one/", O_RDONLY), ENOTDIR);
	CHECK(stat("/ro/deep/mount/inner", &st) == 0);
	dots = 0;
	CHECK(count("/ro", &dots) == 3); /* file, dir, deep */
	CHECK(count("/ro/deep", &dots) == 1);
	FAILS(mkdir("/ro/deep/x", 0755), EROFS);
	CHECK(stat("/ro/deep", &st) == 0 && S_ISDIR(st.st_mode));
	CHECK(stat("/via", &st) == 0 && S_ISDIR(st.st_mode) && stat("/via/x", &st) == 0 && st.st_size == 13);
	return failures;
}
`

func TestCFiles(t *testing.T) {
	root, ro, vol, inner := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		ro + "/file": "read only", ro + "/dir/x": "", inner + "/inner": "", inner + "/one": "one",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/target/of/link", root+"/via"); err != nil {
		t.Fatal(err)
	}
	fs := rootFS(root)
	fs.Mounts = append(fs.Mounts,
		Mount{GuestPath: "/ro", Host: ro, ReadOnly: true},
		Mount{GuestPath: "/ro/deep/mount", Host: inner},
		Mount{GuestPath: "/etc/one", Host: inner + "/one", ReadOnly: true},
		Mount{GuestPath: "/vol", Host: vol},
		Mount{GuestPath: "/via", Host: vol}, // lands where the image's link points
	)
	r := run(t, context.Background(), wasmtest.BuildC(t, cFiles), ProcessConfig{
		Args: []string{"files"}, Stdin: strings.NewReader("line\n"), Root: fs, MaxFDs: 16,
	})
	if r.code != 0 || r.stdout != "via device\n" {
		t.Errorf("code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if text, err := os.ReadFile(vol + "/x"); string(text) != "in the volume" {
		t.Errorf("volume has %q, %v", text, err)
	}
	if _, err := os.Stat(root + "/target/of/link"); err != nil {
		t.Error(err)
	}
}
