//go:build !linux

package wasm

func preferHugePages([]byte) {}
