;; Spins until its handler has been called twice, or blocks if the host says so.
(module
  (import "test" "call" (func $call (param i32) (result i32)))
  (global $caught (mut i32) (i32.const 0))
  (func (export "__wasm_signal") (param $sig i32)
    (drop (call $call (local.get $sig)))
    (global.set $caught (i32.add (global.get $caught) (i32.const 1))))
  (func (export "_start")
    (drop (call $call (i32.const 0)))
    (loop (br_if 0 (i32.lt_u (global.get $caught) (i32.const 2))))))
