package images

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var forms = []string{"wasi", "artifact", "compat"}

// TestRegistries: each form of image, pushed to and pulled from real
// registries, by us and by others.
func TestRegistries(t *testing.T) {
	for name, address := range map[string]func(*testing.T) string{
		"distribution v3":   func(t *testing.T) string { return start(t) },
		"Debian's registry": debianRegistry,
	} {
		t.Run(name, func(t *testing.T) {
			host := address(t)
			data := t.TempDir()
			file := module(t)
			for _, form := range forms {
				t.Run(form, func(t *testing.T) {
					id := run(t, data, wasmpod, "image", "build", "-t", "hello", "--form", form, file)
					_, digest, _ := strings.Cut(id, "@")
					ref := host + "/" + form + ":v1"
					if got := run(t, data, wasmpod, "image", "push", "hello", ref); got != host+"/"+form+"@"+digest {
						t.Errorf("pushed %s, want %s", got, digest)
					}
					t.Run("we read it", func(t *testing.T) {
						ran(t, t.TempDir(), ref, digest)
					})
					t.Run("crane reads and writes it", func(t *testing.T) {
						if got := run(t, data, crane, "digest", ref); got != digest {
							t.Errorf("crane digest: %s, want %s", got, digest)
						}
						run(t, data, crane, "validate", "--fast", "--remote", ref)
						run(t, data, crane, "copy", ref, host+"/crane:"+form)
						ran(t, t.TempDir(), host+"/crane:"+form, digest)
						layout := filepath.Join(t.TempDir(), "layout")
						run(t, data, wasmpod, "image", "save", "--format", "oci", "-o", layout, "hello")
						run(t, data, crane, "push", layout, host+"/layout:"+form)
						ran(t, t.TempDir(), host+"/layout:"+form, digest)
					})
					t.Run("skopeo reads and writes it", func(t *testing.T) {
						skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+ref)
						archive := filepath.Join(t.TempDir(), "a.tar")
						run(t, data, wasmpod, "image", "save", "-o", archive, "hello")
						skopeo(t, "copy", "--preserve-digests", "--dest-tls-verify=false", "oci-archive:"+archive, "docker://"+host+"/skopeo:"+form)
						ran(t, t.TempDir(), host+"/skopeo:"+form, digest)
						back := filepath.Join(t.TempDir(), "b.tar")
						skopeo(t, "copy", "--preserve-digests", "--src-tls-verify=false", "docker://"+ref, "oci-archive:"+back+":hello:skopeo")
						other := t.TempDir()
						run(t, other, wasmpod, "image", "load", "-i", back, "-t", "loaded")
						if got := run(t, other, wasmpod, "run", "--offline", "loaded"); got != "hello" {
							t.Errorf("it says %q", got)
						}
						if form == "artifact" {
							return // a docker-archive cannot hold one
						}
						docker := filepath.Join(t.TempDir(), "c.tar")
						skopeo(t, "copy", "--src-tls-verify=false", "--override-os", "linux", "docker://"+ref, "docker-archive:"+docker+":loaded:docker")
						run(t, other, wasmpod, "image", "load", "-i", docker)
						if got := run(t, other, wasmpod, "run", "--offline", "loaded:docker"); got != "hello" {
							t.Errorf("it says %q", got)
						}
					})
				})
			}
			t.Run("an index for many platforms", func(t *testing.T) {
				ref := host + "/multi:v1"
				run(t, data, crane, "index", "append", "-t", ref, "-m", host+"/compat:v1", "-m", host+"/wasi:v1")
				want := run(t, data, crane, "digest", ref)
				ran(t, t.TempDir(), ref, want)
			})
			t.Run("an image of native programs", func(t *testing.T) {
				ref := host + "/native:v1"
				layer := filepath.Join(t.TempDir(), "layer.tar")
				if out, err := exec.Command("tar", "cf", layer, "-C", filepath.Dir(file), ".").CombinedOutput(); err != nil {
					t.Fatalf("tar: %v\n%s", err, out)
				}
				run(t, data, crane, "append", "-f", layer, "-t", ref)
				run(t, data, crane, "mutate", "--entrypoint", "/bin/sh", "--set-platform", "linux/amd64", "-t", ref, ref)
				cmd := exec.Command(wasmpod, "image", "pull", "--data-dir", t.TempDir(), ref)
				out, err := cmd.CombinedOutput()
				if err == nil || !strings.Contains(string(out), "is for linux/amd64: it holds native programs") {
					t.Errorf("%v\n%s", err, out)
				}
			})
		})
	}
}

// ran pulls an image into a new store, compares its digest and runs it.
func ran(t *testing.T, data, ref, digest string) {
	t.Helper()
	if got := run(t, data, wasmpod, "image", "pull", ref); !strings.HasSuffix(got, digest) {
		t.Errorf("pulled %s, want %s", got, digest)
	}
	if got := run(t, data, wasmpod, "run", ref); got != "hello" {
		t.Errorf("it says %q", got)
	}
	run(t, data, wasmpod, "image", "verify")
}

func skopeo(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		skip(t, "there is no skopeo here: apt-get install skopeo")
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "", path, append([]string{"--policy", policy}, args...)...)
}
