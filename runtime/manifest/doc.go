// Package manifest turns YAML and JSON manifests into defaulted and validated
// Kubernetes objects.
//
// It is pure: bytes in, objects or problems out. Parse reports every problem
// it can find at once, each with file, line, field path, upstream's wording
// and, where the intention can be guessed, a hint. To get past a mistake it
// repairs a working copy the way the author most likely meant it and goes on
// with that copy, so that one mistake neither hides the next nor causes
// followers; objects are only ever returned from input without any problem.
//
// The rules are MAN-01..29, WL-01, WL-20, WL-21, RST-30, SEC-07 and RES-01..03
// of the semantics reference; messages are those of Kubernetes 1.36.
package manifest
