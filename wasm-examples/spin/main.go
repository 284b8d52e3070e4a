// Command spin writes spin.wasm: a guest that computes for ever without a host call, for tests of whatever must stop,
// throttle or account for it.
//
//	(func (export "_start") (loop (br 0)))
package main

import w "github.com/wasmpod/wasmpod/wasm-examples/internal/wasmenc"

func main() { w.Module{Body: w.Code(w.Loop, w.Void, w.Br, 0, w.End)}.Main() }
