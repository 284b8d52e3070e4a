//go:build !linux

package main

import "errors"

const canPin = false

func pin([]string) error { return errors.ErrUnsupported }

func compute() {}
