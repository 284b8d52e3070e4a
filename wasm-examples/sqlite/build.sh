#!/bin/sh
# Builds the SQLite shell from Debian's source package for WASI:
#   build.sh [OUT.wasm]
# OUT.wasm is ../bin/sqlite3.wasm unless given. Exits 77 where it cannot be
# built, and says why. See README.md.
set -eu
cd "$(dirname "$0")"
here=$(pwd)
out=$(realpath -m "${1:-../bin/sqlite3.wasm}")

# SQLite's own build makes its parser and the amalgamation with a C compiler
# for this machine, and Tcl.
for tool in clang wasm-ld cc make tclsh; do
	command -v "$tool" >/dev/null || {
		echo "skipped: $tool is missing (apt-get install clang lld wasi-libc libclang-rt-dev-wasm32 gcc make tcl)" >&2
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
../debian-source.sh sqlite3 "$tmp/sqlite"

mkdir -p "$(dirname "$out")" "$tmp/build"
cd "$tmp/build"
{
	../sqlite/configure --disable-tcl --disable-readline --disable-shared
	make sqlite3.c shell.c sqlite3.h
} >log 2>&1 || {
	tail -n 20 log >&2
	exit 1
}
# What preview 1 lacks is left out: threads, shared memory (WAL), mmap, locks,
# processes, dynamic loading. Temporary tables stay in memory.
clang --target=wasm32-wasi -O2 -DNDEBUG -include "$here/wasi.h" -I"$here/include" -I. \
	-DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_WAL -DSQLITE_MAX_MMAP_SIZE=0 -DSQLITE_TEMP_STORE=2 \
	-DSQLITE_DEFAULT_UNIX_VFS='"unix-none"' -DSQLITE_OMIT_LOAD_EXTENSION \
	-DSQLITE_OMIT_POPEN -DSQLITE_NOHAVE_SYSTEM -DHAVE_USLEEP=1 -DSQLITE_USE_URI=1 \
	-DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE -DSQLITE_ENABLE_MATH_FUNCTIONS \
	-D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_GETPID -D_WASI_EMULATED_PROCESS_CLOCKS \
	-o "$tmp/sqlite3.wasm" shell.c sqlite3.c \
	-lwasi-emulated-signal -lwasi-emulated-getpid -lwasi-emulated-process-clocks \
	-Wl,-z,stack-size=1048576 -Wl,--strip-debug
mv "$tmp/sqlite3.wasm" "$out"
