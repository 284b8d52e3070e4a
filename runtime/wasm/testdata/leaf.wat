;; A leaf function that reads its stack pointer without writing it keeps data in
;; the red zone: no handler may run until it has returned.
(module
  (import "test" "call" (func $call (param i32) (result i32)))
  (global $sp (mut i32) (i32.const 65536))
  (memory 1)
  (func (export "__wasm_signal") (param $sig i32)
    (i32.store (i32.sub (global.get $sp) (i32.const 4)) (i32.const 666)))
  (func $leaf (result i32) (local $sp i32) (local $n i32)
    (local.set $sp (i32.sub (global.get $sp) (i32.const 16)))
    (i32.store offset=12 (local.get $sp) (i32.const 42))
    (loop
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if 0 (i32.lt_u (local.get $n) (i32.const 2000000))))
    (i32.load offset=12 (local.get $sp)))
  (func (export "_start")
    (drop (call $call (i32.const 0)))
    (drop (call $call (call $leaf)))))
