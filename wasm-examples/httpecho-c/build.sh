#!/bin/sh
# Builds httpecho.c for WASI:
#   build.sh [OUT.wasm]
# OUT.wasm is ../bin/httpecho-c.wasm unless given. Exits 77 where it cannot be
# built, and says why.
set -eu
cd "$(dirname "$0")"
case ${1:-} in
'') out=../bin/httpecho-c.wasm ;;
/*) out=$1 ;;
*) out=$OLDPWD/$1 ;;
esac
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
clang --target=wasm32-wasi -O2 -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wl,--strip-all -o "$out" httpecho.c
