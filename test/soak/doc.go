// Package soak runs pods of every shape for as long as it is told, many at a time,
// most of them ended by somebody in the middle of something, in one process. Each
// must do what it is there for, and when all have gone nothing of them may be left:
// no goroutine, descriptor, file, address or account, and no memory that grows with
// the number of pods.
//
//	make soak            # ten minutes
//	make soak FOR=8h
//
// A failure names the seed that chose the shapes; SEED has it again.
package soak
