#!/bin/sh
# Builds esbuild, a JavaScript bundler written in Go, for WASI:
#   build.sh [OUT.wasm]
# OUT.wasm is ../bin/esbuild.wasm unless given. Its version, and the checksums
# of its source, are in go.mod and go.sum.
set -eu
cd "$(dirname "$0")"
out=$(realpath -m "${1:-../bin/esbuild.wasm}")
command -v go >/dev/null || {
	echo "skipped: there is no Go toolchain" >&2
	exit 77
}
mkdir -p "$(dirname "$out")"
CGO_ENABLED=0 GOOS=wasip1 GOARCH=wasm GOFLAGS=-mod=readonly \
	go build -trimpath -ldflags='-s -w' -o "$out" github.com/evanw/esbuild/cmd/esbuild
