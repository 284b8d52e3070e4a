//go:build !race

package wasm

const slowdown = 1
