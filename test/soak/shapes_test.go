package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime"
)

// shape is a kind of pod, and what it must come to.
type shape struct {
	name string
	// spec is the manifest's, as YAML; PORT is a port of the host that is this
	// pod's alone.
	spec string
	// until says whether the pod has come to what is expected of it.
	until func(*corev1.Pod) bool
	// then is done to it when it has; nil: nothing.
	then func(l *life) error
}

var shapes = []shape{
	{
		name:  "exits with 3",
		spec:  `{restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, exit 3]}]}`,
		until: all(phase(corev1.PodFailed), exited("c", 3)),
	},
	{
		name:  "says something",
		spec:  `{restartPolicy: OnFailure, containers: [{name: c, image: busybox, command: [sh, -c, "echo $HOSTNAME"]}]}`,
		until: phase(corev1.PodSucceeded),
		then:  func(l *life) error { return l.logged("c", l.pod.Name+"\n") },
	},
	{
		name:  "crashes, and starts again",
		spec:  `{containers: [{name: c, image: busybox, command: [sh, -c, "echo once; exit 1"]}]}`,
		until: waits("CrashLoopBackOff"),
	},
	{
		name: "serves",
		spec: `{containers: [{name: c, image: httpecho-c, args: [serve, "8080"], ports: [{containerPort: 8080, hostPort: PORT, hostIP: 127.0.0.1}],
			readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 60},
			livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 60}}]}`,
		until: ready,
		then: func(l *life) error {
			inside := func(ctx context.Context, _, _ string) (net.Conn, error) {
				return l.Dial(ctx, l.pod.UID, "tcp", "127.0.0.1:8080")
			}
			return errors.Join(l.echo("http://pod/", inside), l.echo(fmt.Sprintf("http://127.0.0.1:%d/", l.port), nil))
		},
	},
	{
		name:  "is throttled",
		spec:  `{containers: [{name: c, image: spin, resources: {limits: {cpu: 50m}}}, {name: d, image: spin, resources: {limits: {cpu: 20m}}}]}`,
		until: running,
	},
	{
		name: "takes too much memory",
		spec: `{restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, "x=0123456789; while :; do x=$x$x; done"],
			resources: {limits: {memory: 48Mi}}}]}`,
		until: all(phase(corev1.PodFailed), exited("c", 137), func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].State.Terminated.Reason == "OOMKilled" }),
	},
	{
		name: "has init containers and a sidecar",
		spec: `{restartPolicy: Never, volumes: [{name: v, emptyDir: {}}],
			initContainers: [{name: i, image: busybox, command: [sh, -c, "echo one > /v/i"], volumeMounts: [{name: v, mountPath: /v}]},
				{name: s, image: busybox, restartPolicy: Always, command: [sh, -c, "echo two >> /v/i; exec sleep 3600"], volumeMounts: [{name: v, mountPath: /v}],
					startupProbe: {exec: {command: [grep, -q, two, /v/i]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 60}}],
			containers: [{name: c, image: busybox, command: [cat, /v/i], volumeMounts: [{name: v, mountPath: /v}]}]}`,
		until: phase(corev1.PodSucceeded),
		then:  func(l *life) error { return l.logged("c", "one\ntwo\n") },
	},
	{
		name: "has hooks, and is deaf",
		spec: `{terminationGracePeriodSeconds: 1, containers: [{name: c, image: busybox, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"],
			lifecycle: {postStart: {exec: {command: ["true"]}}, preStop: {exec: {command: [sleep, "3600"]}}}}]}`,
		until: running,
	},
	{
		name:  "says much",
		spec:  `{restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, "yes 0123456 | head -c 800000"]}]}`,
		until: phase(corev1.PodSucceeded),
		then:  func(l *life) error { return l.logged("c", strings.Repeat("0123456\n", 100000)) },
	},
	{
		name: "writes files",
		spec: `{restartPolicy: Never, volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory, sizeLimit: 8Mi}}],
			containers: [{name: c, image: busybox, command: [sh, -c, "for i in /d /m /tmp; do for j in 1 2 3 4 5; do head -c 1000000 /dev/zero > $i/$j || exit; done; rm $i/1; done"],
				volumeMounts: [{name: d, mountPath: /d}, {name: m, mountPath: /m}]}]}`,
		until: phase(corev1.PodSucceeded),
	},
	{
		name: "talks to itself",
		spec: `{containers: [{name: s, image: httpecho-c, args: [serve, "80"]},
			{name: c, image: busybox, command: [sh, -c, "until wget -q -O /dev/null http://localhost/; do sleep 0.1; done; exec sleep 3600"],
				readinessProbe: {exec: {command: [wget, -q, -O, /dev/null, "http://localhost/"]}, periodSeconds: 1, timeoutSeconds: 60}}]}`,
		until: ready,
	},
	{
		name:  "has no image",
		spec:  `{containers: [{name: c, image: "no-such-image:v1", imagePullPolicy: Never}]}`,
		until: waits("ErrImageNeverPull"),
	},
	{
		name:  "has no configuration",
		spec:  `{containers: [{name: c, image: busybox, envFrom: [{configMapRef: {name: no-such-map}}]}]}`,
		until: waits("CreateContainerConfigError"),
	},
	{
		name:  "is visited",
		spec:  `{containers: [{name: c, image: busybox, command: [sleep, "3600"]}]}`,
		until: running,
		then: func(l *life) error {
			var out bytes.Buffer
			text := strings.Repeat("to and fro\n", 1+l.rand.IntN(10000))
			code, err := l.Exec(l.ctx, l.pod.UID, "c", runtime.ExecConfig{Command: []string{"cat"}, Stdin: strings.NewReader(text), Stdout: &out})
			if err != nil || code != 0 || out.String() != text {
				return fmt.Errorf("exec: %d of %d bytes came back, exit code %d, %w", out.Len(), len(text), code, err)
			}
			code, err = l.Exec(l.ctx, l.pod.UID, "c", runtime.ExecConfig{Command: []string{"no-such-command"}})
			if err == nil && code == 0 {
				return errors.New("a command that does not exist has succeeded")
			}
			// One that is running when the pod goes.
			ctx, cancel := context.WithTimeout(l.ctx, time.Duration(l.rand.IntN(300))*time.Millisecond)
			defer cancel()
			_, _ = l.Exec(ctx, l.pod.UID, "c", runtime.ExecConfig{Command: []string{"sleep", "3600"}})
			return nil
		},
	},
	{
		name:  "takes too long",
		spec:  `{activeDeadlineSeconds: 1, containers: [{name: c, image: spin}]}`,
		until: all(phase(corev1.PodFailed), func(p *corev1.Pod) bool { return p.Status.Reason == "DeadlineExceeded" }),
	},
	{
		name: "is not well",
		spec: `{terminationGracePeriodSeconds: 1, containers: [{name: c, image: busybox, command: [sleep, "3600"],
			livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 1}}]}`,
		until: func(p *corev1.Pod) bool {
			return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
		},
	},
	{
		name:  "is killed",
		spec:  `{restartPolicy: Never, containers: [{name: c, image: busybox, command: [sleep, "3600"]}]}`,
		until: running,
		then: func(l *life) error {
			if err := l.Signal(l.pod.UID, "c", 9); err != nil {
				return err
			}
			return l.wait(all(phase(corev1.PodFailed), exited("c", 137)))
		},
	},
	{
		name:  "gets a debugger",
		spec:  `{containers: [{name: c, image: httpecho-c, args: [serve, "80"]}]}`,
		until: running,
		// The server runs, and may not listen yet.
		then: func(l *life) error {
			err := l.AddEphemeral(l.pod.UID, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debugger", Image: "busybox", ImagePullPolicy: corev1.PullNever, Command: []string{"sh", "-c", "until wget -q -O /dev/null http://localhost/; do sleep 0.1; done"},
				TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			}})
			if err != nil {
				return err
			}
			return l.wait(func(p *corev1.Pod) bool {
				s := p.Status.EphemeralContainerStatuses
				return len(s) == 1 && s[0].State.Terminated != nil && s[0].State.Terminated.ExitCode == 0
			})
		},
	},
}

// echo sends a text to an HTTP server that gives it back.
func (l *life) echo(url string, dial func(context.Context, string, string) (net.Conn, error)) error {
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: l.rand.IntN(2) == 0}
	defer transport.CloseIdleConnections()
	text := strings.Repeat("x", l.rand.IntN(60000))
	request, err := http.NewRequestWithContext(l.ctx, http.MethodPost, url, strings.NewReader(text))
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || string(body) != text {
		return fmt.Errorf("%s: %s, %d of %d bytes came back: %w", url, response.Status, len(body), len(text), err)
	}
	return nil
}

// logged says whether a container has written this.
func (l *life) logged(container, want string) error {
	var b bytes.Buffer
	if err := l.Logs(l.ctx, l.pod, container, 0, &b); err != nil {
		return err
	}
	var text strings.Builder // of "time stream tag text"
	for line := range strings.Lines(b.String()) {
		f := strings.SplitN(line, " ", 4)
		text.WriteString(f[len(f)-1])
	}
	if text.String() != want {
		return fmt.Errorf("it has written %.100q (%d bytes), want %.100q (%d)", text.String(), text.Len(), want, len(want))
	}
	return nil
}

func all(conditions ...func(*corev1.Pod) bool) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		for _, c := range conditions {
			if !c(p) {
				return false
			}
		}
		return true
	}
}

func phase(want corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == want }
}

func running(p *corev1.Pod) bool {
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Running == nil {
			return false
		}
	}
	return len(p.Status.ContainerStatuses) > 0
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func exited(container string, code int32) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		for _, s := range p.Status.ContainerStatuses {
			if s.Name == container {
				return s.State.Terminated != nil && s.State.Terminated.ExitCode == code
			}
		}
		return false
	}
}

func waits(reason string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == reason
	}
}

// mood is what is done with a pod besides: nothing, for most of them.
func mood(r *rand.Rand) (hasty bool, grace time.Duration) {
	return r.IntN(3) == 0, time.Duration(r.IntN(3)) * time.Second
}
