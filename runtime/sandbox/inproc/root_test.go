package inproc

import (
	"testing"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// VOL-40: what the host keeps of an image that is a volume it keeps once, however many
// containers mount it, until the last has ended.
func TestImageVolumesAreSharedVOL40(t *testing.T) {
	n := sharedNode(t)
	largeImage(t, n, 1, 1)
	var guests []*guest
	for range 3 {
		g := &guest{sandbox: &podSandbox{cfg: n.cfg, roots: &n.roots}, dir: t.TempDir()}
		m, err := g.mountImage(t.Context(), "large:1", container.Mount{Volume: "v", GuestPath: "/v"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Overlay.Stat("data/d0/0"); err != nil {
			t.Error(err)
		}
		guests = append(guests, g)
	}
	if len(n.roots.images) != 1 {
		t.Errorf("the files are kept %d times", len(n.roots.images))
	}
	for _, g := range guests {
		if len(n.roots.images) != 1 {
			t.Error("they are let go of too early")
		}
		for _, letGo := range g.volumes {
			letGo()
		}
	}
	if len(n.roots.images) != 0 {
		t.Error("they are not let go of")
	}
}
