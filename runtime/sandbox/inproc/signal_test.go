package inproc

import (
	"runtime"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// sleeper sleeps for ever. It exits with 100 + the signal that its handler got,
// if its sleep has ended with EINTR (27), and with 1 if not.
const sleeper = `(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\n")
  (global $caught (mut i32) (i32.const 0))
  (func (export "__wasm_signal") (param $sig i32) (global.set $caught (local.get $sig)))
  (func (export "_start") (local $errno i32)
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 80) (i32.const 1))            ;; the monotonic clock
    (i64.store (i32.const 88) (i64.const 0x7fffffffffffffff))
    (local.set $errno (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))
    (if (i32.eq (local.get $errno) (i32.const 27))
      (then (call $proc_exit (i32.add (i32.const 100) (global.get $caught)))))
    (call $proc_exit (i32.const 1))))`

// A guest with a handler gets SIGTERM while it is asleep.
func TestSignalAsleep(t *testing.T) {
	n := sharedNode(t)
	n.module = wasmtest.BuildWAT(t, sleeper)
	pod := n.pod(t, nil)
	c := n.start(t, n.sandbox(t, pod), pod)
	for n.output() == "" {
		runtime.Gosched()
	}
	c.Signal(15)
	<-c.Done()
	if got := c.Status(); got.Code != 115 {
		t.Errorf("DEL-08 %+v, want exit code 115: interrupted, and the handler called with 15", got)
	}
}
