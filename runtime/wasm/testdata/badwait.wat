;; Waits where there is no memory, or at an odd address.
(module
  (import "test" "arg" (func $arg (result i32)))
  (memory 1 1 shared)
  (func (export "_start") (local $n i32)
    (local.set $n (call $arg))
    (if (i32.eq (local.get $n) (i32.const 0)) (then (drop (memory.atomic.wait32 (i32.const 65536) (i32.const 0) (i64.const 0)))))
    (if (i32.eq (local.get $n) (i32.const 1)) (then (drop (memory.atomic.wait32 offset=4 (i32.const -4) (i32.const 0) (i64.const 0)))))
    (if (i32.eq (local.get $n) (i32.const 2)) (then (drop (memory.atomic.wait64 (i32.const 4) (i64.const 0) (i64.const 0)))))
    (if (i32.eq (local.get $n) (i32.const 3)) (then (drop (memory.atomic.wait32 (i32.const 2) (i32.const 0) (i64.const 0)))))))
