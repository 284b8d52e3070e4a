;; Calls itself for ever, without using stack where tail calls are proper.
(module (func $again (return_call $again)) (func (export "_start") (call $again)))
