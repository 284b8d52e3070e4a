//go:build !race

package realprograms

const race = false
