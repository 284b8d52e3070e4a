package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	groupReal  = "real programs"
	groupTight = "tight loops"
)

//go:embed testdata/tight.c
var tightSource string

//go:embed testdata/speedtest.sql
var speedtest string

//go:embed testdata/loop.sh
var shellLoop string

// program is one line of the table.
type program struct {
	group, name string
	guest       func() (string, error) // the path of its module
	args        []string
	stdin       string
	dir         string // is its root directory, unless empty
}

func programs(root, work string) []program {
	data := filepath.Join(root, "test", "bench", "engine", "testdata")
	example := func(name, file string) func() (string, error) {
		return func() (string, error) { return exampleGuest(root, name, file) }
	}
	var list []program
	for _, name := range []string{"calls", "nbody", "queens", "sort", "strings", "trees"} {
		list = append(list, program{group: groupReal, name: "lua " + name, guest: example("lua", "lua.wasm"),
			args: []string{"lua", "/" + name + ".lua"}, dir: filepath.Join(data, "lua")})
	}
	list = append(list,
		program{group: groupReal, name: "sqlite", guest: example("sqlite", "sqlite3.wasm"),
			args: []string{"sqlite3", "-batch", "-bail", ":memory:"}, stdin: speedtest},
		program{group: groupReal, name: "esbuild", guest: func() (string, error) {
			if err := writeModules(filepath.Join(work, "js")); err != nil {
				return "", err
			}
			return exampleGuest(root, "esbuild", "esbuild.wasm")
		}, args: []string{"esbuild", "--bundle", "--minify", "--log-level=error", "/main.ts"}, dir: filepath.Join(work, "js")},
		program{group: groupReal, name: "go json+sort+map", guest: func() (string, error) {
			return build(filepath.Join(work, "gobench.wasm"), []string{"GOOS=wasip1", "GOARCH=wasm"},
				"go", "build", "-o", filepath.Join(work, "gobench.wasm"), filepath.Join(data, "gobench", "main.go"))
		}, args: []string{"gobench"}},
		program{group: groupReal, name: "busybox sh", guest: example("busybox", "busybox.wasm"),
			args: []string{"sh", "-c", shellLoop}, dir: work},
	)
	for _, name := range []string{"coremark", "crc", "sieve", "matmul", "qsort", "fib"} {
		list = append(list, program{group: groupTight, name: name, args: []string{"tight", name}, guest: func() (string, error) {
			source := filepath.Join(work, "tight.c")
			if err := os.WriteFile(source, []byte(tightSource), 0o600); err != nil {
				return "", err
			}
			out := filepath.Join(work, "tight.wasm")
			return build(out, nil, "clang", "--target=wasm32-wasi", "-O2", "-o", out, source)
		}})
	}
	return list
}

// build runs a compiler unless its output is there.
func build(out string, env []string, command ...string) (string, error) {
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w %s", command[0], err, firstLine(text))
	}
	return out, nil
}

// exampleGuest builds a guest of wasm-examples if it is not there.
func exampleGuest(root, name, file string) (string, error) {
	path := filepath.Join(root, "wasm-examples", "bin", file)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command(filepath.Join(root, "wasm-examples", "build.sh"), name)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build.sh %s: %w %s", name, err, firstLine(text))
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("guest left out: %s", firstLine(text))
	}
	return path, nil
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

// writeModules writes a TypeScript project of a few hundred modules.
func writeModules(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	const modules = 150
	var main strings.Builder
	for i := range modules {
		var text strings.Builder
		if i > 1 {
			fmt.Fprintf(&text, "import { combine as other } from './m%d'\n", i/2)
		} else {
			text.WriteString("const other = (x: Point): number => x.first\n")
		}
		fmt.Fprintf(&text, "export interface Point { first: number; second?: string }\n")
		for j := range 12 {
			fmt.Fprintf(&text, `
export function step%d_%d({ first, second = "none" }: Point, ...rest: readonly number[]): number {
  // Something of everything: loops, templates, optional chaining, arrows.
  let sum = first ?? %d
  for (const [index, value] of rest.entries()) sum += value * index
  const list = rest.map((x) => ({ x, y: x ** 2 })).filter(({ y }) => y > sum)
  return list.length > %d ? sum + (list[0]?.x ?? 0) : %s.length + second.length
}
`, i, j, j, j, "`${sum} and ${second}`")
		}
		fmt.Fprintf(&text, "export const combine = (p: Point): number => step%d_3(p, 1, 2, 3) + other(p)\n", i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("m%d.ts", i)), []byte(text.String()), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&main, "import * as m%d from './m%d'\nconsole.log(m%d.combine({ first: %d }), m%d.step%d_0)\n", i, i, i, i, i, i)
	}
	return os.WriteFile(filepath.Join(dir, "main.ts"), []byte(main.String()), 0o600)
}
