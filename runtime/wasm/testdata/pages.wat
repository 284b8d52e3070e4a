;; Grows its memory page by page, for ever, and tells the host after each.
(module
  (import "test" "call" (func $call (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $p i32)
    (loop
      (i32.store (i32.mul (local.get $p) (i32.const 65536)) (i32.const 1))
      (drop (call $call (i32.add (local.get $p) (i32.const 1))))
      (local.set $p (memory.grow (i32.const 1)))
      (br_if 0 (i32.ne (local.get $p) (i32.const -1))))))
