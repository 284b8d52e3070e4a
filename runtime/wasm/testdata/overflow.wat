(module (func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
  (func (export "_start") (drop (call $deep (i32.const 0)))))
