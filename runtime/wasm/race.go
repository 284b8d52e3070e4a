//go:build race

package wasm

// slowdown is how much more time and memory compiling takes, at most, under the
// race detector.
const slowdown = 10
