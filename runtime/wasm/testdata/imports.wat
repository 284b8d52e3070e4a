(module
  (import "env" "foo" (func))
  (import "env" "memory" (memory 1))
  (import "test" "call" (func (param i32) (result i32)))
  (func (export "_start")))
