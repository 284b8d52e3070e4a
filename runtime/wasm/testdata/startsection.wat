;; Does not come as far as _start.
(module (func $init (loop (br 0))) (start $init) (func (export "_start")))
