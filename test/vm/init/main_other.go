//go:build !linux

package main

func main() { panic("this is the first process of a Linux machine") }
