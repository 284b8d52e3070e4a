package runtime

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Processes that start at the same time sweep each other's directories, and must
// not take one that is just being made for a leftover.
func TestRunDirsOfProcessesThatStartTogether(t *testing.T) {
	parent := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	for range 20 {
		if err := os.Mkdir(filepath.Join(parent, "leftover"), 0o755); err != nil {
			t.Fatal(err)
		}
		dirs := make([]*runDir, 30)
		var wg sync.WaitGroup
		for i := range dirs {
			wg.Go(func() {
				d, err := newRunDir(parent, log)
				if err != nil {
					t.Error(err)
					return
				}
				dirs[i] = d
			})
		}
		wg.Wait()
		seen := make(map[string]bool)
		for _, d := range dirs {
			if d == nil {
				continue
			}
			if seen[d.path] {
				t.Errorf("%s is given out twice", d.path)
			}
			seen[d.path] = true
			if info, err := os.Stat(d.path); err != nil || !info.IsDir() {
				t.Errorf("%v, %v", info, err)
			}
			if err := d.remove(); err != nil {
				t.Error(err)
			}
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Fatalf("left: %v, %v", left, err)
		}
	}
}
