package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// VOL-40: an image volume need not hold a module, and an image that does not is still
// none to be started.
func TestImageVolume(t *testing.T) {
	s, root := store(t)
	add(t, root, "docker.io/library/files:1", foreign{layers: [][]byte{
		tarOf(t, record{name: "etc/"}, record{name: "etc/a", body: "lower"}, record{name: "gone", body: "x"}),
		tarOf(t, record{name: "etc/b", body: "b", mode: 0o640}, record{name: ".wh.gone"}, record{name: "etc/hard", kind: '1', link: "etc/a"}, record{name: "etc/l", kind: '2', link: "b"}),
	}})
	_, _, err := s.Ensure(t.Context(), Request{Ref: "files:1", Policy: corev1.PullNever})
	wantError(t, err, ReasonImageInspectError, "holds no WebAssembly module")
	img, pulled, err := s.Ensure(t.Context(), Request{Ref: "files:1", Policy: corev1.PullNever, Volume: true})
	if err != nil || pulled || img.Module != "" {
		t.Fatalf("%+v, %v, %v", img, pulled, err)
	}
	_, _, err = s.Ensure(t.Context(), Request{Ref: "files:1", Policy: corev1.PullNever})
	wantError(t, err, ReasonImageInspectError, "holds no WebAssembly module")
	_, _, err = s.Ensure(t.Context(), Request{Ref: "other:1", Policy: corev1.PullNever, Volume: true})
	wantError(t, err, ReasonErrImageNeverPull, "")

	img, err = s.VolumeImage(t.Context(), "files:1")
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.VolumeRoot(t.Context(), img, t.TempDir())
	if err != nil || !files.Shared {
		t.Fatalf("%+v, %v", files, err)
	}
	defer files.Close()
	var got []string
	contents := map[*RootContent]string{}
	for _, f := range files.Files {
		text := f.Name
		if f.Content != nil {
			b, err := os.ReadFile(f.Content.Path)
			if err != nil || f.Content.Check() != nil {
				t.Errorf("%s: %v", f.Name, err)
			}
			contents[f.Content] = f.Name
			text += "=" + string(b)
		}
		if f.Target != "" {
			text += "->" + f.Target
		}
		got = append(got, text)
	}
	if want := " etc etc/a=lower etc/b=b etc/hard=lower etc/l->b"; strings.Join(got, " ") != want || len(contents) != 2 {
		t.Errorf("files %q in %d contents, want %q in 2", got, len(contents), want)
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	// What is shown stays when the image goes, and is found to be damaged when it is.
	if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	for c, name := range contents {
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Chmod(c.Path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.Path, []byte("wrong"), 0o644); err != nil {
			t.Fatal(err)
		}
		if c.Check() == nil {
			t.Errorf("%s: the damage was not found", name)
		}
	}
	path := files.Files[2].Content.Path
	files.Close()
	if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the layer is still there: %v", err)
	}
}

// VOL-40: the module that a container of the image would be started from is a file of
// the volume, whatever form the image has.
func TestImageVolumeOfModules(t *testing.T) {
	s, root := store(t)
	add(t, root, "docker.io/library/compat:1", foreign{
		layers: [][]byte{tarOf(t, record{name: "app.wasm", body: string(wasm("compat"))}, record{name: "etc/a", body: "a"})},
	})
	etc := t.TempDir()
	write(t, filepath.Join(etc, "a"), []byte("a"))
	build(t, s, BuildSpec{Refs: []string{"built:1"}, ModuleReader: bytes.NewReader(wasm("built")), Files: []File{{Host: etc, Guest: "/etc"}}})
	build(t, s, BuildSpec{Refs: []string{"artifact:1"}, ModuleReader: bytes.NewReader(wasm("artifact")), Form: FormArtifact})
	local := t.TempDir()
	write(t, filepath.Join(local, "local.wasm"), wasm("local"))
	write(t, filepath.Join(local, "text"), []byte("text"))

	for _, tt := range []struct {
		ref, module, content, files string
	}{
		{"compat:1", "app.wasm", "compat", "app.wasm etc etc/a"},
		{"built:1", "", "built", ""},
		{"artifact:1", "", "artifact", ""},
		{filepath.Join(local, "local.wasm"), "local.wasm", "local", "local.wasm"},
		{local, "local.wasm", "local", "local.wasm text"},
	} {
		t.Run("VOL-40 "+filepath.Base(tt.ref), func(t *testing.T) {
			img, err := s.VolumeImage(t.Context(), tt.ref)
			if err != nil {
				t.Fatal(err)
			}
			files, err := s.VolumeRoot(t.Context(), img, filepath.Join(t.TempDir(), "copies"))
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			var names []string
			found := ""
			for _, f := range files.Files {
				if f.Name != "" {
					names = append(names, f.Name)
				}
				if f.Content == nil {
					continue
				}
				b, err := os.ReadFile(f.Content.Path)
				if err != nil || f.Content.Check() != nil {
					t.Fatal(f.Name, err)
				}
				if bytes.Equal(b, wasm(tt.content)) {
					found = f.Name
				}
			}
			if found == "" || tt.module != "" && found != tt.module {
				t.Errorf("the module is %q of %q", found, names)
			}
			if tt.files != "" && strings.Join(names, " ") != tt.files {
				t.Errorf("files %q, want %s", names, tt.files)
			}
			// What starts from the image does not see it, as before.
			root, err := s.Root(t.Context(), img, filepath.Join(t.TempDir(), "copies"))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			for _, f := range root.Files {
				if f.Name == found {
					t.Errorf("a container sees %q, too", found)
				}
			}
		})
	}
}
