;; Waits for a notification that cannot come: 1 s, then for ever.
(module
  (import "test" "call" (func $call (param i32) (result i32)))
  (memory 1 1 shared)
  (func (export "_start")
    (drop (call $call (memory.atomic.wait32 offset=8 (i32.const 8) (i32.const 1) (i64.const -1))))
    (drop (call $call (memory.atomic.wait64 offset=8 (i32.const 8) (i64.const 0) (i64.const 1000000000))))
    (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))))
