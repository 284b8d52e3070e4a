package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestConfigMapLayout(t *testing.T) {
	f := newFixture(t)
	f.configMaps["ns/cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {0, 0xff}}}
	f.secrets["ns/s"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("v")}}
	secret := corev1.Volume{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr(int32(0o400))}}}
	optional := configMap("opt", "none")
	optional.ConfigMap.Optional = ptr(true)
	optionalKey := configMap("optkey", "cm", corev1.KeyToPath{Key: "zz", Path: "zz"}, corev1.KeyToPath{Key: "a", Path: "a"})
	optionalKey.ConfigMap.Optional = ptr(true)
	pod := testPod(configMap("all", "cm"), secret, optional, optionalKey,
		configMap("items", "cm", corev1.KeyToPath{Key: "a", Path: "dir/sub/one", Mode: ptr(int32(0o755))}, corev1.KeyToPath{Key: "a", Path: "dir/two"}, corev1.KeyToPath{Key: "bin", Path: "...x"[3:]}))
	mount(t, f, pod)
	for volume, want := range map[string]string{
		"all":    "V/ 755\nV/a 644 \"1\"\nV/b 644 \"2\"\nV/bin 644 \"\\x00\\xff\"\n..data -> V\na -> ..data/a\nb -> ..data/b\nbin -> ..data/bin\n",
		"s":      "V/ 755\nV/k 400 \"v\"\n..data -> V\nk -> ..data/k\n",
		"opt":    "V/ 755\n..data -> V\n",
		"optkey": "V/ 755\nV/a 644 \"1\"\n..data -> V\na -> ..data/a\n",
		"items":  "V/ 755\nV/dir/ 755\nV/dir/sub/ 755\nV/dir/sub/one 755 \"1\"\nV/dir/two 644 \"1\"\nV/x 644 \"\\x00\\xff\"\n..data -> V\ndir -> ..data/dir\nx -> ..data/x\n",
	} {
		t.Run("VOL-10 VOL-12 VOL-13 "+volume, func(t *testing.T) { wantTree(t, pathOf(t, f, volume), want) })
		if v, _ := f.Volume(uid, volume); !v.ReadOnly {
			t.Errorf("VOL-14 %s is writable", volume)
		}
	}
	if got, err := os.ReadFile(filepath.Join(pathOf(t, f, "items"), "dir/sub/one")); err != nil || string(got) != "1" {
		t.Errorf("VOL-10 through the links: %q, %v", got, err)
	}
	f.setConfigMap("none", map[string]string{"late": "x"})
	if err := f.Refresh(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	wantTree(t, pathOf(t, f, "opt"), "V/ 755\nV/late 644 \"x\"\n..data -> V\nlate -> ..data/late\n") // VOL-13
}

func TestRefreshVOL10_VOL11(t *testing.T) {
	f := newFixture(t)
	f.setConfigMap("cm", map[string]string{"a": "1", "gone": "x"})
	pod := testPod(configMap("v", "cm"), emptyDir("e"))
	mount(t, f, pod)
	dir := pathOf(t, f, "v")
	version := func() string {
		s, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	refresh := func() {
		t.Helper()
		if err := f.Refresh(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	first := version()
	refresh()
	if version() != first {
		t.Error("VOL-11 the same content was written again")
	}
	f.setConfigMap("cm", map[string]string{"a": "2", "new": "y"})
	refresh()
	if version() == first {
		t.Error("VOL-10 new content was not written")
	}
	wantTree(t, dir, "V/ 755\nV/a 644 \"2\"\nV/new 644 \"y\"\n..data -> V\na -> ..data/a\nnew -> ..data/new\n")

	f.mu.Lock()
	delete(f.configMaps, "ns/cm")
	f.mu.Unlock()
	before := tree(t, dir)
	want := []string{`MountVolume.SetUp failed for volume "v" : configmap "cm" not found`}
	if diff := cmp.Diff(want, messages(t, f.Refresh(t.Context(), pod))); diff != "" {
		t.Error(diff)
	}
	wantTree(t, dir, before)

	// A new process finds what an old one has left in every stage of an update.
	f.setConfigMap("cm", map[string]string{"a": "2", "new": "y"})
	second := version()
	for _, name := range []string{"..2020_01_01_00_00_00.1", "..2020_01_01_00_00_00.2/x"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"..data_tmp": "nowhere", "stale": "..data/stale"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	again := &fixture{Manager: NewManager(f.config)}
	if err := again.Mount(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if version() != second {
		t.Error("VOL-11 the same content was written again by a new process")
	}
	if err := os.WriteFile(filepath.Join(dir, "..data/a"), nil, 0o644); err != nil { // as after a power failure
		t.Fatal(err)
	}
	third := &fixture{Manager: NewManager(f.config)}
	if err := third.Mount(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, before)
}

func TestRefreshIsAtomic(t *testing.T) {
	f := newFixture(t)
	data := func(v string) map[string]string { return map[string]string{"a": v, "b": v, "c": v} }
	f.setConfigMap("cm", data("0"))
	pod := testPod(configMap("v", "cm"))
	mount(t, f, pod)
	dir := pathOf(t, f, "v")
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		stopped <- func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				// A reader that has opened a version sees all of that version, or
				// that it is gone, but never a mixture.
				root, err := os.OpenRoot(filepath.Join(dir, "..data"))
				if err != nil {
					if errors.Is(err, os.ErrNotExist) {
						continue // it was replaced between the two steps of opening
					}
					return err
				}
				var seen []string
				for _, name := range []string{"a", "b", "c"} {
					if text, err := root.ReadFile(name); err == nil {
						seen = append(seen, string(text))
					}
				}
				_ = root.Close()
				if len(slices.Compact(seen)) > 1 {
					return fmt.Errorf("VOL-10 mixture: %v", seen)
				}
			}
		}()
	}()
	for i := range 200 {
		f.setConfigMap("cm", data(fmt.Sprint(i)))
		if err := f.Refresh(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestBadPathsVOL11(t *testing.T) {
	long := strings.Repeat("n", 256)
	for path, want := range map[string]string{
		"":                               `invalid path: must not be empty: ""`,
		"/a":                             `invalid path: must be relative path: /a`,
		"a/../b":                         `invalid path: must not contain '..': a/../b`,
		"..":                             `invalid path: must not contain '..': ..`,
		"..a":                            `invalid path: must not start with '..': ..a`,
		"..data/x":                       `invalid path: must not start with '..': ..data/x`,
		"./..data":                       `invalid path: must not start with '..': ./..data`,
		"a/" + long:                      `invalid path: filenames must be less than or equal to 255 characters`,
		strings.Repeat("n/", 2048) + "x": `invalid path: must be less than or equal to 4096 characters`,
		".":                              `invalid path: "."`,
		"a\x00b":                         `invalid path: "a\x00b"`,
	} {
		if err := checkPath(path); err == nil || err.Error() != want {
			t.Errorf("VOL-11 %.20q: got %v, want %s", path, err, want)
		}
	}
	for _, path := range []string{"a", "a/b/..c", "...", "a..b"} {
		if err := checkPath(path); (err == nil) == (path == "...") {
			t.Errorf("VOL-11 %q: %v", path, err)
		}
	}
	t.Run("a path that is both file and directory leaves nothing behind", func(t *testing.T) {
		f := newFixture(t)
		f.setConfigMap("cm", map[string]string{"k": "v"})
		pod := testPod(configMap("v", "cm", corev1.KeyToPath{Key: "k", Path: "a"}, corev1.KeyToPath{Key: "k", Path: "a/b"}))
		if err := f.Mount(t.Context(), pod); err == nil {
			t.Fatal("no error")
		}
		wantTree(t, filepath.Join(f.root, "pods", string(uid), "volumes"), "configmap/ 750\n")
	})
}
