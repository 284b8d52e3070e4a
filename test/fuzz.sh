#!/bin/sh
# Runs every fuzz target of the module for the time given, one after another.
set -eu
cd "$(dirname "$0")/.."
time=${1:-10s}
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Go's fuzzer may fail at the end of its time for no other reason than that
# (golang.org/issue/75804). An input that fails is written to testdata, and says so.
fuzz() {
	for attempt in 1 2 3 4 5 6 7 8; do
		if go test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 5x "$2" >"$out" 2>&1; then
			cat "$out"
			return
		fi
		cat "$out"
		if grep -q 'Failing input written' "$out" || ! grep -q '^ *context deadline exceeded$' "$out"; then
			return 1
		fi
	done
	return 1
}

for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "$package $target"
		fuzz "$target" "$package"
	done
done
