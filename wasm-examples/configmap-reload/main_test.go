package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReload(t *testing.T) {
	dir := t.TempDir()
	link := func(to string) {
		if err := os.Symlink(to, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls++; calls == 1 || r.Method != "POST" {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	}))
	defer hook.Close()
	r := &reloader{
		dirs: []string{dir}, webhooks: []string{hook.URL}, method: "POST", retries: 3, pause: time.Millisecond,
		client: hook.Client(), seen: make(map[string]string),
	}
	link("..1")
	for i, want := range []bool{true, false} {
		if got := r.changed(); got != want {
			t.Errorf("look %d: changed %t, want %t", i, got, want)
		}
	}
	link("..2")
	if !r.changed() {
		t.Error("an update was not seen")
	}
	if r.notify(t.Context()); calls != 2 {
		t.Errorf("%d calls of a webhook that fails once, want 2", calls)
	}
}
