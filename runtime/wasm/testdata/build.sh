#!/bin/sh
# Assembles the guests of the tests; wat2wasm is in Debian's package wabt.
set -e
cd "$(dirname "$0")"
for f in *.wat; do
	wat2wasm --enable-all --debug-names "$f" -o "${f%.wat}.wasm"
done
