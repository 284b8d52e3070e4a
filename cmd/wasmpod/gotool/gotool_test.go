package gotool

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	for version, want := range map[string]int{
		"go1.25":                   25,
		"go1.25.12":                25,
		"go1.26.8":                 26,
		"go1.26rc1":                26,
		"go1.26.1 X:nodwarf5":      26,
		"go1.26.1-X:jsonv2":        26,
		"go1.24.3":                 0,
		"go1.27.0":                 0,
		"go1.27rc1":                0,
		"go2.26.1":                 0,
		"go1.260":                  0,
		"devel go1.26-0123456789":  0,
		"":                         0,
		"go1.99999999999999999999": 0,
	} {
		got, err := minor(version)
		var unknown *VersionError
		if got != want || (err != nil) != (want == 0) || err != nil && !errors.As(err, &unknown) {
			t.Errorf("minor(%q) = %d, %v; want %d", version, got, err, want)
		}
	}
}

func TestVersionErrorSaysWhatToDo(t *testing.T) {
	_, err := (&Toolchain{Root: t.TempDir(), Version: "go1.27.0"}).Overlay(t.TempDir(), "")
	if err == nil || !strings.Contains(err.Error(), "Go 1.25 and 1.26") {
		t.Errorf("error: %v", err)
	}
}

func TestEdits(t *testing.T) {
	const src = "// head\n\n//go:build js || wasip1\n\npackage p\n\n// F is.\n//\n//go:noescape\nfunc F() int {\n\treturn 1\n}\n\ntype T struct {\n\tx int\n}\n\nfunc (t *T) G() {}\n\nfunc G() {}\n"
	for name, tt := range map[string]struct {
		edit edit
		want string // "" for an error
	}{
		"constraint":         {constrain("", "js || wasip1", "js"), strings.Replace(src, "js || wasip1", "js", 1)},
		"other constraint":   {constrain("", "wasip1", "js"), ""},
		"cut":                {cut("", "F", "T"), "// head\n\n//go:build js || wasip1\n\npackage p\n\n\n\n\n\n\n\n\n\n\n\n\nfunc (t *T) G() {}\n\nfunc G() {}\n"},
		"cut no method":      {cut("", "G"), strings.Replace(src, "func G() {}", "", 1)},
		"cut what is absent": {cut("", "F", "H"), ""},
		"replace":            {replace("", "return 1", "return 2"), strings.Replace(src, "return 1", "return 2", 1)},
		"replace twice":      {replace("", "func", "fun"), ""},
		"replace none":       {replace("", "return 3", "return 2"), ""},
	} {
		got, err := tt.edit.apply([]byte(src))
		if (err != nil) != (tt.want == "") || err == nil && string(got) != tt.want {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	if _, err := setConstraint([]byte("package p\n\n//go:build js\n"), "js", "x"); err == nil {
		t.Error("a constraint after the package clause was taken for one")
	}
}

// toolchains are the machine's toolchains, one for each supported version; one
// that is neither installed nor in the module cache is left out.
func toolchains(t *testing.T) []*Toolchain {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("skipped: there is no go command")
	}
	installed, err := Find(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	all := []*Toolchain{installed}
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	cache := strings.TrimSpace(string(out))
	found, _ := filepath.Glob(filepath.Join(cache, "golang.org", "toolchain@v0.0.1-go1.*"))
	for _, root := range found {
		version, err := os.ReadFile(filepath.Join(root, "VERSION"))
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(string(version), "\n")
		if _, err := minor(name); err == nil && name != installed.Version {
			all = append(all, &Toolchain{Command: filepath.Join(root, "bin", "go"), Root: root, Version: name, modCache: cache})
		}
	}
	return all
}

func TestOverlay(t *testing.T) {
	for _, tc := range toolchains(t) {
		t.Run(tc.Version, func(t *testing.T) {
			dir := t.TempDir()
			o, err := tc.Overlay(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			again, err := tc.Overlay(dir, "")
			if err != nil || again.File != o.File {
				t.Errorf("the second time: %v, %v; the first time: %v", again, err, o)
			}
			// The whole of the network compiles, and nothing of the fake is left.
			cmd := exec.Command(tc.Command, "list", "-overlay", o.File, "-f", "{{join .GoFiles \"\\n\"}}", "net", "os/signal", "syscall")
			cmd.Dir, cmd.Env = dir, append(tc.Environ(), "GOFLAGS=")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, name := range strings.Fields(string(out)) {
				if strings.Contains(name, "fake") && name != "time_nofake.go" {
					t.Errorf("%s is still compiled", name)
				}
			}
			if testing.Short() {
				return
			}
			cmd = exec.Command(tc.Command, "build", "-overlay", o.File, "net/http", "os/signal", "os/user")
			cmd.Dir, cmd.Env = dir, append(tc.Environ(), "GOFLAGS=")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// A patched toolchain is refused.
func TestUnexpectedFile(t *testing.T) {
	tc := toolchains(t)[0]
	root := t.TempDir()
	for _, e := range edits {
		data, err := os.ReadFile(filepath.Join(tc.Root, "src", e.file))
		if err != nil {
			t.Fatal(err)
		}
		if e.file == "net/fd_unix.go" {
			data = []byte(strings.Replace(string(data), "//go:build unix\n", "//go:build unix || wasip1\n", 1))
		}
		if err := write(filepath.Join(root, "src", e.file), data); err != nil {
			t.Fatal(err)
		}
	}
	_, err := (&Toolchain{Root: root, Version: tc.Version}).Overlay(t.TempDir(), "")
	if err == nil || !strings.Contains(err.Error(), "src/net/fd_unix.go") {
		t.Errorf("error: %v", err)
	}
}

func TestUsersOverlay(t *testing.T) {
	tc := toolchains(t)[0]
	dir := t.TempDir()
	users := filepath.Join(dir, "users.json")
	for text, want := range map[string]string{
		`{"Replace": {"/a/x.go": "/b/x.go", "/a/y.go": ""}}`:                         "",
		`{"Replace": {"` + filepath.Join(tc.Root, "src/net/net_fake.go") + `": ""}}`: "has to be replaced",
		`{`: "users.json",
	} {
		if err := os.WriteFile(users, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		o, err := tc.Overlay(dir, users)
		if want == "" {
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(o.File)
			if err != nil || !strings.Contains(string(data), `"/a/x.go": "/b/x.go"`) {
				t.Errorf("%v: %s", err, data)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
