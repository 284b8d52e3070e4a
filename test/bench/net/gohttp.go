package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// A server and a client in plain net/http.
func init() {
	const source = "./test/bench/net/gohttp"
	pairs = append(pairs, pair{
		name: "Go net/http",
		build: func(ctx context.Context, dir string) (guest, native string, err error) {
			guest, native = filepath.Join(dir, "gohttp.wasm"), filepath.Join(dir, "gohttp")
			if err := command(ctx, nil, *wasmpod, "go", "build", "--data-dir", filepath.Join(dir, "data"), "-o", guest, source); err != nil {
				return "", "", err
			}
			return guest, native, command(ctx, nil, "go", "build", "-o", native, source)
		},
		server: func(port string) []string { return []string{"serve", port} },
		client: func(port string) []string {
			return []string{"measure", port, fmt.Sprint(period.Seconds()), "1,100", "1000,10000"}
		},
	})
}
