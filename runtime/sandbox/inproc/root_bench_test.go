package inproc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/volume"
)

// largeImage has files of 8 bytes times repeat.
func largeImage(t testing.TB, n *node, files, repeat int) image.Image {
	t.Helper()
	var err error
	if n.images, err = image.Open(image.Config{Root: filepath.Join(t.TempDir(), "images")}); err != nil {
		t.Fatal(err)
	}
	n.cfg.Images = n.images
	spec := image.BuildSpec{Refs: []string{"large:1"}, Module: n.module}
	dir := t.TempDir()
	for i := range files {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(name, bytes.Repeat([]byte(fmt.Sprintf("%08d", i)), repeat), 0o644); err != nil {
			t.Fatal(err)
		}
		spec.Files = append(spec.Files, image.File{Host: name, Guest: fmt.Sprintf("/data/d%d/%d", i%10, i)})
	}
	if _, err := n.images.Build(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	img, err := n.images.Resolve(t.Context(), "large:1", "")
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (n *node) createAttempt(t testing.TB, s sandbox.Sandbox, img image.Image, attempt int) sandbox.Container {
	t.Helper()
	pod := s.(*podSandbox).pod
	config, err := container.NewConfig(pod, &pod.Spec.Containers[0], container.Inputs{
		Image: img.Config, ImageRef: img.Ref, ImageID: img.ID, Module: img.Module, PodIP: s.IP(), Attempt: attempt,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Create(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// BenchmarkContainerRoot creates containers of an image with 200 files of 1 MB, all
// of which stay until the end: -benchtime=1000x for a thousand. The other benchmark
// makes a copy of the image's files, as was done before, and removes it again.
func BenchmarkContainerRoot(b *testing.B) {
	engine, err := shared()
	if err != nil {
		b.Fatal(err)
	}
	n := newNode(b, engine)
	img := largeImage(b, n, 200, 1<<17)
	pod := n.pod(b, nil)
	s := n.sandbox(b, pod)
	first := n.createAttempt(b, s, img, 0) // unpacks the layers
	b.Run("overlay", func(b *testing.B) {
		b.ReportAllocs()
		before := residentBytes(b)
		var all []sandbox.Container
		for i := 0; b.Loop(); i++ {
			all = append(all, n.createAttempt(b, s, img, i+1))
		}
		b.ReportMetric(float64(residentBytes(b)-before)/float64(len(all)), "RSS/op")
		disk, _, err := volume.DiskUsage(b.Context(), filepath.Join(n.dir, "pods"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(disk)/float64(len(all)), "disk/op")
		for _, c := range all {
			c.Kill()
			<-c.Done()
		}
	})
	b.Run("copy", func(b *testing.B) {
		dir := filepath.Join(b.TempDir(), "copy")
		for b.Loop() {
			if err := n.images.Unpack(b.Context(), img, dir); err != nil {
				b.Fatal(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				b.Fatal(err)
			}
		}
	})
	first.Kill()
	<-first.Done()
}

func residentBytes(t testing.TB) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestContainersShareImage: containers of an image share its files, see each their
// own changes, and keep the files from being removed with the image.
func TestContainersShareImage(t *testing.T) {
	n := sharedNode(t)
	img := largeImage(t, n, 3, 1<<11)
	pod := n.pod(t, nil, "cat /data/d1/1", "write /data/d1/1 changed", "cat /data/d1/1", "write /data/new text", "cat /data/new")
	s := n.sandbox(t, pod)
	const containers = 4
	var all []sandbox.Container
	for i := range containers {
		all = append(all, n.createAttempt(t, s, img, i))
	}
	disk, _, err := volume.DiskUsage(t.Context(), filepath.Join(n.dir, "pods"))
	if err != nil || disk > containers*64<<10 {
		t.Errorf("%d containers take %d bytes on disk, %v", containers, disk, err)
	}
	if _, err := n.images.Prune(context.Background(), image.PruneOptions{All: true}); err != nil {
		t.Error(err)
	}
	for _, c := range all {
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		if status := c.Status(); status.Code != 0 {
			t.Errorf("%+v", status)
		}
	}
	want := strings.Repeat("00000001", 1<<11) + "changedtext"
	if got := n.output(); got != strings.Repeat(want, containers) {
		t.Errorf("the containers printed %d bytes, of which the last are %q; want %d", len(got), got[max(0, len(got)-50):], containers*len(want))
	}
	// Nobody shows the layers any more, and they go.
	if _, err := n.images.Prune(context.Background(), image.PruneOptions{All: true}); err != nil {
		t.Error(err)
	}
}
