package wasip1

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// lowerOf makes a Lower of a directory of the host, as it is now.
func lowerOf(t testing.TB, dir string) *Lower {
	t.Helper()
	l := NewLower()
	contents := map[uint64]*LowerContent{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if name == "." {
			name = ""
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		e := LowerEntry{Name: filepath.ToSlash(name), Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid, MTime: info.ModTime()}
		switch info.Mode().Type() {
		case 0:
			if contents[st.Ino] == nil {
				contents[st.Ino] = &LowerContent{Path: path, Size: info.Size()}
			}
			e.Content = contents[st.Ino]
		case fs.ModeSymlink:
			if e.Target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		return l.Add(e)
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// overlayOf shows a directory of the host, with room for changes elsewhere.
func overlayOf(t testing.TB, dir string) *Overlay {
	t.Helper()
	o := NewOverlay(OverlayConfig{Lower: lowerOf(t, dir), Dir: t.TempDir()})
	t.Cleanup(o.Close)
	return o
}

func overlayFS(o *Overlay) FS {
	return FS{Mounts: append([]Mount{{GuestPath: "/", Overlay: o}}, Devices()...)}
}

// TestOverlayLikeKernel runs the program of TestLikeKernel on a directory, and then
// again, with another seed: natively on that directory, and as a guest on an
// overlay that shows it. The overlay is compared with what the kernel does, the
// image's files stay as they were, and so it is when all is on disk.
func TestOverlayLikeKernel(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: errors are compared with Linux's")
	}
	guest := wasmtest.BuildC(t, cRandomFiles)
	native := buildNative(t, cRandomFiles)
	seeds := 100
	switch {
	case raceEnabled:
		seeds = 4
	case testing.Short():
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inNative := func(dir string, args ...string) string {
				cmd := exec.Command(native, args...)
				cmd.Dir = dir
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				return string(out)
			}
			image := t.TempDir()
			inNative(image, fmt.Sprint(1000+seed), "strict")
			// An image has no hard links of symbolic links.
			if out, err := exec.Command("find", image, "-type", "l", "-links", "+1", "-delete").CombinedOutput(); err != nil {
				t.Fatalf("find: %v %s", err, out)
			}
			before := listTree(t, image)
			copied := filepath.Join(t.TempDir(), "copy")
			if out, err := exec.Command("cp", "-a", image, copied).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v %s", err, out)
			}
			o := NewOverlay(OverlayConfig{Lower: lowerOf(t, image), Dir: t.TempDir()})
			if seed%2 == 1 {
				o.config.MemoryBytes = 1 // everything on disk
			}
			defer o.Close()
			args := []string{fmt.Sprint(seed), "strict"}
			ours := run(t, context.Background(), guest, ProcessConfig{
				Args: append([]string{"files"}, args...), Root: FS{Mounts: []Mount{{GuestPath: "/", Overlay: o}}},
			})
			compareLines(t, ours, result{stdout: inNative(copied, args...)})
			if after := listTree(t, image); after != before {
				t.Errorf("the image was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

func listTree(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", "cd "+dir+" && find . -printf '%p %y %m %s %l %n %T@\n' | sort && find . -type f -exec cat {} +").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
