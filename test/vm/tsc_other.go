//go:build !amd64

package main

func (m machine) clockArgs() string { return "" }
