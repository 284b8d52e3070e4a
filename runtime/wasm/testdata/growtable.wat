;; Grows its table as far as it may, and then spins.
(module (table 1 funcref)
  (func (export "_start")
    (loop (drop (table.grow 0 (ref.null func) (i32.const 1000))) (br 0))))
