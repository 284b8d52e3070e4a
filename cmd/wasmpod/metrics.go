package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/container"
)

// serveMetrics serves what package metrics names, at the URL that it returns, until
// stop is called.
func serveMetrics(address string, r *runtime.Runtime) (url string, stop func(), _ error) {
	handler, err := r.MetricsHandler()
	if err != nil {
		return "", nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // ends with Shutdown
	}()
	return "http://" + listener.Addr().String() + "/metrics", func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		<-ended
	}, nil
}

// withStdin connects standard input besides.
func withStdin(next runtime.StdioFunc, stdin io.Reader) runtime.StdioFunc {
	return func(c container.Config) runtime.Stdio {
		stdio := next(c)
		if c.Stdin {
			stdio.Stdin = stdin
		}
		return stdio
	}
}
