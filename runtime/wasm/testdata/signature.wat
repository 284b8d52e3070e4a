(module (import "test" "call" (func (param i64))) (func (export "_start")))
