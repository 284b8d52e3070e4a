package podtest

// Close ends pods before their test's end, for benchmarks.
func Close(p *Pods) { p.close() }
