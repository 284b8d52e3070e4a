package image

import (
	"os"
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

	_, files, err := s.VolumeRoot(t.Context(), "files:1", t.TempDir())
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
