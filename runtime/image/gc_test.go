package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// aged makes it so long since an image was used last.
func aged(t *testing.T, s *Service, ref string, age time.Duration) {
	t.Helper()
	n, err := parseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	desc, ok, err := s.stores[0].find(n)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", ref, ok, err)
	}
	at := time.Now().Add(-age)
	for _, file := range []string{s.stores[0].blobPath(desc.Digest), write(t, filepath.Join(s.cfg.Root, usedDir, desc.Digest.Hex), nil)} {
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCollect: what the automatic collection removes, and what it keeps.
func TestCollect(t *testing.T) {
	srv := startRegistry(t)
	refs := map[string]string{}
	for _, name := range []string{"old", "older", "fresh", "used", "named"} {
		srv.push(t, name+":v1", wasmImage(t, name))
		refs[name] = srv.host + "/" + name + ":v1"
	}
	module := write(t, filepath.Join(t.TempDir(), "m.wasm"), wasm("built"))
	const gib = 1 << 30
	for _, test := range []struct {
		name       string
		thresholds Thresholds
		free       int64 // of 100 GiB
		gone       string
		wanted     bool
	}{
		{"there is room", Thresholds{High: 85, Low: 80, MinAge: 2 * time.Minute}, 16 * gib, "", false},
		{"the disk is full", Thresholds{High: 85, Low: 80, MinAge: 2 * time.Minute}, 15 * gib, "old older", true},
		{"the disk is full, and all that is not in use may go", Thresholds{High: 85, Low: 80}, 1 * gib, "fresh old older", true},
		{"the disk is full, and that is all right", Thresholds{High: 100, Low: 80}, 0, "", false},
		{"age, though there is room", Thresholds{High: 85, Low: 80, MinAge: 2 * time.Minute, MaxAge: 90 * time.Minute}, 90 * gib, "older", false},
		{"nothing is wanted", Thresholds{}, 0, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t, quick(t))
			var inUse []string
			for name, ref := range refs {
				img, _, err := s.Ensure(t.Context(), Request{Ref: ref})
				if err != nil {
					t.Fatal(err)
				}
				switch name {
				case "used":
					inUse = append(inUse, img.ID)
				case "named":
					inUse = append(inUse, ref)
				}
			}
			build(t, s, BuildSpec{Module: module, Refs: []string{"built"}})
			for name, age := range map[string]time.Duration{"old": time.Hour, "older": 2 * time.Hour, "used": 3 * time.Hour, "named": 3 * time.Hour} {
				aged(t, s, refs[name], age)
			}
			aged(t, s, "built", 4*time.Hour)
			s.disk = func(string) (int64, int64, error) { return test.free, 100 * gib, nil }
			done, err := s.Collect(t.Context(), test.thresholds, inUse)
			if err != nil {
				t.Fatal(err)
			}
			var gone []string
			for name, ref := range refs {
				if _, ok, err := s.Present(ref); err != nil {
					t.Error(err)
				} else if !ok {
					gone = append(gone, name)
				}
			}
			slices.Sort(gone)
			if got := strings.Join(gone, " "); got != test.gone || len(done.Images) != len(gone) {
				t.Errorf("removed %q (%q), want %q", got, done.Images, test.gone)
			}
			if (done.Wanted > done.Bytes) != test.wanted {
				t.Errorf("wanted %d bytes, got %d", done.Wanted, done.Bytes)
			}
			if _, ok, _ := s.Present("built"); !ok {
				t.Error("what was built here is gone")
			}
			checkStore(t, s.cfg.Root)
		})
	}
	t.Run("only as much as is needed, the one unused for longest first", func(t *testing.T) {
		s := open(t, quick(t))
		for _, name := range []string{"old", "older"} {
			if _, err := s.Pull(t.Context(), refs[name], PullOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		aged(t, s, refs["old"], time.Hour)
		aged(t, s, refs["older"], 2*time.Hour)
		s.disk = func(string) (int64, int64, error) { return 14_999, 100_000, nil }
		done, err := s.Collect(t.Context(), Thresholds{High: 85, Low: 85}, nil)
		if err != nil || !slices.Equal(done.Images, []string{refs["older"]}) || done.Bytes < done.Wanted {
			t.Errorf("%+v, %v", done, err)
		}
	})
	t.Run("who uses an image marks it for others", func(t *testing.T) {
		cfg := quick(t)
		s, other := open(t, cfg), open(t, cfg)
		img, err := s.Pull(t.Context(), refs["old"], PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		aged(t, s, refs["old"], 3*time.Hour)
		s.Touch([]string{img.ID})
		if done, err := other.Collect(t.Context(), Thresholds{MaxAge: time.Hour}, nil); err != nil || len(done.Images) > 0 {
			t.Errorf("%+v, %v", done, err)
		}
	})
	t.Run("there is no store yet", func(t *testing.T) {
		cfg := quick(t)
		if _, err := open(t, cfg).Collect(t.Context(), Thresholds{High: 1, MaxAge: time.Hour}, nil); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(cfg.Root); err == nil {
			t.Error("one was made")
		}
	})
}

func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		t    Thresholds
		want string
	}{
		{Thresholds{}, ""},
		{Thresholds{High: 85, Low: 80, MinAge: time.Minute}, ""},
		{Thresholds{High: 100, Low: 80}, ""},
		{Thresholds{High: 101}, "percentages"},
		{Thresholds{High: 80, Low: 85}, "below the high one"},
		{Thresholds{MaxAge: -1}, "negative"},
		{Thresholds{MinAge: time.Hour, MaxAge: time.Minute}, "above the minimum"},
	} {
		if err := c.t.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.t, err)
		}
	}
}
