package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestSubPath(t *testing.T) {
	f := newFixture(t)
	host := t.TempDir()
	secret := filepath.Join(host, "secret")
	if err := os.WriteFile(secret, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := testPod(emptyDir("e"), hostPath("file", secret, corev1.HostPathFile), hostPath("dir", host, ""))
	mount(t, f, pod)
	dir := pathOf(t, f, "e")
	for name, target := range map[string]string{
		"escape": host, "up": "../../../../../..", "abs": "/", "inside": "real", "loop": "loop", "dangling": "nothing/here",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "real/d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		volume, subPath string
		want            SubPath
	}{
		{"e", "", SubPath{dir, ".", true}},
		{"e", "./", SubPath{dir, ".", true}},
		{"e", "new/deep", SubPath{dir, "new/deep", true}},
		{"e", "new/deep", SubPath{dir, "new/deep", true}}, // again
		{"e", "f", SubPath{dir, "f", false}},
		{"e", "inside/d", SubPath{dir, "inside/d", true}},
		{"e", "inside/more", SubPath{dir, "inside/more", true}},
		{"file", "", SubPath{host, "secret", false}},
		{"dir", "secret", SubPath{host, "secret", false}},
	} {
		t.Run("VOL-30 "+tt.volume+" "+tt.subPath, func(t *testing.T) {
			got, err := f.SubPath(uid, "c", tt.volume, tt.subPath)
			if err != nil {
				t.Fatal(errors.Unwrap(err))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Dir {
				root, err := got.OpenRoot()
				if err != nil {
					t.Fatal(err)
				}
				_ = root.Close()
			}
		})
	}
	if info, err := os.Stat(filepath.Join(dir, "new/deep")); err != nil || info.Mode() != fs.ModeDir|0o777 {
		t.Errorf("VOL-30 mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "real/more")); err != nil || !info.IsDir() {
		t.Errorf("VOL-30 behind a symlink: %v", err)
	}
	before := tree(t, host)
	for _, tt := range [][2]string{
		{"e", "escape"}, {"e", "escape/secret"}, {"e", "escape/new"}, {"e", "up/etc"}, {"e", "abs/etc/passwd"}, {"e", "loop"}, {"e", "loop/x"},
		{"e", "../x"}, {"e", "a/../../x"}, {"e", "/etc"}, {"e", "f/x"}, {"e", "dangling/x"}, {"e", "nul\x00"}, {"file", "x"}, {"none", "x"},
		{"e", strings.Repeat("n", 300)},
	} {
		_, err := f.SubPath(uid, "c", tt[0], tt[1])
		want := fmt.Sprintf("failed to prepare subPath for volumeMount %q of container %q", tt[0], "c")
		var se *SubPathError
		if !errors.As(err, &se) || err.Error() != want || se.Err == nil {
			t.Errorf("VOL-30 %.30q: got %v, want %s", tt[1], err, want)
		}
	}
	wantTree(t, host, before)
	if _, err := f.SubPath("nobody", "c", "e", "x"); err == nil {
		t.Error("an unknown pod has volumes")
	}
	if len(f.pods) != 1 {
		t.Errorf("%d pods are remembered", len(f.pods))
	}
}

func TestSubPathOfConfigMapVOL15(t *testing.T) {
	f := newFixture(t)
	f.setConfigMap("cm", map[string]string{"k": "1"})
	pod := testPod(configMap("v", "cm"))
	mount(t, f, pod)
	dir := pathOf(t, f, "v")
	versions := func() int {
		n := 0
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), "..") {
				n++
			}
		}
		return n
	}
	prepare := func(container, subPath string) string {
		t.Helper()
		s, err := f.SubPath(uid, container, "v", subPath)
		if err != nil {
			t.Fatal(errors.Unwrap(err))
		}
		return filepath.Join(s.Root, s.Name)
	}
	update := func(value string) {
		t.Helper()
		f.setConfigMap("cm", map[string]string{"k": value})
		if err := f.Refresh(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(id, path, want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", id, got, err, want)
		}
	}
	a := prepare("a", "k")
	update("2")
	update("3")
	shows("VOL-15 a subPath mount never updates", a, "1")
	shows("VOL-10 the volume does", filepath.Join(dir, "k"), "3")
	if n := versions(); n != 2 {
		t.Errorf("%d versions are kept, want 2", n)
	}
	b := prepare("b", "..data/k")
	update("4")
	shows("VOL-15", a, "1")
	shows("VOL-15", b, "3")
	a = prepare("a", "k") // the next attempt
	shows("VOL-15 a restart sees the new content", a, "4")
	update("5")
	shows("VOL-15", a, "4")
	if n := versions(); n != 3 { // 3 for b, 4 for a, 5
		t.Errorf("%d versions are kept, want 3", n)
	}
	if missing := prepare("a", "nokey"); missing != filepath.Join(dir, "nokey") {
		t.Errorf("VOL-30 got %s", missing)
	}
	if info, err := os.Stat(filepath.Join(dir, "nokey")); err != nil || !info.IsDir() {
		t.Errorf("VOL-30 %v", err)
	}
	f.setConfigMap("cm", map[string]string{"k": "6", "nokey": "late"})
	if err := f.Refresh(t.Context(), pod); err != nil {
		t.Errorf("a directory in the place of a key stops updates: %v", err)
	}
	if err := f.Unmount(uid); err != nil {
		t.Fatal(err)
	}
	wantTree(t, f.root, "pods/ 750\n")
}

func TestUnmountHostileTree(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "keep"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mount(t, f, testPod(emptyDir("e"), hostPath("h", outside, "")))
	dir := pathOf(t, f, "e")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(root.Symlink(outside, "out"))
	check(root.Symlink("..", "parent"))
	check(root.MkdirAll("locked/inner/deep", 0o755))
	check(root.WriteFile("locked/inner/f", nil, 0))
	check(root.Symlink(outside, "locked/inner/out"))
	check(root.Chmod("locked/inner", 0))
	check(root.Chmod("locked", 0o500))
	check(root.WriteFile(".removing-1", nil, 0o600))
	check(root.MkdirAll(".removing-2/x/y", 0o755))
	for i := range 3000 { // more than are listed at a time
		check(root.WriteFile(fmt.Sprint("f", i), nil, 0o600))
	}
	// Deeper than any path may be long, as a guest can do step by step.
	const depth = 1000
	at := root
	for range depth {
		check(at.Mkdir(strings.Repeat("d", 100), 0o755))
		check(at.Symlink(outside, "s"))
		next, err := at.OpenRoot(strings.Repeat("d", 100))
		check(err)
		check(at.Close())
		at = next
	}
	check(at.Close())

	if err := f.Unmount(uid); err != nil {
		t.Fatal(err)
	}
	wantTree(t, f.root, "pods/ 750\n")
	wantTree(t, outside, "keep 600 \"x\"\n")
}

func TestRemoveAll(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	if err := errors.Join(os.MkdirAll(filepath.Join(outside, "x"), 0o755), os.MkdirAll(filepath.Join(dir, "tree/a/b"), 0o755),
		os.Symlink(outside, filepath.Join(dir, "tree/a/link")), os.Symlink(outside, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tree", "tree", "link", "none/at/all"} {
		if err := RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantTree(t, dir, "outside/ 755\noutside/x/ 755\n")
}

func TestUnmountKeepsWhatIsNotOurs(t *testing.T) {
	f := newFixture(t)
	mount(t, f, testPod(emptyDir("e")))
	other := filepath.Join(f.root, "pods", string(uid), "containers")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := f.Unmount(uid); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

func FuzzSubPath(f *testing.F) {
	for _, s := range []string{"a", "../x", "l/x", "l/../../x", "/", "a//b/./c", "l", "\x00", "..", "...", "up/x"} {
		f.Add(s)
	}
	base := f.TempDir()
	outside := filepath.Join(base, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, subPath string) {
		m := newFixture(t)
		mount(t, m, testPod(emptyDir("e")))
		dir := pathOf(t, m, "e")
		_ = os.Symlink(outside, filepath.Join(dir, "l"))
		_ = os.Symlink("../../..", filepath.Join(dir, "up"))
		above := func() string { return tree(t, filepath.Join(m.root, "pods", string(uid), "volumes", "empty-dir")) }
		s, err := m.SubPath(uid, "c", "e", subPath)
		if err == nil && (s.Root != dir || !filepath.IsLocal(s.Name)) {
			t.Errorf("%q gave %+v", subPath, s)
		}
		if got := tree(t, outside); got != "" {
			t.Errorf("%q made %s outside", subPath, got)
		}
		if !strings.HasPrefix(above(), "e/ ") {
			t.Errorf("%q made %s", subPath, above())
		}
		if err := m.Unmount(uid); err != nil {
			t.Error(err)
		}
	})
}
