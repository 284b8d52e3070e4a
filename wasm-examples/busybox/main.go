// Command busybox is a multi-call program for containers: a POSIX shell and the small commands that manifests and
// probes use, in one WebAssembly module. It is named after its model, whose commands and messages it follows, and
// shares no code with it.
package main

import (
	"context"
	"io"
	"os"
	"path"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/applet"
	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/sh"
)

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	system := &sh.System{Applets: applet.Table()}
	system.Applets["sh"] = system.Main
	system.Applets["ash"] = system.Main
	p := &proc.Proc{
		Ctx: context.Background(), Args: args, Env: os.Environ(), Dir: dir,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Start: system.Start,
	}
	if len(args) == 0 {
		return applet.List(system.Applets, p)
	}
	name := path.Base(strings.TrimSuffix(args[0], ".wasm"))
	if name == "busybox" {
		if len(args) == 1 || args[1] == "--help" || args[1] == "--list" {
			return applet.List(system.Applets, p)
		}
		p = p.Command(args[1:])
		name = path.Base(p.Args[0])
	}
	if main, ok := system.Applets[name]; ok {
		return proc.Invoke(main, p)
	}
	if strings.Contains(p.Args[0], "/") { // a container whose command is a script
		if info, err := os.Stat(p.Path(p.Args[0])); err == nil && info.Mode().IsRegular() {
			return system.Start(p)
		}
	}
	io.WriteString(os.Stderr, name+": applet not found\n")
	return proc.NotFound
}
