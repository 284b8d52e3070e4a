// Command gostd runs Go's own tests of the standard library's network in pods,
// as wasmpod go test does for anybody's:
//
//	go run ./test/gostd [-short] [-toolchain go1.25.0] [-wasmpod bin/wasmpod] [package...]
//
// skips.txt lists the tests that cannot pass
// in a pod, with the reason. A failure that is not listed, and a listed test that
// passes, make the command fail. Test files are changed as patches.go says, by an
// overlay.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var (
	short   = flag.Bool("short", false, "only net and os/signal: what the overlay itself is about")
	wasmpod = flag.String("wasmpod", "bin/wasmpod", "the binary to test")
	list    = flag.String("skips", "test/gostd/skips.txt", "the list of tests that cannot pass")
	version = flag.String("toolchain", "", "the Go version whose library is tested, as GOTOOLCHAIN has it")
	dataDir = flag.String("data-dir", "", "where wasmpod keeps compiled modules; the default is removed afterwards")
	logs    = flag.String("logs", "", "a directory for the output of go test")
)

// packages are those that are about the network, or built on it.
var packages = []string{
	"net", "net/http", "net/http/cgi", "net/http/cookiejar", "net/http/fcgi", "net/http/httptest", "net/http/httptrace",
	"net/http/httputil", "net/http/internal", "net/http/pprof", "net/mail", "net/netip", "net/rpc", "net/rpc/jsonrpc", "net/smtp",
	"net/textproto", "net/url", "crypto/tls", "os", "os/signal", "os/user", "internal/poll", "log/slog", "io", "context",
}

// inShort are the packages of a short run: those whose code the overlay replaces.
// Compiling the tests of net/http alone takes longer than both.
var inShort = []string{"net", "os/signal"}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "gostd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	skips, err := readSkips(*list)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gostd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &tester{skips: skips, dir: dir, data: *dataDir}
	if t.wasmpod, err = filepath.Abs(*wasmpod); err != nil {
		return err
	}
	if t.data == "" {
		t.data = filepath.Join(dir, "data")
	}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	if len(names) == 0 {
		names = packages
		if *short {
			names = inShort
		}
	}
	var failed []string
	for _, name := range names {
		ok, err := t.test(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !ok {
			failed = append(failed, name)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%s: not as %s says", strings.Join(failed, ", "), *list)
	}
	return nil
}

// tester runs the tests of packages.
type tester struct {
	wasmpod, dir, data string
	skips              []skip
	root, version      string // GOROOT and go1.26
	overlay            string
}

func (t *tester) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.wasmpod, append([]string{"go"}, args...)...)
	cmd.Dir = t.dir // outside of modules: no go.mod chooses the Go version
	cmd.Env = append(os.Environ(), "WASMPOD_DATA_DIR="+t.data, "GOFLAGS=")
	if *version != "" {
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+*version)
	}
	cmd.Stderr = os.Stderr
	return cmd
}

// prepare finds the toolchain and writes the overlay of the test files.
func (t *tester) prepare(ctx context.Context) error {
	out, err := t.command(ctx, "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return fmt.Errorf("wasmpod go env: %w", err)
	}
	words := strings.Fields(string(out))
	if len(words) != 2 {
		return fmt.Errorf("wasmpod go env said %q", out)
	}
	t.root = words[0]
	t.version = "go" + strings.Join(strings.SplitN(strings.TrimPrefix(words[1], "go"), ".", 3)[:2], ".")
	fmt.Println("Go", words[1])
	replace := make(map[string]string)
	for _, p := range patches {
		path := filepath.Join(t.root, "src", filepath.FromSlash(p.file))
		if p.old == "" {
			replace[path] = ""
			continue
		}
		from := path
		if earlier := replace[path]; earlier != "" {
			from = earlier
		}
		src, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("patch of %s: %w", p.file, err)
		}
		if !bytes.Contains(src, []byte(p.old)) {
			return fmt.Errorf("patch of %s: it has no %q: see whether %q still holds", p.file, p.old, p.why)
		}
		to := filepath.Join(t.dir, strings.ReplaceAll(p.file, "/", "-"))
		if err := os.WriteFile(to, bytes.ReplaceAll(src, []byte(p.old), []byte(p.new)), 0o644); err != nil {
			return err
		}
		replace[path] = to
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	t.overlay = filepath.Join(t.dir, "overlay.json")
	return os.WriteFile(t.overlay, data, 0o644)
}

// test runs the tests of a package, and reports whether all is as expected.
func (t *tester) test(ctx context.Context, name string) (bool, error) {
	args := []string{"test", "-overlay", t.overlay, "-json", "-short", "-timeout", "600s"}
	var left []string
	for _, s := range t.skips {
		if s.kind == "skip" && s.of(name, t.version) {
			left = append(left, s.pattern())
		}
	}
	if len(left) > 0 {
		args = append(args, "-skip", strings.Join(left, "|"))
	}
	begin := time.Now()
	out, err := t.command(ctx, append(args, name)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return false, err
	}
	if *logs != "" {
		file := filepath.Join(*logs, strings.ReplaceAll(name, "/", "-")+".json")
		if err := os.WriteFile(file, out, 0o644); err != nil {
			return false, err
		}
	}
	r, err := readResults(out)
	if err != nil {
		return false, err
	}
	unknown, expected, stale := r.judge(name, t.version, t.skips)
	good := len(unknown)+len(stale) == 0 && (err == nil || len(expected) > 0) && !r.broken(expected)
	mark := "ok  "
	if !good {
		mark = "FAIL"
	}
	fmt.Printf("%s %-22s %4d passed, %3d skipped themselves, %d failed as listed, %d left out (%.0f s)\n",
		mark, name, r.passed, len(r.skipped), len(expected), len(left), time.Since(begin).Seconds())
	for _, test := range unknown {
		fmt.Printf("--- %s fails, and is not listed\n%s", test, indent(r.output[test]))
	}
	for _, s := range stale {
		fmt.Printf("--- line %d: %s is listed, and does not fail\n", s.line, s.test)
	}
	if !good && len(unknown)+len(stale) == 0 {
		fmt.Printf("--- the test binary did not end as it should\n%s", indent(r.output[""]))
	}
	return good, nil
}

func indent(text string) string {
	lines := strings.SplitAfter(text, "\n")
	if most := 60; len(lines) > most {
		lines = append(append(slices.Clone(lines[:most/2]), "...\n"), lines[len(lines)-most/2:]...)
	}
	return "    " + strings.Join(lines, "    ") + "\n"
}
