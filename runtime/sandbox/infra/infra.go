// Package infra holds the infra module, the first that is instantiated in a
// pod. It owns the pod's network namespace and volumes for as long as it runs,
// and does nothing else; if it ends, the sandbox has changed (SBX-03).
package infra

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
)

//go:generate wat2wasm pause.wat -o pause.wasm

// Module is the infra module: a WASI command that sleeps until it is killed. It
// needs poll_oneoff and proc_exit of wasi_snapshot_preview1 and one page of
// memory. It must not be modified.
//
//go:embed pause.wasm
var Module []byte

// Digest names Module in the way image digests are written.
var Digest = func() string {
	sum := sha256.Sum256(Module)
	return "sha256:" + hex.EncodeToString(sum[:])
}()
