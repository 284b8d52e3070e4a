package images

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Commands that the tests run, built once.
var wasmpod, registry, crane string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wasmpod-images-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, b := range []struct {
		to      *string
		in, pkg string
	}{
		{&wasmpod, "../..", "./cmd/wasmpod"},
		{&registry, ".", "./registry"},
		{&crane, ".", "github.com/google/go-containerregistry/cmd/crane"},
	} {
		*b.to = filepath.Join(dir, filepath.Base(b.pkg))
		cmd := exec.Command("go", "build", "-o", *b.to, b.pkg)
		cmd.Dir = b.in
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build %s: %v\n%s", b.pkg, err, out)
			return 1
		}
	}
	os.Setenv("DOCKER_CONFIG", dir) // nobody's credentials
	os.Unsetenv("REGISTRY_AUTH_FILE")
	return m.Run()
}

// start runs a registry and returns its address.
func start(t testing.TB) string {
	t.Helper()
	cmd := exec.Command(registry, "-dir", t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// debianRegistry runs the registry that Debian has, or skips the test.
func debianRegistry(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		skip(t, "there is no docker-registry here: apt-get install docker-registry")
	}
	config := filepath.Join(t.TempDir(), "config.yml")
	text := "version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: " + t.TempDir() + "}}\nhttp: {addr: '127.0.0.1:0'}\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", config)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	address := make(chan string, 1)
	go func() {
		defer close(done)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if _, rest, ok := strings.Cut(sc.Text(), "listening on "); ok {
				address <- strings.Fields(strings.TrimSuffix(rest, `"`))[0]
			}
		}
		close(address)
	}()
	a, ok := <-address
	if !ok {
		t.Fatal("docker-registry does not say where it listens")
	}
	return strings.TrimSuffix(a, `"`)
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// run runs a command that must succeed and returns its output.
func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "WASMPOD_DATA_DIR="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// module is a guest that says hello: assembled here, so that nothing has to be
// compiled.
func module(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hello.wasm")
	section := func(id byte, content ...byte) []byte { return append([]byte{id, byte(len(content))}, content...) }
	import1 := append(append([]byte{1, 22}, "wasi_snapshot_preview1"...), append(append([]byte{8}, "fd_write"...), 0, 0)...)
	data := append([]byte{1, 0, 0x41, 0, 0x0b, 22}, append([]byte{8, 0, 0, 0, 6, 0, 0, 0}, "hello\n\x00\x00\x00\x00\x00\x00\x00\x00"...)...)
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, 2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0)...)
	b = append(b, section(2, import1...)...)
	b = append(b, section(3, 1, 1)...)
	b = append(b, section(5, 1, 0, 1)...)
	b = append(b, section(7, append(append([]byte{2, 6}, "memory"...), append(append([]byte{2, 0, 6}, "_start"...), 0, 1)...)...)...)
	b = append(b, section(10, 1, 13, 0, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 20, 0x10, 0, 0x1a, 0x0b)...)
	b = append(b, section(11, data...)...)
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
