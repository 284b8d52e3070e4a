//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
)

// crowd measures how prompt the process is beside many throttled guests.
func crowd(m bpf.Mechanism, length time.Duration) error {
	ctx := context.Background()
	n, err := openNode(ctx, m)
	if err != nil {
		return err
	}
	defer n.close(ctx)
	if n.cpu.Mechanism() != m {
		return nil
	}
	const guests = 200
	var accounts []*account
	for range guests {
		_, a, err := n.start(ctx, spin, 5, nil) // which is 10m: the least quota is 1 ms
		if err != nil {
			return err
		}
		accounts = append(accounts, a)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	time.Sleep(time.Second) // for all to run
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"HTTP", func() error {
			r, err := client.Get("http://" + l.Addr().String())
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			return err
		}},
		{"runtime.GC()", func() error { runtime.GC(); return nil }},
	} {
		var took []time.Duration
		for end := time.Now().Add(length); time.Now().Before(end); {
			began := time.Now()
			if err := c.f(); err != nil {
				return err
			}
			took = append(took, time.Since(began))
		}
		fmt.Printf("%-16s %-28s p50 %v p99 %v max %v (%d)\n", m, fmt.Sprintf("%s beside %d throttled", c.name, guests), percentile(took, 0.5), percentile(took, 0.99), percentile(took, 1), len(took))
	}
	throttled := 0
	for _, a := range accounts {
		if a.Usage().Throttled.Throttled > 0 {
			throttled++
		}
	}
	fmt.Printf("%-16s %d of %d were throttled\n", m, throttled, guests)
	return nil
}
