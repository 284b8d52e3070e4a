#!/bin/sh
# Builds the programs in C and AssemblyScript of a checkout of
# https://github.com/WebAssembly/wasi-testsuite, and runs them and those that it has
# built. Nothing may be skipped.
set -eu
dir=${1:-}
if [ -z "$dir" ]; then
	echo "WASI_TESTSUITE has to name a checkout of wasi-testsuite: make conformance WASI_TESTSUITE=dir" >&2
	exit 2
fi
if [ ! -d "$dir/tests" ]; then
	echo "WASI_TESTSUITE=$dir is no checkout of wasi-testsuite: there is no directory tests in it" >&2
	exit 2
fi
dir=$(cd "$dir" && pwd)
cd "$(dirname "$0")/.."
if ! command -v asc >/dev/null; then
	if ! command -v npm >/dev/null; then
		echo "asc, of npm's package assemblyscript, is not installed, nor is npm" >&2
		exit 2
	fi
	# Versions that the programs have been built with.
	tools=${XDG_CACHE_HOME:-$HOME/.cache}/wasmpod-assemblyscript-0.28
	if [ ! -x "$tools/node_modules/.bin/asc" ]; then
		npm install --no-audit --no-fund --prefix "$tools" assemblyscript@0.28 @assemblyscript/wasi-shim@0.1
	fi
	PATH=$PATH:$tools/node_modules/.bin
fi
export PATH CI=true WASI_TESTSUITE="$dir"
go test -count=1 -timeout "${2:-15m}" -v -run '^TestWASITestsuite$' ./runtime/wasip1 | awk '
	/^    --- PASS/ { passed++ }
	/^    --- FAIL/ { failed++ }
	/^ *--- SKIP/ { skipped++; print }
	/^FAIL|^panic:/ { broken = 1 }
	!/^ *(=== |--- PASS)/ && !/^ *--- SKIP/ { print }
	END {
		printf "%d programs: %d passed, %d failed, %d skipped\n", passed + failed + skipped, passed, failed, skipped
		exit broken || failed + skipped > 0 || passed == 0
	}'
