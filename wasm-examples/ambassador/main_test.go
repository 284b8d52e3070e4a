package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestProxy(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Seen", r.Method+" "+r.URL.Path+" for "+r.Header.Get("X-Forwarded-For"))
		w.WriteHeader(http.StatusTeapot)
		w.Write(append([]byte("got "), body...))
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	front := httptest.NewServer(proxyTo(target))
	defer front.Close()

	resp, err := http.Post(front.URL+"/a/b", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusTeapot || string(body) != "got hello" {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
	if got, want := resp.Header.Get("Seen"), "POST /a/b for 127.0.0.1"; got != want {
		t.Errorf("the backend saw %q, want %q", got, want)
	}

	backend.Close()
	resp, err = http.Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway {
		t.Errorf("without a backend: %s, want 502", resp.Status)
	}
}
