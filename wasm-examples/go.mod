module github.com/wasmpod/wasmpod/wasm-examples

go 1.26.0

require (
	github.com/tetratelabs/wazero v1.12.0
	mvdan.cc/sh/v3 v3.14.1
)

require golang.org/x/sys v0.47.0 // indirect
