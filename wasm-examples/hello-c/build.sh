#!/bin/sh
# Builds hello.c for WASI:
#   build.sh [OUT.wasm]
# OUT.wasm is ../bin/hello-c.wasm unless given. Exits 77 where it cannot be
# built, and says why.
set -eu
cd "$(dirname "$0")"
out=$(realpath -m "${1:-../bin/hello-c.wasm}")
for tool in clang wasm-ld; do
	command -v "$tool" >/dev/null || {
		echo "skipped: $tool is missing (apt-get install clang lld wasi-libc libclang-rt-dev-wasm32)" >&2
		exit 77
	}
done
[ -e /usr/lib/wasm32-wasi/libc.a ] || {
	echo "skipped: there is no wasi-libc (apt-get install wasi-libc libclang-rt-dev-wasm32)" >&2
	exit 77
}
mkdir -p "$(dirname "$out")"
clang --target=wasm32-wasi -Os -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wl,--strip-all -o "$out" hello.c
