package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestShip(t *testing.T) {
	var got strings.Builder
	refuse := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		collector(&got).ServeHTTP(w, r)
	}))
	defer server.Close()
	s := &shipper{file: filepath.Join(t.TempDir(), "app.log"), url: server.URL, client: server.Client()}
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(s.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		io.WriteString(f, text)
	}
	ship := func(all bool, want string) {
		t.Helper()
		if err := s.ship(all); err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Fatalf("the collector has %q, want %q", got.String(), want)
		}
	}

	refuse = false
	ship(false, "") // no file yet
	write("one\ntw")
	ship(false, "one\n")
	write("o\n")
	ship(false, "one\ntwo\n")

	refuse = true
	write("three\n")
	if err := s.ship(false); err == nil {
		t.Error("no error from a collector that refuses")
	}
	refuse = false
	ship(false, "one\ntwo\nthree\n")

	long := strings.Repeat("x", maxBatch+10) + "\n"
	write(long)
	ship(false, "one\ntwo\nthree\n"+long)

	got.Reset()
	if err := os.Remove(s.file); err != nil { // rotated
		t.Fatal(err)
	}
	write("new")
	ship(false, "")
	ship(true, "new")
}
