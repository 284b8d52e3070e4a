(module (memory 1024) (func (export "_start")))
