;; Calls the host for as long as that returns something else than zero.
(module
  (import "test" "stack" (func $call (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (loop $l (br_if $l (call $call (i32.const 0))))))
