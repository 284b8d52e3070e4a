package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

var pairs = []pair{{
	name: "C",
	build: func(ctx context.Context, dir string) (guest, native string, err error) {
		guest, native = filepath.Join(dir, "pingpong.wasm"), filepath.Join(dir, "pingpong")
		source := filepath.Join(*guests, "pingpong")
		if err := command(ctx, nil, filepath.Join(source, "build.sh"), guest); err != nil {
			return "", "", err
		}
		return guest, native, command(ctx, nil, "cc", "-O2", "-D_GNU_SOURCE", "-o", native, filepath.Join(source, "pingpong.c"))
	},
	server: func(port string) []string { return []string{"serve", port} },
	client: func(port string) []string {
		return []string{"measure", port, fmt.Sprint(period.Seconds())}
	},
	goals: map[string]float64{"ping 64": 5, "bulk 65536": 2, "connect 1": 3},
}}

// command runs a tool, whose output is for the user.
func command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
