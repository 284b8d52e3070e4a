package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// patience is for how long a run waits for an image or an object that is not
// there, when no --timeout says otherwise. Long enough for one more look
// (TIME-09), as somebody may be building the image.
const patience = 15 * time.Second

type runOptions struct {
	namespace     string
	timeout       time.Duration
	statusFile    string
	events        bool
	metricsListen string
	logPrefix     string
	dryRun        bool
	quiet         bool
	watch         bool

	image imageOptions
}

func newRunCommand(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run FILE|DIR|-... | run [flags] IMAGE|X.wasm [-- ARG...]",
		Short: "Run the pods of manifests, or one image as a pod",
		Long: `Run applies every object in the manifests, streams the containers' logs, and
ends when the pods end: a container's stdout goes to stdout, its stderr to
stderr. The exit code is 0 if every pod Succeeded, else that of the first
container that failed; 2 for a manifest that is not valid; 124 on --timeout.

The first Ctrl-C (or SIGTERM) ends the pods within their grace periods, a second
one at once.

ConfigMaps and Secrets that change in the manifests while the pods run are taken
up, and Services that are new: volumes change at once, a node's within a minute.

With an image or a module instead of a manifest, it becomes a pod of one
container with restartPolicy Never.`,
		Example: `  wasmpod run pod.yaml
  wasmpod run --events --timeout 30s --status-file status.json manifests/
  kubectl create job x --image=busybox --dry-run=client -o yaml -- date | wasmpod run -
  wasmpod run -v ./data:/data:ro -e LEVEL=debug --memory 64Mi app.wasm -- /data/input
  wasmpod run -p 8080:80 nginx
  wasmpod run busybox -- sh -c 'echo hello from $HOSTNAME'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{exitInvalid, errors.New("run needs a manifest (file, directory or -), an image, or a .wasm file (see 'wasmpod run --help')")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), o, args, cmd.ArgsLenAtDash())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "default", "namespace of objects that name none")
	f.DurationVar(&o.timeout, "timeout", 0, "end the pods after this long, and exit with 124 (0: never)")
	f.StringVar(&o.statusFile, "status-file", "", "write the final objects with their status to this file, as a v1 List in JSON")
	f.BoolVar(&o.events, "events", false, "print Kubernetes events on stderr")
	f.StringVar(&o.metricsListen, "metrics-listen", "", "serve Prometheus metrics on this address (HOST:PORT; port 0: any)")
	f.StringVar(&o.logPrefix, "log-prefix", "auto", "name the pod and container before each line: always, never, or auto (when there is more than one)")
	f.BoolVar(&o.dryRun, "dry-run", false, "print each container's blueprint as JSON, and run nothing")
	f.BoolVar(&o.watch, "watch", true, "take up changed ConfigMaps and Secrets, and new Services, of the manifests while the pods run")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not report progress")
	o.image.addFlags(f)
	_ = cmd.RegisterFlagCompletionFunc("log-prefix", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) run(ctx context.Context, o runOptions, args []string, dash int) error {
	var w *watcher
	if o.watch && !o.dryRun && dash < 0 {
		w = a.newWatcher(o, args)
	}
	objects, fromImage, err := a.objects(o, args, dash)
	if err != nil {
		return errors.Join(err, a.writeStatus(o, nil))
	}
	if fromImage {
		w = nil
	}
	return a.runObjects(ctx, o, objects, fromImage, w)
}

// runObjects runs objects to their end. fromImage says that they stand for one
// program, not for a manifest; w, which may be nil, takes up their changes.
func (a *app) runObjects(ctx context.Context, o runOptions, objects *manifest.Objects, fromImage bool, w *watcher) error {
	prefix, err := prefixed(o.logPrefix, objects)
	if err != nil {
		return &exitError{exitInvalid, err}
	}
	screen := newScreen(a.stdout, a.stderr, screenOptions{
		prefix:   prefix,
		progress: !o.quiet && !fromImage,
		events:   o.events,
	})
	defer screen.close()
	for _, w := range objects.Warnings {
		screen.message("warning: " + w.String())
	}
	cfg := a.config
	cfg.Stdio = screen.stdio
	if fromImage && o.image.stdin {
		cfg.Stdio = withStdin(cfg.Stdio, a.stdin)
	}
	cfg.OnProgress, cfg.OnEvent = screen.fact, screen.event

	r, err := runtime.Open(ctx, cfg)
	if err != nil {
		return errors.Join(err, a.writeStatus(o, nil))
	}
	defer r.Close()
	if o.dryRun {
		blueprints, err := r.Blueprints(ctx, objects)
		return errors.Join(a.print("json", blueprints, nil), err)
	}
	if o.metricsListen != "" {
		url, stop, err := serveMetrics(o.metricsListen, r)
		if err != nil {
			return err
		}
		defer stop()
		screen.metrics(url)
	}
	if stop, err := r.ServeControl(); err == nil {
		defer stop()
	} else {
		a.log.Warn("wasmpod top cannot see these pods", "error", err)
	}
	// Before anything runs: who sees it run can send a signal at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := r.Apply(objects); err != nil {
		return errors.Join(err, a.writeStatus(o, r))
	}
	screen.services(r.Services())
	if w != nil {
		w.runtime, w.screen, w.objects = r, screen, objects
		watching, stop := context.WithCancel(ctx)
		watched := make(chan struct{})
		go func() { defer close(watched); w.run(watching) }()
		defer func() { stop(); <-watched }()
	}
	limit := patience
	switch {
	case o.timeout > 0:
		limit = 0 // the user has said how long to wait
	case fromImage:
		limit = time.Millisecond // somebody waits at the prompt
	}
	waitErr := a.wait(ctx, r, o.timeout, limit, screen, signals)
	screen.summary(r.Pods())
	screen.close()
	if err := a.writeStatus(o, r); err != nil {
		return err
	}
	if waitErr != nil {
		return waitErr
	}
	return outcome(r)
}

// wait blocks until the pods have ended: by themselves, by a signal, by the
// timeout, or because none of them can get on for longer than limit (0: never).
func (a *app) wait(ctx context.Context, r *runtime.Runtime, timeout, limit time.Duration, screen *screen, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	ended := make(chan error, 1)
	go func() { ended <- r.Wait(ctx, limit) }()
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	var result error
	for stops := 0; ; {
		select {
		case err := <-ended:
			var blocked *runtime.BlockedError
			if !errors.As(err, &blocked) {
				return errors.Join(result, err)
			}
			result = &exitError{exitFailure, blocked}
			r.Kill()
			go func() { ended <- r.Wait(ctx, 0) }()
		case <-expired:
			result = &exitError{code: exitTimedOut}
			screen.message(fmt.Sprintf("timeout of %v is over: ending the pods", timeout))
			r.Delete()
		case <-signals:
			if stops++; stops == 1 {
				screen.message("ending the pods within their grace periods; once more to end them at once")
				r.Delete()
			} else {
				r.Kill()
			}
		}
	}
}

// outcome turns the pods' final states into the exit code.
func outcome(r *runtime.Runtime) error {
	failure := r.Failure()
	if failure == nil {
		return nil
	}
	code := int(failure.ExitCode)
	if code == 0 {
		code = exitFailure
	}
	return &exitError{code: code}
}

// prefixed decides whether log lines name their container.
func prefixed(mode string, objects *manifest.Objects) (bool, error) {
	switch mode {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
	default:
		return false, fmt.Errorf("--log-prefix: %q is none of auto, always, never", mode)
	}
	containers := 0
	count := func(s *corev1.PodSpec) { containers += len(s.InitContainers) + len(s.Containers) }
	for _, p := range objects.Pods {
		count(&p.Spec)
	}
	for _, j := range objects.Jobs {
		count(&j.Spec.Template.Spec)
	}
	workloads := len(objects.Deployments) + len(objects.ReplicaSets) + len(objects.StatefulSets) + len(objects.DaemonSets)
	return containers+workloads > 1 || workloads > 0, nil
}

// writeStatus writes the status file, if one was asked for: whole or not at
// all. r may be nil: nothing was run.
func (a *app) writeStatus(o runOptions, r *runtime.Runtime) error {
	if o.statusFile == "" {
		return nil
	}
	return writeFileJSON(o.statusFile, r.List())
}
