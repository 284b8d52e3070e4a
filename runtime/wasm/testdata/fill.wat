;; Fills 1 MiB of memory.
(module
  (import "test" "call" (func $call (param i32) (result i32)))
  (memory 16)
  (func (export "_start")
    (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x100000))
    (drop (call $call (i32.const 0)))))
