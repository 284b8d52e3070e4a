// Package seeds runs the manifests of wasm-examples/seeds as their authors would:
// unchanged, with the binary, in real time, from images in the local store and
// with no network to pull from. `make test-seeds` runs all of them and prints what
// each has shown; with SHORT=1 those that take less than a minute. What is
// expected of them is derived from docs/semantics.md.
package seeds
