;; Grows its memory page by page, for ever, writing to each.
(module
  (import "test" "call" (func $call (param i32) (result i32)))
  (memory (export "memory") 1)
  (func $more (local $p i32)
    (loop
      (local.set $p (memory.grow (i32.const 1)))
      (if (i32.eq (local.get $p) (i32.const -1)) (then (drop (call $call (i32.const -1)))))
      (i32.store (i32.mul (local.get $p) (i32.const 65536)) (i32.const 1))
      (br 0)))
  (func (export "_start") (call $more)))
