package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const page = "Active connections: 2 \nserver accepts handled requests\n 10 9 25 \nReading: 0 Writing: 1 Waiting: 1 \n"

func TestParse(t *testing.T) {
	got, err := parse(strings.NewReader(page))
	if want := (status{2, 10, 9, 25, 0, 1, 1}); err != nil || got != want {
		t.Errorf("parse = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "<html>", page[:30], "Active connections: -1 \n"} {
		if s, err := parse(strings.NewReader(bad)); err == nil {
			t.Errorf("parse(%q) = %+v and no error", bad, s)
		}
	}
}

func TestCollect(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) }))
	c := &collector{page: server.URL, client: server.Client()}
	want := `
# HELP nginx_http_requests_total Total HTTP requests.
# TYPE nginx_http_requests_total counter
nginx_http_requests_total 25
# HELP nginx_up Whether the status page could be read.
# TYPE nginx_up gauge
nginx_up 1
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "nginx_up", "nginx_http_requests_total"); err != nil {
		t.Error(err)
	}
	server.Close()
	if got := testutil.CollectAndCount(c); got != 1 {
		t.Errorf("%d metrics of a server that is gone, want nginx_up alone", got)
	}
}
