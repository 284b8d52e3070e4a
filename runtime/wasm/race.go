//go:build race

package wasm

// slowdown is how much longer the race detector makes compiling take, at most.
const slowdown = 10
