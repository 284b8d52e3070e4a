package hostile

import (
	"fmt"
	"runtime/debug"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// hostState is a guest of 128 KiB that makes its host keep one kind of thing after
// another until it is refused, for as long as it takes. Then it prints the errno.
const hostState = `
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define WASI(f) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#f)))
#define HOST(f) __attribute__((import_module("wasmpod"), import_name(#f)))
WASI(path_open) int path_open(int, int, const char *, int, int, int64_t, int64_t, int, int *);
WASI(path_create_directory) int path_create_directory(int, const char *, int);
WASI(path_symlink) int path_symlink(const char *, int, int, const char *, int);
WASI(fd_pwrite) int fd_pwrite(int, const void *, int, int64_t, int *);
WASI(fd_close) int fd_close(int);
WASI(sock_open) int sock_open(int, int, int *);
HOST(fd_dup) int fd_dup(int, int *);
HOST(signal_open) int signal_open(int64_t, int *);
HOST(poll_open) int poll_open(int *);
HOST(poll_control) int poll_control(int, int, int, int64_t);

enum { CREAT = 1, EXCL = 4 };
static int fd, dir = 3, sets[64], socks[64], n;
static char name[256];

static int open_(int dir, int flags) {
	int64_t rights = flags ? (1 << 29) - 1 : 1 << 1 | 1 << 9 | 1 << 13; /* to read, and to make directories and open */
	return path_open(dir, 0, name, strlen(name), flags, rights, rights, 0, &fd);
}

static int step(const char *kind, int i) {
	int errno_;
	snprintf(name, sizeof name, "%0200d", i);
	switch (*kind) {
	case 'd': /* descriptors, as many names of one file */
		return fd_dup(3, &fd);
	case 'o': /* open files */
		strcpy(name, "dev/null");
		return open_(3, 0);
	case 'n': /* directories, each opened from the last */
		if ((errno_ = path_create_directory(dir, name, 200)) || (errno_ = open_(dir, 0))) return errno_;
		dir = fd;
		return 0;
	case 'i': /* interests: in 64 sets, for every socket */
		if (i == 0)
			for (int j = 0; j < 64; j++)
				if ((errno_ = poll_open(&sets[j]))) return errno_;
		if (i % 64 == 0 && (errno_ = sock_open(1, 1, &socks[0]))) return errno_;
		return poll_control(sets[i % 64], socks[0], 3, 0);
	case 's': /* sockets */
		return sock_open(1, 2, &fd);
	case 'f': /* files of the private root */
		return (errno_ = open_(3, CREAT | EXCL)) ? errno_ : fd_close(fd);
	case 'l': /* links there, with much in them */
		return path_symlink(name, 200, 3, name, 200);
	case 'b': { /* bytes there, one in each block */
		const char *iovec[2] = {name, (char *)1};
		if (i % 16 == 0) {
			if (i) fd_close(fd);
			if ((errno_ = open_(3, CREAT | EXCL))) return errno_;
		}
		return fd_pwrite(fd, iovec, 1, 4096LL * (i % 16), &n);
	}
	}
	return 28;
}

int main(int argc, char **argv) {
	for (int i = 0; i < 1 << 20; i++) {
		int errno_ = step(argv[1], i);
		if (errno_) {
			printf("%d %d\n", errno_, i);
			return 1;
		}
	}
	return 0;
}
`

// OOM-06, OOM-05: a guest that makes its host remember things dies at its limit as
// one that fills its own memory, or is refused, and takes no more of the host's
// memory than its limit several times over.
func TestHostState(t *testing.T) {
	if raceEnabled {
		t.Skip("skipped: the race detector's own memory would be measured")
	}
	const limit = 2 << 20
	image := wasmtest.BuildC(t, hostState, "-Wl,--strip-all", "-Wl,-z,stack-size=16384", "-Wl,--initial-memory=131072")
	n := newNode(t)
	run := func(kind string) string {
		t.Helper()
		pod := newPod(strings.Fields(kind)[0], image, kind)
		c := &pod.Spec.Containers[0]
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(limit, resource.BinarySI)}
		c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
		r, err := n.start(t.Context(), pod)
		if err != nil {
			t.Fatal(err)
		}
		<-r.container.Done()
		got := r.container.Status()
		if err := r.remove(); err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("%s, %s", got.Reason, got.Message)
	}
	run("descriptors") // so that code and pools are there
	const noBuffers, noSpace, orKilled = "Error, 42 ", "Error, 51 ", "|OOMKilled"
	for kind, want := range map[string]string{
		"descriptors": "OOMKilled",
		"open files":  "OOMKilled",
		"nested":      "OOMKilled",
		"interests":   "OOMKilled",
		"sockets":     noBuffers, // as a kernel refuses them
		"files":       noSpace,   // as a disk does
		"links":       noSpace,
		"bytes":       noSpace + orKilled, // they go to the disk, until there is nothing left for a name, or a descriptor
	} {
		t.Run("OOM-06 "+kind, func(t *testing.T) {
			debug.FreeOSMemory()
			before := currentRSS()
			resetPeak()
			want, or, both := strings.Cut(want, "|")
			if got := run(kind); !strings.HasPrefix(got, want) && !(both && strings.HasPrefix(got, or)) {
				t.Errorf("ended with %q, want %q", got, want)
			}
			// Twice for what Go has not collected yet, and the rest for the engine.
			took := peakRSS() - before
			t.Logf("RSS rises by %d KiB", took>>10)
			if took > 2*limit+8<<20 {
				t.Errorf("RSS has risen by %d KiB for a guest with a limit of %d", took>>10, limit>>10)
			}
		})
	}
	debug.FreeOSMemory()
}
