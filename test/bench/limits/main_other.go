//go:build !linux

package main

import "fmt"

func main() { fmt.Println("skipped: CPU time of threads is there on Linux only") }
