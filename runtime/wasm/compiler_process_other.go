//go:build !linux

package wasm

func stepBack(int64) {}
