;; Does as many rounds of work as the host says.
(module
  (import "test" "arg" (func $arg (result i32)))
  (memory 1)
  (func $step (param $n i32) (result i32) (local $i i32)
    (loop
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if 0 (i32.lt_u (local.get $i) (i32.and (local.get $n) (i32.const 7)))))
    (i32.add (local.get $n) (i32.const -1)))
  (func (export "_start") (local $n i32)
    (local.set $n (call $arg))
    (loop
      (local.set $n (call $step (local.get $n)))
      (br_if 0 (local.get $n)))))
