//go:build !linux

package wasm

func yieldThread() {}
