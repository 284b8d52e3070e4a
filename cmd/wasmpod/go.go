package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wasmpod/wasmpod/cmd/wasmpod/gotool"
)

func newGoCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "go",
		Short: "Build, run and test ordinary Go programs for pods",
		Long: `Go runs the installed Go toolchain so that its programs work in pods: package
net gets the pod's network, os the modes and owners of files, os/signal signals.
Flags are those of the go command; an overlay and GOOS=wasip1 GOARCH=wasm are
added. Go 1.25 and 1.26 are known.`,
		Example: `  wasmpod go build -o server.wasm ./cmd/server
  wasmpod go run ./cmd/server -listen :8080
  wasmpod go test ./...`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGoBuildCommand(a), newGoRunCommand(a), newGoTestCommand(a), newGoVetCommand(a), newGoEnvCommand(a), newGoExecCommand(a))
	return cmd
}

// goSubcommand makes a command whose flags are go's: cobra does not parse them.
func goSubcommand(a *app, c *cobra.Command, own *goFlags, run func(ctx context.Context, own *goFlags, args []string) error) *cobra.Command {
	c.DisableFlagParsing = true
	own.addFlags(c.Flags())
	// The flags are known here only, so the configuration is read here.
	c.PersistentPreRunE = func(*cobra.Command, []string) error { return nil }
	c.RunE = func(cmd *cobra.Command, args []string) error {
		rest, err := own.take(cmd.Flags(), args)
		if err != nil {
			return &exitError{exitInvalid, fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath())}
		}
		if own.help {
			return cmd.Help()
		}
		if err := a.configure(cmd.Flags()); err != nil {
			return err
		}
		return run(cmd.Context(), own, rest)
	}
	return c
}

func newGoBuildCommand(a *app) *cobra.Command {
	return goSubcommand(a, &cobra.Command{
		Use:   "build [go build flags] [packages]",
		Short: "Compile packages for pods",
		Long: `Build is go build for pods. Without -o a single main package becomes a file
named as go build names it, with .wasm at its end. The module runs under
wasmpod; other WASI hosts lack the imports of module "wasmpod".`,
		Example: `  wasmpod go build ./cmd/server && wasmpod run server.wasm
  wasmpod go build -trimpath -ldflags='-s -w' -o bin/ ./cmd/...`,
	}, &goFlags{}, func(ctx context.Context, _ *goFlags, args []string) error {
		g, err := a.goTool(ctx, args)
		if err != nil {
			return err
		}
		if out := g.defaultOutput(ctx); out != "" {
			g.insert("-o", out)
		}
		return g.run(ctx, "build")
	})
}

func newGoVetCommand(a *app) *cobra.Command {
	return goSubcommand(a, &cobra.Command{
		Use:     "vet [go vet flags] [packages]",
		Short:   "Report likely mistakes in packages, as they are compiled for pods",
		Example: `  wasmpod go vet ./...`,
	}, &goFlags{}, func(ctx context.Context, _ *goFlags, args []string) error {
		g, err := a.goTool(ctx, args)
		if err != nil {
			return err
		}
		return g.run(ctx, "vet")
	})
}

func newGoEnvCommand(a *app) *cobra.Command {
	return goSubcommand(a, &cobra.Command{
		Use:   "env [-json] [NAME...]",
		Short: "Print Go's environment for pods, and the overlay in force",
		Long: `Env is go env for pods, with three variables more: WASMPOD_GO (the go command),
WASMPOD_OVERLAY (the overlay file) and WASMPOD_OVERLAY_FILES (what it changes in
GOROOT/src). With them other tools see what the compiler sees.`,
		Example: `  wasmpod go env GOOS WASMPOD_OVERLAY
  GOOS=wasip1 GOARCH=wasm gopls -overlay "$(wasmpod go env WASMPOD_OVERLAY)"`,
	}, &goFlags{}, a.goEnv)
}

func (a *app) goEnv(ctx context.Context, _ *goFlags, args []string) error {
	asJSON, names := false, []string(nil)
	for _, arg := range args {
		switch {
		case arg == "-json" || arg == "--json":
			asJSON = true
		case strings.HasPrefix(arg, "-"):
			return invalid("wasmpod go env knows -json and names of variables, not %s: change settings with go env", arg)
		default:
			names = append(names, arg)
		}
	}
	g, err := a.goTool(ctx, nil)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, g.toolchain.Command, "env", "-json")
	cmd.Env, cmd.Stderr = g.environ(), a.stderr
	out, err := cmd.Output()
	if err != nil {
		return goFailed(err)
	}
	var vars map[string]string
	if err := json.Unmarshal(out, &vars); err != nil {
		return err
	}
	vars["WASMPOD_GO"] = g.toolchain.Command
	vars["WASMPOD_OVERLAY"] = g.overlay.File
	vars["WASMPOD_OVERLAY_FILES"] = strings.Join(g.overlay.Files, " ")
	if asJSON {
		if len(names) > 0 {
			some := make(map[string]string)
			for _, n := range names {
				some[n] = vars[n]
			}
			vars = some
		}
		return a.print("json", vars, nil)
	}
	if len(names) == 0 {
		for n := range vars {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			fmt.Fprintf(a.stdout, "%s='%s'\n", n, strings.ReplaceAll(vars[n], "'", `'\''`))
		}
		return nil
	}
	for _, n := range names {
		fmt.Fprintln(a.stdout, vars[n])
	}
	return nil
}

// goTool is one use of the Go toolchain.
type goTool struct {
	app       *app
	toolchain *gotool.Toolchain
	overlay   *gotool.Overlay
	dir       string // that of -C
	args      []string
}

// goTool finds the toolchain and makes the overlay, for arguments of the go
// command.
func (a *app) goTool(ctx context.Context, args []string) (*goTool, error) {
	g := &goTool{app: a}
	users := ""
	for i := 0; i < len(args); i++ {
		name, value, inline := goFlag(args[i])
		if name != "" && !inline && !boolean(name) && i+1 < len(args) {
			value = args[i+1]
		}
		if err := checkGoFlag(name, value); err != nil {
			return nil, err
		}
		switch name {
		case "overlay":
			users = value
			if !inline {
				i++
			}
			continue // it becomes part of ours
		case "C":
			g.dir = value
		case "args", "":
			g.args = append(g.args, args[i])
			if name == "args" {
				g.args = append(g.args, args[i+1:]...)
				i = len(args)
			}
			continue
		}
		g.args = append(g.args, args[i])
		if !inline && !boolean(name) && i+1 < len(args) {
			i++
			g.args = append(g.args, args[i])
		}
	}
	var err error
	if g.toolchain, err = gotool.Find(ctx, g.dir); err != nil {
		return nil, err
	}
	for flag := range strings.FieldsSeq(g.toolchain.Flags) { // GOFLAGS has no quotes for these
		name, value, _ := goFlag(strings.Trim(flag, `'"`))
		if err := checkGoFlag(name, value); err != nil {
			return nil, fmt.Errorf("GOFLAGS: %w", err)
		}
		if name == "overlay" && users == "" {
			users = value // ours takes its place, and has its entries too
		}
	}
	g.overlay, err = g.toolchain.Overlay(filepath.Join(a.config.DataDir, "go"), users)
	return g, err
}

// checkGoFlag refuses what there is not for WebAssembly.
func checkGoFlag(name, value string) error {
	switch name {
	case "race", "msan", "asan":
		if value == "" || value == "true" {
			return invalid("-%s does not exist for WebAssembly: leave it out, or use go itself to test on this machine", name)
		}
	}
	return nil
}

// insert puts flags before the others; -C has to stay the first.
func (g *goTool) insert(flags ...string) {
	at := 0
	if len(g.args) > 0 {
		switch name, _, inline := goFlag(g.args[0]); {
		case name == "C" && inline:
			at = 1
		case name == "C":
			at = min(2, len(g.args))
		}
	}
	g.args = slices.Insert(g.args, at, flags...)
}

func (g *goTool) environ() []string {
	return g.toolchain.Environ()
}

// run runs the go command to its end; its exit code becomes ours.
func (g *goTool) run(ctx context.Context, command string) error {
	g.insert("-overlay=" + g.overlay.File)
	cmd := exec.CommandContext(ctx, g.toolchain.Command, append([]string{command}, g.args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = g.app.stdin, g.app.stdout, g.app.stderr
	cmd.Env = g.environ()
	// The terminal sends Ctrl-C to go as well; wait for how it takes it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				g.explainCgo(ctx)
			}
			return goFailed(err)
		case s := <-signals:
			if s == syscall.SIGTERM {
				_ = cmd.Process.Signal(s)
			}
		}
	}
}

// explainCgo names the packages that need cgo, after a command has failed: go
// itself only says that it has left files out.
func (g *goTool) explainCgo(ctx context.Context) {
	_, packages := splitGoFlags(g.args)
	if len(packages) > 0 && strings.HasSuffix(packages[0], ".go") {
		packages = slices.DeleteFunc(slices.Clone(packages), func(p string) bool { return !strings.HasSuffix(p, ".go") })
	}
	args := []string{"list", "-e", "-deps", "-overlay=" + g.overlay.File, "-f", "{{if .CgoFiles}}{{if not .Standard}}{{.ImportPath}}{{end}}{{end}}", "--"}
	cmd := exec.CommandContext(ctx, g.toolchain.Command, append(args, packages...)...)
	cmd.Dir = g.dir
	cmd.Env = append(g.environ(), "CGO_ENABLED=1") // else go forgets why
	out, err := cmd.Output()
	if names := strings.Fields(string(out)); err == nil && len(names) > 0 {
		fmt.Fprintf(g.app.stderr, "wasmpod: there is no cgo for WebAssembly, and these packages need it: %s. "+
			"Look for a build tag that does without, or for a package in plain Go\n", strings.Join(names, ", "))
	}
}

// goFailed passes on the exit code of a command that has said what is wrong.
func goFailed(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &exitError{code: max(exit.ExitCode(), exitFailure)}
	}
	return err
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// defaultOutput is where go build puts a single main package, plus .wasm; empty
// if it says where itself, or writes nothing.
func (g *goTool) defaultOutput(ctx context.Context) string {
	flags, rest := splitGoFlags(g.args)
	list := []string{"list", "-overlay=" + g.overlay.File, "-f", "{{.Name}} {{.ImportPath}}"}
	for i := 0; i < len(flags); i++ {
		name, value, inline := goFlag(flags[i])
		if !inline && !boolean(name) && i+1 < len(flags) {
			i++
			value = flags[i]
		}
		switch name {
		case "o", "n":
			return ""
		case "tags", "mod", "modfile":
			list = append(list, "-"+name+"="+value)
		case "C":
			list = slices.Insert(list, 1, "-C="+value)
		}
	}
	cmd := exec.CommandContext(ctx, g.toolchain.Command, append(append(list, "--"), rest...)...)
	cmd.Env = g.environ()
	out, err := cmd.Output()
	if err != nil {
		return "" // go build says what is wrong
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	pkg, isMain := strings.CutPrefix(lines[0], "main ")
	if len(lines) != 1 || !isMain {
		return ""
	}
	if pkg == "command-line-arguments" && len(rest) > 0 {
		return strings.TrimSuffix(filepath.Base(rest[0]), ".go") + ".wasm"
	}
	base := path.Base(pkg)
	if majorVersion.MatchString(base) && strings.Contains(pkg, "/") {
		base = path.Base(path.Dir(pkg))
	}
	return base + ".wasm"
}
