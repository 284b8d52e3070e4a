// Command vm runs tests of packages as the only program of a virtual machine
// with Debian's cloud kernel, a pure cgroup v2 tree and every capability. It
// needs qemu's emulator of the architecture, and apt-get and dpkg-deb to get the
// kernel once, or VM_KERNEL, a path. There is no KVM: the machine is emulated.
//
// Of a package's tests those can be chosen whose names match: package=regexp.
// A package that is a command runs as package:argument,argument...
//
// With -systemd this machine's systemd is process 1 there, and runs one package's
// tests as a service of another user with Delegate=yes.
//
//	vm [-timeout 15m] [-arch arm64] [-release trixie] package[=regexp | :arguments]...
//	vm [-timeout 15m] -systemd package[=regexp]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func main() {
	timeout := flag.Duration("timeout", 15*time.Minute, "for everything in the machine, in which nothing should hang")
	systemd := flag.Bool("systemd", false, "run them as a service of systemd's")
	arch := flag.String("arch", runtime.GOARCH, "of the machine: amd64 or arm64")
	release := flag.String("release", "", "of Debian, whose kernel it has; this machine's if it is not given")
	flag.Parse()
	m, err := machineFor(*arch, *release)
	var tests []string
	if err == nil {
		tests, err = m.list(flag.Args())
	}
	if err == nil {
		err = m.run(*timeout, tests, *systemd)
	}
	switch {
	case err == nil:
	case errors.As(err, new(missing)) && os.Getenv("CI") != "true":
		fmt.Println("skipped:", err)
	default:
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

// list returns the packages that have tests, each with what is chosen of them, and
// the commands.
func (m machine) list(patterns []string) (tests []string, err error) {
	for _, pattern := range patterns {
		if strings.Contains(pattern, ":") {
			tests = append(tests, pattern)
			continue
		}
		pattern, chosen, _ := strings.Cut(pattern, "=")
		cmd := exec.Command("go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", pattern)
		cmd.Env = m.env()
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, err
		}
		for p := range strings.FieldsSeq(string(out)) {
			tests = append(tests, p+"="+chosen)
		}
	}
	return tests, nil
}

// missing is a tool that is not installed.
type missing string

func (m missing) Error() string { return string(m) }

func (m machine) run(timeout time.Duration, tests []string, systemd bool) error {
	if _, err := exec.LookPath(m.emulator[0]); err != nil {
		return missing(m.emulator[0] + " is not installed")
	}
	if systemd && m.arch != runtime.GOARCH {
		return fmt.Errorf("-systemd: this machine's does not run on %s", m.arch)
	}
	kernel, err := m.findKernel()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wasmpod-vm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := m.build(dir, "init", "build", "./test/vm/init"); err != nil {
		return err
	}
	var names []string
	for i, t := range tests {
		names = append(names, fmt.Sprintf("test%02d", i))
		var err error
		if p, _, command := strings.Cut(t, ":"); command {
			err = m.build(dir, names[i], "build", p)
		} else {
			p, _, _ = strings.Cut(t, "=")
			err = m.build(dir, names[i], "test", "-c", p)
		}
		if err != nil {
			return err
		}
	}
	a := newArchive()
	for _, name := range append([]string{"init"}, names...) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		a.file(name, 0o755, data)
	}
	args := "-- " + strings.Join(tests, " ")
	if systemd {
		if args, err = a.addSystemd(tests); err != nil {
			return err
		}
	}
	initrd := filepath.Join(dir, "initrd")
	if err := a.write(initrd); err != nil {
		return err
	}
	return m.boot(kernel, initrd, args, timeout)
}

func (m machine) env() []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+m.arch, "GOFLAGS=")
}

// build makes a static program for the machine.
func (m machine) build(dir, name string, verb ...string) error {
	args := append([]string{}, verb[:len(verb)-1]...)
	args = append(args, "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), verb[len(verb)-1])
	cmd := exec.Command("go", args...)
	cmd.Env = m.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// archive is an initramfs: cpio in the "newc" format.
type archive struct {
	b    bytes.Buffer
	dirs map[string]bool
}

func newArchive() *archive {
	a := &archive{dirs: make(map[string]bool)}
	for _, d := range []string{"dev", "proc", "sys", "tmp", "root"} {
		a.dir(d)
	}
	return a
}

func (a *archive) dir(name string) {
	if name == "." || a.dirs[name] {
		return
	}
	a.dir(filepath.Dir(name))
	a.dirs[name] = true
	a.entry(name, 0o40755, nil)
}

// file adds one, and the directories that it lies in. Its name is relative.
func (a *archive) file(name string, mode int, data []byte) {
	a.dir(filepath.Dir(name))
	a.entry(name, 0o100000|mode, data)
}

func (a *archive) entry(name string, mode int, data []byte) {
	fmt.Fprintf(&a.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.b.WriteString(name + "\x00")
	a.pad()
	a.b.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}

func (a *archive) write(path string) error {
	a.entry("TRAILER!!!", 0, nil)
	return os.WriteFile(path, a.b.Bytes(), 0o600)
}
