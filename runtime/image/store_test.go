package image

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	corev1 "k8s.io/api/core/v1"
)

// TestMain lets the test binary be another process that builds images.
func TestMain(m *testing.M) {
	if root := os.Getenv("WASMPOD_TEST_BUILD_IN"); root != "" {
		if err := buildProcess(root, os.Getenv("WASMPOD_TEST_BUILDER")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// buildProcess builds images until it has built ten or is killed. The builder
// named "stuck" never gets the end of its module.
func buildProcess(root, builder string) error {
	s, err := Open(Config{Root: root})
	if err != nil {
		return err
	}
	if builder == "stuck" {
		r, w := io.Pipe()
		go func() {
			_, _ = w.Write(wasm("never complete"))
			fmt.Println("begun")
		}()
		_, err := s.Build(context.Background(), BuildSpec{Refs: []string{"stuck"}, ModuleReader: r})
		return err
	}
	for i := range 10 {
		_, err := s.Build(context.Background(), BuildSpec{
			Refs:         []string{fmt.Sprintf("own-%s:%d", builder, i), "shared:latest", "shared:" + builder},
			ModuleReader: bytes.NewReader(wasm(fmt.Sprint(builder, i))),
		})
		if err != nil {
			return err
		}
		fmt.Println(i)
	}
	return nil
}

func builderCommand(t *testing.T, root, builder string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "WASMPOD_TEST_BUILD_IN="+root, "WASMPOD_TEST_BUILDER="+builder)
	cmd.Stderr = os.Stderr
	return cmd
}

// checkStore reads everything in a store, with our code and with
// go-containerregistry's.
func checkStore(t *testing.T, root string) []Image {
	t.Helper()
	s := open(t, Config{Root: root})
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		if b, err := s.Module(t.Context(), img.Module); err != nil || digestOf(b) != img.Module {
			t.Errorf("%s: %v", img.Ref, err)
		}
	}
	p, err := ocilayout.FromPath(root)
	if err != nil {
		t.Fatal(err)
	}
	index, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	// Without Fast it wants every layer to be compressed; content has just been
	// verified above.
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Error(err)
	}
	return list
}

func TestBuild(t *testing.T) {
	files := t.TempDir()
	write(t, filepath.Join(files, "site", "index.html"), []byte("<p>"))
	write(t, filepath.Join(files, "site", "bin", "run"), []byte("x"))
	if err := os.Chmod(filepath.Join(files, "site", "bin", "run"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("index.html", filepath.Join(files, "site", "home")); err != nil {
		t.Fatal(err)
	}
	module := write(t, filepath.Join(files, "app.wasm"), wasm("app"))
	spec := BuildSpec{
		Refs: []string{"registry/app:v3.0", "app"}, Module: module,
		Files: []File{
			{Host: filepath.Join(files, "site"), Guest: "/srv"},
			{Host: filepath.Join(files, "site", "index.html"), Guest: "/etc/one", Mode: 0o600},
		},
		Cmd: []string{"-l", ":80"}, Env: []string{"A=b=c"}, WorkingDir: "/srv", User: "12:13",
		Labels: map[string]string{"org.example/x": "y"},
	}
	s, root := store(t)
	img := build(t, s, spec)
	if img.Ref != "docker.io/registry/app:v3.0" || !strings.HasPrefix(img.ID, "docker.io/registry/app@sha256:") || img.Module != digestOf(wasm("app")) {
		t.Errorf("got %+v", img)
	}
	if list := checkStore(t, root); len(list) != 2 {
		t.Errorf("list %+v", list)
	}
	again, err := open(t, Config{Root: root}).Resolve(t.Context(), "registry/app:v3.0", corev1.PullNever)
	if err != nil || !reflect.DeepEqual(again, img) {
		t.Errorf("resolved %+v, %v\nbuilt    %+v", again, err, img)
	}
	if c := again.Config; !reflect.DeepEqual(c.Entrypoint, []string{"/app.wasm"}) || !reflect.DeepEqual(c.Cmd, spec.Cmd) ||
		!reflect.DeepEqual(c.Env, spec.Env) || c.WorkingDir != "/srv" || c.User != "12:13" {
		t.Errorf("ENV-14 config %+v", c)
	}
	dir := t.TempDir()
	if err := s.Unpack(t.Context(), img, dir); err != nil {
		t.Fatal(err)
	}
	want := `drwxr-xr-x etc
-rw------- etc/one <p>
drwxr-xr-x srv
drwxr-xr-x srv/bin
-rwxr-xr-x srv/bin/run x
link srv/home -> index.html
-rw-r--r-- srv/index.html <p>`
	if got := listing(t, dir); got != want {
		t.Errorf("unpacked:\n%s\nwant:\n%s", got, want)
	}

	t.Run("the same spec gives the same bytes", func(t *testing.T) {
		other, _ := store(t)
		copied := filepath.Join(t.TempDir(), "elsewhere")
		if err := os.CopyFS(copied, os.DirFS(files)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(copied, "site", "index.html"), 0o664); err != nil {
			t.Fatal(err)
		}
		spec := spec
		spec.Module, spec.ModuleReader, spec.ModuleName = "", bytes.NewReader(wasm("app")), "app"
		spec.Files = []File{
			{Host: filepath.Join(copied, "site", "index.html"), Guest: "/etc/one", Mode: 0o600},
			{Host: filepath.Join(copied, "site"), Guest: "/srv/"},
		}
		if got := build(t, other, spec); got.ID != img.ID {
			t.Errorf("got %s, want %s", got.ID, img.ID)
		}
	})
	t.Run("the digest of a known build does not change", func(t *testing.T) {
		// A new digest is a new image on every node: change it knowingly.
		got := build(t, s, BuildSpec{Refs: []string{"golden"}, ModuleReader: bytes.NewReader(wasm("golden"))})
		if want := "docker.io/library/golden@" + goldenDigest; got.ID != want {
			t.Errorf("got %s, want %s", got.ID, want)
		}
	})
	t.Run("mistakes", func(t *testing.T) {
		module := func() io.Reader { return bytes.NewReader(wasm("x")) }
		for message, spec := range map[string]BuildSpec{
			"needs a name":                    {ModuleReader: module()},
			"couldn't parse":                  {Refs: []string{"A B"}, ModuleReader: module()},
			"a digest cannot be given":        {Refs: []string{"a@" + someDigest}, ModuleReader: module()},
			"needs a module":                  {Refs: []string{"a"}},
			"not a WebAssembly module":        {Refs: []string{"a"}, ModuleReader: strings.NewReader("x")},
			"no such file":                    {Refs: []string{"a"}, Module: "/gone.wasm"},
			"is not a file":                   {Refs: []string{"a"}, Module: files},
			"want KEY=value":                  {Refs: []string{"a"}, ModuleReader: module(), Env: []string{"A"}},
			"is the entry module's place":     {Refs: []string{"a"}, ModuleReader: module(), Files: []File{{Host: spec.Module, Guest: "/entry.wasm"}}},
			"want an absolute path":           {Refs: []string{"a"}, ModuleReader: module(), Files: []File{{Host: spec.Module, Guest: "x"}}},
			"/x is given twice":               {Refs: []string{"a"}, ModuleReader: module(), Files: []File{{Host: spec.Module, Guest: "/x"}, {Host: spec.Module, Guest: "//x"}}},
			"/x/y cannot lie below /x":        {Refs: []string{"a"}, ModuleReader: module(), Files: []File{{Host: spec.Module, Guest: "/x"}, {Host: spec.Module, Guest: "/x/y"}}},
			"markers of the image format":     {Refs: []string{"a"}, ModuleReader: module(), Files: []File{{Host: spec.Module, Guest: "/.wh.x"}}},
			"the image's root is a directory": {Refs: []string{"a"}, ModuleReader: module(), Files: []File{{Host: spec.Module, Guest: "/"}}},
			"cannot be the name of a module":  {Refs: []string{"a"}, ModuleReader: module(), ModuleName: "../x"},
		} {
			if _, err := s.Build(t.Context(), spec); err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("error = %v, want …%s…", err, message)
			}
		}
		if list := checkStore(t, root); len(list) != 3 {
			t.Errorf("list %+v", list)
		}
		if _, err := open(t, Config{}).Build(t.Context(), BuildSpec{Refs: []string{"a"}, ModuleReader: module()}); !errors.Is(err, errNoStore) {
			t.Errorf("without a store: %v", err)
		}
	})
}

const goldenDigest = "sha256:0b26abb7515dc385b1ee3c1945b811f45662815050666e99bde485d210d3a4cf"

func TestTagAndRemove(t *testing.T) {
	s, root := store(t)
	img := build(t, s, BuildSpec{Refs: []string{"a:1"}, ModuleReader: bytes.NewReader(wasm("a"))})
	build(t, s, BuildSpec{Refs: []string{"b"}, ModuleReader: bytes.NewReader(wasm("b"))})
	if err := s.Tag(t.Context(), "a:1", "a:2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), img.ID, "c"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Tag(t.Context(), "gone", "x"), s.Remove(t.Context(), "gone")} {
		if err == nil || !strings.Contains(err.Error(), `image "gone" is not in the local store`) {
			t.Errorf("error = %v", err)
		}
	}
	blobs := func() int {
		entries, err := os.ReadDir(filepath.Join(root, "blobs", "sha256"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := blobs()
	if err := s.Remove(t.Context(), "docker.io/library/a@"+strings.Split(img.ID, "@")[1]); err != nil {
		t.Fatal(err)
	}
	if list := checkStore(t, root); len(list) != 2 || blobs() != before {
		t.Errorf("all names of the repository go, and the content stays while it has another name: %+v", list)
	}
	if err := s.Remove(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if blobs() != before/2 {
		t.Errorf("%d blobs of %d remain", blobs(), before)
	}
	if _, err := s.Module(t.Context(), img.Module); err == nil {
		t.Error("a removed module is still there")
	}
	if err := s.Unpack(t.Context(), img, t.TempDir()); err != nil && !strings.Contains(err.Error(), "removed") && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unpack after removal: %v", err)
	}
	if list := checkStore(t, root); len(list) != 1 {
		t.Errorf("list %+v", list)
	}
}

// TestDamage: every bit of a store counts. A changed, cut or missing blob is
// an error, at the latest when the module or the files are read.
func TestDamage(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "f"), bytes.Repeat([]byte("data "), 1000))
	s, root := store(t)
	build(t, s, BuildSpec{Refs: []string{"x"}, ModuleReader: bytes.NewReader(wasm(strings.Repeat("m", 3000))), Files: []File{{Host: file, Guest: "/f"}}})
	blobs, err := filepath.Glob(filepath.Join(root, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 4 {
		t.Fatal(blobs, err)
	}
	use := func(s *Service) error {
		img, err := s.Resolve(t.Context(), "x", "")
		if err != nil {
			wantError(t, err, ReasonImageInspectError, `Failed to inspect image "x"`)
			return err
		}
		if _, err := s.Module(t.Context(), img.Module); err != nil {
			wantError(t, err, ReasonImageInspectError, "")
			return err
		}
		dir := t.TempDir()
		err = s.Unpack(t.Context(), img, dir)
		if err != nil && listing(t, dir) != "" {
			t.Errorf("damaged files were left behind")
		}
		return err
	}
	if err := use(s); err != nil {
		t.Fatal(err)
	}
	for _, blob := range blobs {
		good, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(good)
		flipped[min(len(good)-1, 1000)] ^= 1
		for what, bad := range map[string][]byte{"flipped": flipped, "cut": good[:len(good)/2], "empty": {}, "missing": nil} {
			if bad == nil {
				err = os.Remove(blob)
			} else {
				err = os.WriteFile(blob, bad, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			// What was unpacked before is good still.
			if err := os.RemoveAll(filepath.Join(root, layersDir)); err != nil {
				t.Fatal(err)
			}
			if use(open(t, Config{Root: root})) == nil {
				t.Errorf("IMG-09 %s %s was not noticed", what, blob)
			}
			// One that had read it before may know the small blobs by heart,
			// but never gives out bytes that it has not verified.
			if img, err := s.Resolve(t.Context(), "x", ""); err == nil {
				if b, err := s.Module(t.Context(), img.Module); err == nil && digestOf(b) != img.Module {
					t.Error("a wrong module")
				}
			}
		}
		write(t, blob, good)
	}
	if err := use(s); err != nil {
		t.Errorf("after repair: %v", err)
	}
	for _, index := range []string{"", "{", `[]`, `{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}`, `{"manifests":"x"}`} {
		write(t, filepath.Join(root, "index.json"), []byte(index))
		_, err := open(t, Config{Root: root}).Resolve(t.Context(), "x", "")
		wantError(t, err, ReasonImageInspectError, "index.json")
	}
}

func TestConcurrentBuilders(t *testing.T) {
	s, root := store(t)
	var wg sync.WaitGroup
	for p := range 3 {
		wg.Go(func() {
			if out, err := builderCommand(t, root, fmt.Sprintf("p%d", p)).Output(); err != nil {
				t.Errorf("builder process: %v: %s", err, out)
			}
		})
	}
	for g := range 3 {
		wg.Go(func() {
			for i := range 10 {
				ref := fmt.Sprintf("g%d:%d", g, i)
				if _, err := s.Build(t.Context(), BuildSpec{Refs: []string{ref}, ModuleReader: bytes.NewReader(wasm(ref))}); err != nil {
					t.Error(err)
				}
				if i%2 == 1 {
					if err := s.Remove(t.Context(), ref); err != nil {
						t.Error(err)
					}
				}
				if _, err := s.List(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if list := checkStore(t, root); len(list) != 3*10+1+3+3*5 {
		t.Errorf("%d images", len(list))
	}
	if left := listing(t, filepath.Join(root, tmpDir)); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestKilledBuilders: a builder that dies at any moment leaves a store that is
// whole, and garbage that the next writer removes.
func TestKilledBuilders(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	t.Run("while it copies the module", func(t *testing.T) {
		cmd := builderCommand(t, root, "stuck")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "begun\n" {
			t.Fatal(line, err)
		}
		s := open(t, Config{Root: root})
		build(t, s, BuildSpec{Refs: []string{"a"}, ModuleReader: bytes.NewReader(wasm("a"))})
		if listing(t, filepath.Join(root, tmpDir)) == "" {
			t.Fatal("the files of a living builder were removed")
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		build(t, s, BuildSpec{Refs: []string{"b"}, ModuleReader: bytes.NewReader(wasm("b"))})
		if left := listing(t, filepath.Join(root, tmpDir)); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
		if list := checkStore(t, root); len(list) != 2 {
			t.Errorf("list %+v", list)
		}
	})
	t.Run("at any moment", func(t *testing.T) {
		for round := range 10 {
			builder := fmt.Sprintf("k%d", round)
			cmd := builderCommand(t, root, builder)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// What it said that it built must be there afterwards.
			lines := bufio.NewScanner(out)
			for range round {
				lines.Scan()
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() { // what was on its way
			}
			_ = cmd.Wait()
			checkStore(t, root)
			s := open(t, Config{Root: root})
			for i := range round {
				if _, err := s.Resolve(t.Context(), fmt.Sprintf("own-%s:%d", builder, i), ""); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			}
		}
		// Blobs without a name, and half-written files, are garbage.
		write(t, filepath.Join(root, "blobs", "sha256", "half"), []byte("x"))
		write(t, filepath.Join(root, "index.json.new"), []byte("{"))
		s := open(t, Config{Root: root})
		if err := s.Remove(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(root, "blobs", "sha256", "half")); !isAbsent(err) {
			t.Error("garbage was not removed")
		}
		if left := listing(t, filepath.Join(root, tmpDir)); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
		checkStore(t, root)
	})
}

func TestWaitingForAnotherWriterEnds(t *testing.T) {
	s, root := store(t)
	build(t, s, BuildSpec{Refs: []string{"a"}, ModuleReader: bytes.NewReader(wasm("a"))})
	lock, busy, err := tryLock(filepath.Join(root, lockFile))
	if err != nil || busy {
		t.Fatal(busy, err)
	}
	defer lock.release()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Remove(ctx, "a") }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if _, err := s.Resolve(t.Context(), "a", ""); err != nil {
		t.Errorf("readers do not wait for writers: %v", err)
	}
}

// TestIndexIsReadAgain: another process's change is seen, however soon after
// the last one.
func TestIndexIsReadAgain(t *testing.T) {
	s, root := store(t)
	other := open(t, Config{Root: root})
	for i := range 50 {
		build(t, other, BuildSpec{Refs: []string{"a"}, ModuleReader: bytes.NewReader(wasm(fmt.Sprintf("%02d", i)))})
		img, err := s.Resolve(t.Context(), "a", "")
		if err != nil || img.Module != digestOf(wasm(fmt.Sprintf("%02d", i))) {
			t.Fatalf("build %d: %+v, %v", i, img, err)
		}
	}
}

func TestImageIsPlain(t *testing.T) {
	s, _ := store(t)
	img := build(t, s, BuildSpec{Refs: []string{"a"}, ModuleReader: bytes.NewReader(wasm("a"))})
	raw, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	var back Image
	if err := json.Unmarshal(raw, &back); err != nil || !reflect.DeepEqual(back, img) {
		t.Errorf("%+v, %v", back, err)
	}
}
