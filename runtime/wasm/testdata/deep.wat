;; Calls the host beneath 20 frames with something in each, until it says 0.
(module
  (import "test" "call" (func $call (param i32) (result i32)))
  (memory 1)
  (global $rounds (mut i32) (i32.const 0))
  (func $deep (param $n i32) (param $x i64) (param $f f64) (result i32) (local $r i32)
    (if (result i32) (i32.eqz (local.get $n))
      (then (call $call (global.get $rounds)))
      (else
        (local.set $r (call $deep (i32.sub (local.get $n) (i32.const 1)) (i64.mul (local.get $x) (i64.const 3)) (f64.add (local.get $f) (f64.const 1.5))))
        (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (local.get $x)))
        (f64.store (i32.const 8) (f64.add (f64.load (i32.const 8)) (local.get $f)))
        (local.get $r))))
  (func (export "_start") (local $r i32)
    (loop
      (global.set $rounds (i32.add (global.get $rounds) (i32.const 1)))
      (local.set $r (call $deep (i32.const 20) (i64.const 7) (f64.const 0.25)))
      (br_if 0 (local.get $r)))
    ;; What the frames have added up, for the host to compare.
    (drop (call $call (i32.wrap_i64 (i64.load (i32.const 0)))))
    (drop (call $call (i32.trunc_f64_s (f64.load (i32.const 8)))))))
