package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var kills = flag.Int("images.kills", 10, "how often TestKilledPulls kills a process that pulls")

// TestKilledPulls kills processes at random points of what they do to a store,
// which is one and the same all the time, and reads all of it each time.
func TestKilledPulls(t *testing.T) {
	host := start(t)
	file := module(t)
	dir := t.TempDir()
	chance := rand.New(rand.NewPCG(1, 2))
	var refs []string
	for i := range 3 {
		ref := fmt.Sprintf("%s/app:v%d", host, i)
		layers := []string{layer(t, dir, "module", map[string][]byte{"app.wasm": read(t, file)})}
		for n := range 4 {
			files := map[string][]byte{}
			for f := range 40 {
				files[fmt.Sprintf("dir%d/file%d", n, f)] = noise(chance, 20_000)
			}
			layers = append(layers, layer(t, dir, fmt.Sprintf("%d-%d", i, n), files))
		}
		args := []string{"append", "-t", ref}
		for _, l := range layers {
			args = append(args, "-f", l)
		}
		run(t, "", crane, args...)
		run(t, "", crane, "mutate", "--entrypoint", "/app.wasm", "--set-platform", "wasip1/wasm", "-t", ref, ref)
		refs = append(refs, ref)
	}
	archive := filepath.Join(dir, "archive.tar")
	other := t.TempDir()
	run(t, other, wasmpod, "image", "pull", refs[0])
	run(t, other, wasmpod, "image", "save", "-o", archive, refs[0])
	begin := time.Now()
	run(t, t.TempDir(), wasmpod, "image", "pull", refs[0])
	whole := time.Since(begin)

	store := t.TempDir()
	killed, damaged := 0, 0
	for n := 0; killed < *kills; n++ {
		if n > 20**kills {
			t.Fatalf("only %d of %d processes were there to be killed", killed, n)
		}
		ref := refs[chance.IntN(len(refs))]
		commands := [][]string{{"image", "pull", ref}}
		switch chance.IntN(8) {
		case 0: // two at a time
			commands = append(commands, []string{"image", "pull", refs[chance.IntN(len(refs))]})
		case 1:
			commands = append(commands, []string{"image", "rm", ref})
		case 2:
			commands = [][]string{{"image", "load", "-i", archive}}
		case 3:
			commands = [][]string{{"image", "prune", "--all"}}
		}
		var running []*exec.Cmd
		for _, args := range commands {
			cmd := exec.Command(wasmpod, args...)
			cmd.Env = append(os.Environ(), "WASMPOD_DATA_DIR="+store)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			running = append(running, cmd)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(chance.Int64N(int64(whole))))
		<-ctx.Done() // a random point is what is wanted
		cancel()
		for i, cmd := range running {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() && i == 0 {
				killed++
			}
		}
		check := exec.Command(wasmpod, "image", "verify")
		check.Env = append(os.Environ(), "WASMPOD_DATA_DIR="+store)
		if out, err := check.CombinedOutput(); err != nil {
			damaged++
			t.Errorf("after %d: image verify: %v\n%s", n, err, out)
		}
		if n%10 == 0 { // what is left does not keep a pull from succeeding
			run(t, store, wasmpod, "image", "pull", ref)
			if got := run(t, store, wasmpod, "run", ref); got != "hello" {
				t.Errorf("it says %q", got)
			}
			if chance.IntN(2) == 0 {
				run(t, store, wasmpod, "image", "prune", "--all")
			}
		}
	}
	for _, ref := range refs {
		run(t, store, wasmpod, "image", "pull", ref)
		if got := run(t, store, wasmpod, "run", ref); got != "hello" {
			t.Errorf("it says %q", got)
		}
	}
	entries, err := os.ReadDir(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d processes killed, %d corrupt stores; the data directory has %v", killed, damaged, entries)
}

func noise(chance *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(chance.Uint32())
	}
	return b
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// layer writes a compressed layer to a file.
func layer(t testing.TB, dir, name string, files map[string][]byte) string {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	for file, content := range files {
		if err := tw.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name+".tar.gz")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
