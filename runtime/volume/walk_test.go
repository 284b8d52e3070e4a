package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"
)

// nest makes directories in one another, and returns a Root of the innermost.
func nest(t *testing.T, dir, name string, depth int) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := root.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := root.OpenRoot(name)
		root.Close()
		if err != nil {
			t.Fatal(err)
		}
		root = next
	}
	return root
}

// TestWalkOfWhatMoves: a guest that moves the directories that a walk is in keeps
// nothing else from being seen.
func TestWalkOfWhatMoves(t *testing.T) {
	for _, tt := range []struct {
		name  string
		depth int
		err   error
	}{
		{"where directories stay open", 5, nil},
		{"deeper down", heldLevels + 5, errMovedAbout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			bottom := nest(t, dir, "d", tt.depth)
			if err := bottom.WriteFile("bottom", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			bottom.Close()
			// Whatever the order is in which the file system lists them.
			for _, name := range []string{"a", "z", "d/a", "d/z"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name, strings.ReplaceAll(name, "/", "-")), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			fd, err := openDirAt(unix.AT_FDCWD, dir)
			if err != nil {
				t.Fatal(err)
			}
			var seen []string
			err = walkTree(t.Context(), fd, func(_ int, name string, st *unix.Stat_t) error {
				if st.Mode&unix.S_IFMT == unix.S_IFREG {
					seen = append(seen, name)
				}
				if name != "bottom" {
					return nil
				}
				// Out of the directory that it is in, at both ends.
				root, err := os.OpenRoot(dir)
				if err != nil {
					return err
				}
				defer root.Close()
				deep := strings.Repeat("d/", tt.depth-1)
				return errors.Join(root.Rename(deep+"d", "moved-1"), root.Rename("d/d", "moved-2"))
			})
			if !errors.Is(err, tt.err) {
				t.Errorf("%v; want %v", err, tt.err)
			}
			slices.Sort(seen)
			if got := strings.Join(seen, " "); got != "a bottom d-a d-z z" {
				t.Errorf("seen: %s", got)
			}
		})
	}
}

// TestFSGroupOfHostile: neither the depth of a claim's directories costs memory, nor is
// what was interrupted taken for done.
func TestFSGroupOfHostileVOL42(t *testing.T) {
	f := withClaims(t)
	mount(t, f, testPod(claimed("data", false)))
	dir := pathOf(t, f, "v")
	const depth = 1200
	bottom := nest(t, dir, strings.Repeat("d", 200), depth)
	if err := bottom.WriteFile("bottom", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer bottom.Close()
	if err := f.Unmount(uid); err != nil {
		t.Fatal(err)
	}
	group := int64(os.Getgid())
	pod := testPod(claimed("data", false))
	onMismatch := corev1.FSGroupChangeOnRootMismatch
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group, FSGroupChangePolicy: &onMismatch}

	base, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.giveToGroup(over, base, filepath.Base(dir), pod, false); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want %v", err, context.Canceled)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	mount(t, f, pod)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d directories in one another cost %d bytes", depth, n)
	}
	if info, err := bottom.Lstat("bottom"); err != nil || info.Mode() != 0o660 {
		t.Errorf("the innermost file: %v, %v", info.Mode(), err)
	}
	if err := RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
