package gotool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Supported are the minor versions of Go 1 that overlays are known for.
var Supported = []int{25, 26}

// Toolchain is a Go toolchain of the machine.
type Toolchain struct {
	Command string // path of the go command
	Root    string // GOROOT
	Version string // as go env GOVERSION prints it: go1.26.8
	Flags   string // as go env GOFLAGS prints them

	modCache string // GOMODCACHE
}

// target makes the go command build for pods. CGO is off: there is no C compiler
// that knows this platform.
var target = []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}

// Environ is the environment in which Command has to be run with an overlay of
// the toolchain.
func (t *Toolchain) Environ() []string {
	return append(append(os.Environ(), target...), "GOROOT="+t.Root, "GOTOOLCHAIN=local")
}

// outsideModCache makes a toolchain from the module cache one that looks as if
// it lay below dir: the go command refuses to overlay files of the module cache,
// which is where it puts the toolchains that it fetches itself.
func (t *Toolchain) outsideModCache(dir string) error {
	rel, err := filepath.Rel(t.modCache, t.Root)
	if t.modCache == "" || err != nil || !filepath.IsLocal(rel) {
		return nil
	}
	link := filepath.Join(dir, "toolchain-"+strings.ReplaceAll(t.Version, " ", "-"))
	if to, err := os.Readlink(link); err != nil || to != t.Root {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		fresh := fmt.Sprintf("%s.%d", link, os.Getpid())
		if err := os.Symlink(t.Root, fresh); err != nil {
			return err
		}
		if err := os.Rename(fresh, link); err != nil {
			return errors.Join(err, os.Remove(fresh))
		}
	}
	t.Root = link
	return nil
}

// ErrNoGo says that there is no Go toolchain.
var ErrNoGo = errors.New("there is no 'go' command in PATH: install Go (https://go.dev/dl) to build programs, or run modules that are built already")

// Find asks the go command in PATH which toolchain it would use in a directory:
// a go.mod there can ask for another version than the installed one.
func Find(ctx context.Context, dir string) (*Toolchain, error) {
	command, err := exec.LookPath("go")
	if err != nil {
		return nil, ErrNoGo
	}
	cmd := exec.CommandContext(ctx, command, "env", "-json", "GOROOT", "GOVERSION", "GOMODCACHE", "GOFLAGS")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), target...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var vars struct{ GOROOT, GOVERSION, GOMODCACHE, GOFLAGS string }
	if err := json.Unmarshal(out, &vars); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	if vars.GOROOT == "" {
		return nil, errors.New("go env knows no GOROOT: the Go installation is broken")
	}
	return &Toolchain{
		Command: filepath.Join(vars.GOROOT, "bin", "go"), Root: vars.GOROOT, Version: vars.GOVERSION, Flags: vars.GOFLAGS,
		modCache: vars.GOMODCACHE,
	}, nil
}

// VersionError says that there is no overlay for a version of Go.
type VersionError struct{ Version string }

func (e *VersionError) Error() string {
	known := make([]string, len(Supported))
	for i, minor := range Supported {
		known[i] = "1." + strconv.Itoa(minor)
	}
	last := known[len(known)-1]
	return fmt.Sprintf("no overlay for %s: this wasmpod knows Go %s. Without one a program would get a network that reaches nobody. "+
		"Use a Go version that is known (GOTOOLCHAIN=go%s.0 fetches one), or a newer wasmpod", e.Version, strings.Join(known, " and "), last)
}

// Builds with experiments say so after a blank or a dash; they are the same
// files.
var release = regexp.MustCompile(`^go1\.(\d+)(\.\d+|rc\d+)?([ -].*)?$`)

// minor returns the minor version if there is an overlay for it.
func minor(version string) (int, error) {
	m := release.FindStringSubmatch(version)
	if m == nil { // a development version, a beta, or something else
		return 0, &VersionError{version}
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, &VersionError{version}
	}
	for _, s := range Supported {
		if n == s {
			return n, nil
		}
	}
	return 0, &VersionError{version}
}
