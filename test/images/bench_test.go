package images

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var bench = flag.Bool("images.bench", false, "measure pulling against crane export | tar x")

// TestBenchPull measures, in alternating runs, how long it takes to have the
// files of a 200 MB image: by crane export into tar, which keeps nothing but the
// files, and by a pull, which also keeps the verified image.
func TestBenchPull(t *testing.T) {
	if !*bench {
		t.Skip("a measurement: make bench-images")
	}
	host := start(t)
	chance := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	args := []string{"append", "-t", host + "/big:v1", "-f", layer(t, dir, "module", map[string][]byte{"app.wasm": read(t, module(t))})}
	const layers, each, size = 4, 500, 100_000
	for n := range layers {
		files := map[string][]byte{}
		for f := range each {
			// Half of it compresses, as programs do.
			b := noise(chance, size)
			for i := 0; i < size; i += 2 {
				b[i] = "abcdefgh"[b[i]&7]
			}
			files[fmt.Sprintf("layer%d/dir%d/file%d", n, f/50, f)] = b
		}
		args = append(args, "-f", layer(t, dir, fmt.Sprint(n), files))
	}
	ref := host + "/big:v1"
	run(t, "", crane, args...)
	run(t, "", crane, "mutate", "--entrypoint", "/app.wasm", "--set-platform", "wasip1/wasm", "-t", ref, ref)

	by := map[string][]time.Duration{}
	measure := func(name string, f func(dir string)) {
		to := t.TempDir()
		_ = exec.Command("sync").Run()
		begin := time.Now()
		f(to)
		by[name] = append(by[name], time.Since(begin))
		if err := os.RemoveAll(to); err != nil {
			t.Error(err)
		}
	}
	for range 5 {
		measure("crane export | tar x", func(to string) {
			cmd := exec.Command("sh", "-c", `"$0" export "$1" - | tar x -C "$2"`, crane, ref, to)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
		measure("wasmpod image pull", func(to string) {
			run(t, to, wasmpod, "image", "pull", "-q", ref)
			if entries, err := os.ReadDir(filepath.Join(to, "images", "layers")); err != nil || len(entries) != layers+1 {
				t.Fatalf("it was not unpacked: %v, %v", entries, err)
			}
		})
	}
	median := func(name string) time.Duration {
		d := by[name]
		slices.Sort(d)
		return d[len(d)/2]
	}
	theirs, ours := median("crane export | tar x"), median("wasmpod image pull")
	t.Logf("%d MB in %d files, %d layers; median of 5: crane export | tar x %v, wasmpod image pull %v: %.2f times as long",
		layers*each*size/1_000_000, layers*each, layers, theirs.Round(time.Millisecond), ours.Round(time.Millisecond), float64(ours)/float64(theirs))
}
