package wasip1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	builtin "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// cRandomFiles does many random operations on few names and prints the result
// of each. Its argument is the seed.
const cRandomFiles = `
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned seed;
static unsigned rnd(unsigned n) { seed = seed * 1103515245 + 12345; return (seed >> 16) % n; }

/* The last names and operations are left out where the other host is known to
   cut corners with them. */
static int strict;
static const char *names[] = {"a", "b", "a/x", "a/y", "b/x", "a/x/deep", "missing/x", "l", "a/l",
	"a/./x", "a/", "a/../b", "l/x", "l/../b", "b/x/", "a/."};
static const char *name(void) { return names[rnd(strict ? sizeof names / sizeof *names : 9)]; }

static const char *error(void) {
	switch (errno) {
	case 0: return "ok";
#define E(x) case x: return #x;
	E(EACCES) E(EBADF) E(EBUSY) E(EEXIST) E(EINVAL) E(EISDIR) E(ELOOP) E(EMLINK) E(ENOENT) E(ENOTDIR) E(ENOTEMPTY) E(EPERM)
	E(EROFS) E(EXDEV) E(ENOTSUP) E(ENAMETOOLONG)
	}
	return strerror(errno);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void list(const char *dir) {
	char *found[64];
	int n = 0;
	DIR *d = opendir(dir);
	if (!d) { printf("list %s: %s\n", dir, error()); return; }
	struct dirent *e;
	while ((e = readdir(d)) && n < 64) {
		char line[300];
		snprintf(line, sizeof line, "%s:%s", e->d_name, e->d_type == DT_DIR ? "dir" : e->d_type == DT_REG ? "file" : "link");
		found[n++] = strdup(line);
	}
	closedir(d);
	qsort(found, n, sizeof *found, by_name);
	printf("list %s:", dir);
	for (int i = 0; i < n; i++) printf(" %s", found[i]);
	printf("\n");
}

int main(int argc, char **argv) {
	seed = atoi(argv[1]);
	strict = argc > 2;
	char buf[64];
	for (int i = 0; i < 400; i++) {
		const char *a = name(), *b = name();
		int op = rnd(strict ? 13 : 9), r = 0, fd;
		long extra = 0;
		struct stat st;
		errno = 0;
		switch (op) {
		case 0:
			r = mkdir(a, 0755);
			if (r && errno == ENOTDIR && !strict) errno = ENOENT;
			break;
		case 1: r = rmdir(a); break;
		case 2: r = unlink(a); break;
		case 3: if (strict || strncmp(a, b, 1)) r = rename(a, b); break;
		case 4: {
			int flags[] = {O_RDONLY, O_WRONLY | O_CREAT, O_RDWR | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_EXCL, O_WRONLY | O_APPEND, O_RDONLY | O_DIRECTORY};
			r = fd = open(a, flags[rnd(6)], 0644);
			if (fd >= 0) {
				r = 0;
				if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) { close(fd); extra = -1; break; }
				extra = write(fd, "0123456789", rnd(10));
				extra = extra * 100 + lseek(fd, rnd(5), SEEK_SET);
				extra = extra * 100 + read(fd, buf, 7);
				if (extra >= 0 && fstat(fd, &st) == 0) extra = extra * 100 + st.st_size;
				close(fd);
				errno = 0;
			}
			break;
		}
		case 5: r = stat(a, &st); if (!r) extra = S_ISDIR(st.st_mode) ? -1 : st.st_size; break;
		case 6: r = lstat(a, &st); if (!r) extra = S_ISDIR(st.st_mode) ? -1 : st.st_nlink; break;
		case 7: r = truncate(a, rnd(20)); break;
		case 8: r = access(a, R_OK); break;
		case 9: r = symlink(b, a); break;
		case 10: r = readlink(a, buf, sizeof buf); break;
		case 11: r = link(a, b); break;
		case 12: {
			struct timespec ts[2] = {{i, 5}, {2 * i, 6}};
			r = utimensat(AT_FDCWD, a, ts, rnd(2) ? AT_SYMLINK_NOFOLLOW : 0);
			if (!r) r = stat(a, &st);
			if (!r) extra = st.st_mtim.tv_sec == 2 * i;
			break;
		}
		}
		printf("%d %s %s: %d %s %ld\n", op, a, b, r, error(), extra);
	}
	list("."); list("a"); list("b"); list("l");
	return 0;
}
`

// TestLikeKernel runs the same program as a guest and on the host, in a
// directory each, and compares all that it prints.
func TestLikeKernel(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: errors are compared with Linux's")
	}
	guest := wasmtest.BuildC(t, cRandomFiles)
	native := buildNative(t, cRandomFiles)
	seeds := 100
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			args := []string{"files", fmt.Sprint(seed), "strict"}
			ours := run(t, context.Background(), guest, ProcessConfig{
				Args: args, Root: FS{Mounts: []Mount{{GuestPath: "/", Host: t.TempDir()}}},
			})
			cmd := exec.Command(native, args[1:]...)
			cmd.Dir = t.TempDir()
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			compareLines(t, ours, result{stdout: string(out)})
		})
	}
}

// TestLikeBuiltinHost runs the same guests under wazero's own WASI host and
// compares all that they print. That host resolves paths as text and so takes
// "missing/../x" for "x"; such names are for TestLikeKernel.
func TestLikeBuiltinHost(t *testing.T) {
	files := wasmtest.BuildC(t, cRandomFiles)
	for seed := range 20 {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			args := []string{"files", fmt.Sprint(seed)}
			ours := run(t, context.Background(), files, ProcessConfig{
				Args: args, Root: FS{Mounts: []Mount{{GuestPath: "/", Host: t.TempDir()}}},
			})
			theirs := runBuiltin(t, files, t.TempDir(), args...)
			compareLines(t, ours, theirs)
		})
	}
}

func compareLines(t *testing.T, ours, theirs result) {
	t.Helper()
	a, b := strings.Split(ours.stdout, "\n"), strings.Split(theirs.stdout, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("line %d:\nours:   %s\ntheirs: %s", i, a[i], b[i])
		}
	}
	if ours.code != theirs.code || len(a) != len(b) {
		t.Errorf("codes %d and %d, %d and %d lines", ours.code, theirs.code, len(a), len(b))
	}
}

func runBuiltin(t *testing.T, path, root string, args ...string) result {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	builtin.MustInstantiate(ctx, r)
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	_, err = r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithArgs(args...).WithStdout(&stdout).WithStderr(&stderr).
		WithFSConfig(wazero.NewFSConfig().WithDirMount(root, "/")))
	code := 0
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		code = int(exit.ExitCode())
	} else if err != nil {
		t.Fatal(err)
	}
	return result{code, stdout.String(), stderr.String()}
}

// buildNative compiles a C program for the host.
func buildNative(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	source, native := filepath.Join(dir, "main.c"), filepath.Join(dir, "main")
	if err := os.WriteFile(source, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("cc"); err != nil {
		wasmtest.Missing(t, "no C compiler for programs of the host: %v", err)
	}
	if out, err := exec.Command("cc", "-D_GNU_SOURCE", "-o", native, source).CombinedOutput(); err != nil {
		t.Fatalf("building a program of the host: %v\n%s", err, out)
	}
	return native
}
