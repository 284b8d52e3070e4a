package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	corev1 "k8s.io/api/core/v1"
)

func newGoRunCommand(a *app) *cobra.Command {
	return goSubcommand(a, &cobra.Command{
		Use:   "run [go build flags] [flags] package [arguments...]",
		Short: "Compile a program and run it in a pod",
		Long: `Run compiles a program and runs it as a pod of one container. Its arguments
follow the package; stdin, stdout, stderr and the exit code are the program's.
It starts in the working directory, which is mounted where it is on the host;
/tmp is the pod's own. Of the environment it gets what --env passes on.`,
		Example: `  wasmpod go run . -listen :8080
  wasmpod go run --env LEVEL=debug --publish 8080:8080 ./cmd/server
  wasmpod go run --mount=false -tags netdebug main.go`,
	}, &goFlags{pod: true}, a.goRun)
}

func (a *app) goRun(ctx context.Context, own *goFlags, args []string) error {
	flags, rest := splitGoFlags(args)
	n := 0
	for n < len(rest) && strings.HasSuffix(rest[n], ".go") && !strings.HasPrefix(rest[n], "-") {
		n++
	}
	if n == 0 {
		n = 1
	}
	if len(rest) < n {
		return invalid("there is no package to run: wasmpod go run . runs that of the working directory")
	}
	g, err := a.goTool(ctx, flags)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wasmpod-go-run")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// go build into a directory fails where there is no main package.
	g.insert("-o", dir+string(filepath.Separator))
	g.args = append(g.args, rest[:n]...)
	if err := g.run(ctx, "build"); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return invalid("%s are %d programs: run one of them", strings.Join(rest[:n], " "), len(files))
	}
	module := filepath.Join(dir, files[0].Name()+".wasm")
	if err := os.Rename(filepath.Join(dir, files[0].Name()), module); err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	var mounts []hostMount
	if own.mount {
		mounts = append(mounts, hostMount{dir: cwd})
	} else {
		cwd = "/"
	}
	return a.goPod(ctx, own, module, rest[n:], cwd, mounts)
}

func newGoTestCommand(a *app) *cobra.Command {
	return goSubcommand(a, &cobra.Command{
		Use:   "test [go test flags] [flags] [packages]",
		Short: "Test packages, each in a pod",
		Long: `Test is go test with each package's tests in a pod of its own. They run in the
package's directory; its module is mounted where it is on the host, so testdata
and golden files are found. /tmp and $HOME are the pod's own. Results are cached
as usual, for the same wasmpod. Flags of the pod go before the packages.`,
		Example: `  wasmpod go test ./...
  wasmpod go test -run TestServer -v --memory-limit 64Mi ./server`,
	}, &goFlags{pod: true}, a.goTest)
}

func (a *app) goTest(ctx context.Context, own *goFlags, args []string) error {
	g, err := a.goTool(ctx, args)
	if err != nil {
		return err
	}
	for _, arg := range g.args {
		if name, _, _ := goFlag(arg); name == "exec" {
			return invalid("-exec is what wasmpod go test uses itself: leave it out, or use go test")
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := []string{self, "go", "exec", "--data-dir=" + a.config.DataDir, fmt.Sprintf("--mount=%t", own.mount)}
	if a.config.Interpreter {
		command = append(command, "--interpreter")
	}
	for flag, values := range map[string][]string{"env": own.image.env, "volume": own.image.volumes, "publish": own.image.publish} {
		for _, v := range values {
			command = append(command, "--"+flag+"="+v)
		}
	}
	if own.image.cpu != "" {
		command = append(command, "--cpu-limit="+own.image.cpu)
	}
	if own.image.memory != "" {
		command = append(command, "--memory-limit="+own.image.memory)
	}
	// Part of the key under which go test keeps results: another wasmpod may
	// behave differently.
	if info, err := os.Stat(self); err == nil {
		command = append(command, fmt.Sprintf("--build=%x-%x", info.Size(), info.ModTime().UnixNano()))
	}
	for i, arg := range command {
		if command[i], err = quoteGo(arg); err != nil {
			return err
		}
	}
	g.insert("-exec=" + strings.Join(command, " "))
	return g.run(ctx, "test")
}

// quoteGo quotes an argument as the go command splits them.
func quoteGo(arg string) (string, error) {
	switch {
	case !strings.ContainsAny(arg, " \t\n\r'\""):
		return arg, nil
	case !strings.Contains(arg, "'"):
		return "'" + arg + "'", nil
	case !strings.Contains(arg, `"`):
		return `"` + arg + `"`, nil
	}
	return "", invalid("%q has both kinds of quotes, which cannot be passed through go test", arg)
}

// newGoExecCommand is what go test runs instead of a test binary.
func newGoExecCommand(a *app) *cobra.Command {
	var build string
	c := goSubcommand(a, &cobra.Command{
		Use:    "exec [flags] FILE [ARG...]",
		Short:  "Run a test binary in a pod, for go test -exec",
		Hidden: true,
	}, &goFlags{pod: true}, func(ctx context.Context, own *goFlags, args []string) error {
		if len(args) == 0 {
			return invalid("go exec needs a file")
		}
		return a.goExec(ctx, own, args[0], args[1:])
	})
	c.Flags().StringVar(&build, "build", "", "the wasmpod that runs it, for the cache of results")
	return c
}

func (a *app) goExec(ctx context.Context, own *goFlags, file string, args []string) error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	var mounts []hostMount
	if own.mount {
		mounts = append(mounts, testRoot(cwd))
	}
	// Files that go test wants written, beside the binary.
	written := make(map[string]bool)
	for _, arg := range args {
		name, value, inline := goFlag(arg)
		if !inline || !strings.HasPrefix(name, "test.") || !filepath.IsAbs(value) {
			continue
		}
		switch strings.TrimPrefix(name, "test.") {
		case "testlogfile", "coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace":
			value = filepath.Dir(value)
		case "gocoverdir", "outputdir", "fuzzcachedir":
		default:
			continue
		}
		if value != cwd && !written[value] {
			written[value] = true
			mounts = append(mounts, hostMount{dir: value})
		}
	}
	own.image.env = append([]string{"HOME=/tmp", "TMPDIR=/tmp"}, own.image.env...)
	// An image's reference needs the extension; the binary's directory is go's.
	dir, err := os.MkdirTemp("", "wasmpod-go-test")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	module := filepath.Join(dir, strings.TrimSuffix(filepath.Base(file), ".test")+".wasm")
	abs, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if err := os.Symlink(abs, module); err != nil {
		return err
	}
	return a.goPod(ctx, own, module, args, cwd, mounts)
}

// testRoot is what tests in a directory can see of the host: their module, or
// their GOROOT, which they may not change.
func testRoot(dir string) hostMount {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			if root := filepath.Dir(d); filepath.Base(d) == "src" && isGOROOT(root) {
				return hostMount{dir: root, readOnly: true}
			}
			return hostMount{dir: d}
		}
		if d == filepath.Dir(d) {
			return hostMount{dir: dir}
		}
	}
}

func isGOROOT(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "VERSION"))
	return err == nil
}

type hostMount struct {
	dir      string // the same on the host and in the guest
	readOnly bool
}

// goPod runs a module as a pod of one container.
func (a *app) goPod(ctx context.Context, own *goFlags, module string, args []string, cwd string, mounts []hostMount) error {
	own.image.stdin = true
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, "$", "$$") // they are no manifest's
	}
	pod, err := own.image.pod(corev1.NamespaceDefault, module, args)
	if err != nil {
		return err
	}
	c := &pod.Spec.Containers[0]
	c.WorkingDir = cwd
	volumes := []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	places := []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}}
	for i, m := range mounts {
		name := fmt.Sprintf("host%d", i)
		volumes = append(volumes, corev1.Volume{
			Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: m.dir}},
		})
		places = append(places, corev1.VolumeMount{Name: name, MountPath: m.dir, ReadOnly: m.readOnly})
	}
	// Those of flags last: they shadow the others.
	pod.Spec.Volumes = append(volumes, pod.Spec.Volumes...)
	c.VolumeMounts = append(places, c.VolumeMounts...)
	objects, err := asManifest(pod)
	if err != nil {
		return err
	}
	return a.runObjects(ctx, runOptions{logPrefix: "never", image: own.image}, objects, true, nil)
}
