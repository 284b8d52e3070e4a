#!/bin/sh
# Builds the Lua 5.4 interpreter from Debian's source package for WASI:
#   build.sh [OUT.wasm]
# OUT.wasm is ../bin/lua.wasm unless given. Exits 77 where it cannot be built,
# and says why. See README.md.
set -eu
cd "$(dirname "$0")"
here=$(pwd)
out=$(realpath -m "${1:-../bin/lua.wasm}")

for tool in clang wasm-ld wasm-opt; do
	command -v "$tool" >/dev/null || {
		echo "skipped: $tool is missing (apt-get install clang lld wasi-libc libclang-rt-dev-wasm32 binaryen)" >&2
		exit 77
	}
done
[ -e /usr/lib/wasm32-wasi/libc.a ] || {
	echo "skipped: there is no wasi-libc (apt-get install wasi-libc libclang-rt-dev-wasm32)" >&2
	exit 77
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
../debian-source.sh lua5.4 "$tmp/lua"

mkdir -p "$(dirname "$out")"
cd "$tmp/lua/src"
rm luac.c # a program of its own
# l_noret: an error returns, by unwinding, from functions that Lua declares not
# to; the compiler must not put a trap behind them.
clang --target=wasm32-wasi -O2 -include "$here/wasi.h" -I"$here/include" \
	-Dl_noret=void -DLUA_COMPAT_5_3 \
	-D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_PROCESS_CLOCKS \
	-o "$tmp/lua.wasm" ./*.c "$here/unwind.c" "$here/stackptr.s" \
	-lwasi-emulated-signal -lwasi-emulated-process-clocks \
	-Wl,-z,stack-size=1048576 -Wl,--strip-debug
wasm-opt --asyncify --pass-arg=asyncify-ignore-imports -O2 "$tmp/lua.wasm" -o "$tmp/out.wasm"
mv "$tmp/out.wasm" "$out"
