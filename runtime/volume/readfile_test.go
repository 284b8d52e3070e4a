package volume

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestReadFileENV06(t *testing.T) {
	f := newFixture(t)
	mount(t, f, testPod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}))
	dir := pathOf(t, f, "v")
	outside := filepath.Join(t.TempDir(), "outside")
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "d"), 0o755),
		os.WriteFile(filepath.Join(dir, "d/f"), []byte("content"), 0o644),
		os.WriteFile(outside, []byte("secret"), 0o644),
		os.WriteFile(filepath.Join(dir, "large"), make([]byte, maxEnvFile+1), 0o644),
		os.Symlink("d/f", filepath.Join(dir, "link")),
		os.Symlink(outside, filepath.Join(dir, "out")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"d/f": "content", "/d/f": "content", "link": "content",
		"out": "", "large": "", "pipe": "", "d": "", "none": "", "../x": "",
	} {
		b, err := f.ReadFile(uid, "v", name)
		if string(b) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := f.ReadFile(uid, "other", "f"); err == nil {
		t.Error("there is no such volume")
	}
}
