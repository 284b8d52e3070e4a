package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestDiskUsage(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write := func(name string, bytes int) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, make([]byte, bytes), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(outside, "large"), 1<<20)
	write(filepath.Join(dir, "a/b/file"), 100_000)
	for _, err := range []error{
		os.Link(filepath.Join(dir, "a/b/file"), filepath.Join(dir, "hard")),
		os.Symlink(outside, filepath.Join(dir, "link")),
		os.Symlink(filepath.Join(outside, "large"), filepath.Join(dir, "a/link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "hole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	f.Close()
	bytes, files, err := DiskUsage(t.Context(), dir)
	if err != nil || bytes < 100_000 || bytes > 200_000 || files != 6 {
		t.Errorf("RES-30: %d bytes in %d files, %v: want a little more than 100000 in 6", bytes, files, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := DiskUsage(ctx, dir); err == nil {
		t.Error("it did not end with its context")
	}
	if _, _, err := DiskUsage(t.Context(), filepath.Join(dir, "missing")); err == nil {
		t.Error("no error for a directory that is not there")
	}
}

// TestDiskUsageOfHostile: directories nested deeper than any path may be long, and
// moved about while they are walked.
func TestDiskUsageOfHostile(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	const depth = 40
	long := strings.Repeat("d", 200)
	for range depth {
		if err := root.Mkdir(long, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := root.OpenRoot(long)
		root.Close()
		if err != nil {
			t.Fatal(err)
		}
		root = next
	}
	if err := root.WriteFile("bottom", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	root.Close()
	if bytes, files, err := DiskUsage(t.Context(), dir); err != nil || files != depth+1 || bytes < 1<<20 {
		t.Errorf("%d bytes in %d files, %v", bytes, files, err)
	}
	stop := make(chan struct{})
	var mover sync.WaitGroup
	mover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				os.Rename(filepath.Join(dir, long, long), filepath.Join(dir, "e"))
				os.Rename(filepath.Join(dir, "e"), filepath.Join(dir, long, long))
			}
		}
	})
	for range 20 {
		if _, files, _ := DiskUsage(t.Context(), dir); files > 2*depth+2 {
			t.Fatalf("counted %d files", files)
		}
	}
	close(stop)
	mover.Wait()
	if err := RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
