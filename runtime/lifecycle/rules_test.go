package lifecycle

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// Rules that no scenario shows, because facts of a whole node do not lead there.
func TestRules(t *testing.T) {
	t.Run("PHASE-10 nothing is known of any container", func(t *testing.T) {
		if got := shownPhase(&corev1.Pod{}, &Observed{}); got != corev1.PodPending {
			t.Error(got)
		}
	})
	t.Run("PROBE-01 a worker for each probe of regular containers and sidecars, which outlives restarts", func(t *testing.T) {
		s := play(t, `
initContainers:
- {name: i, image: x}
- {name: s, image: x, restartPolicy: Always, readinessProbe: {exec: {command: [x]}}}
containers:
- {name: a, image: x, livenessProbe: {exec: {command: [x]}}, startupProbe: {exec: {command: [x]}}}
- {name: b, image: x}`, "")
		list := func() (names []string) {
			for _, p := range s.o.Probes {
				names = append(names, p.Container+" "+p.Kind.String())
			}
			return names
		}
		want := []string{"s Readiness", "a Startup", "a Liveness"}
		if got := list(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		for _, line := range []string{
			"ContainerStarted i/0", "ContainerExited i/0 code=0 reason=Completed", "ContainerStarted s/0", "ContainerStarted a/0 id=a0",
			"+1s", "ContainerExited a/0 code=1 reason=Error", "ContainerStarted a/1 id=a1",
		} {
			s.run([]string{line})
		}
		if got := list(); !slices.Equal(got, want) {
			t.Errorf("%q after a restart, want %q", got, want)
		}
		for _, p := range s.o.Probes {
			if p.Kind == probes.Startup && (p.ID != "a1" || !p.Begin.Equal(begin)) {
				t.Errorf("PROBE-02: %+v", p)
			}
		}
	})
	t.Run("SIDE-11 a sidecar without a record is started beside running containers", func(t *testing.T) {
		s := play(t, `
initContainers:
- {name: s, image: x, restartPolicy: Always}
- {name: i, image: x}
containers: [{name: a, image: x}]`, `
			ContainerStarted s/0
			ContainerStarted i/0
			ContainerExited i/0 code=0 reason=Completed
			ContainerStarted a/0`)
		delete(s.o.Containers, "s")
		if starts, done := s.o.nextInit(s.pod); !done || !slices.Equal(starts, []int{0}) {
			t.Errorf("%v %v", starts, done)
		}
		delete(s.o.Containers, "i") // INIT-02: nor is an ordinary one before it asked again
		if starts, done := s.o.nextInit(s.pod); !done || !slices.Equal(starts, []int{0}) {
			t.Errorf("%v %v", starts, done)
		}
	})
}

func TestLogsOf(t *testing.T) {
	const spec = `
initContainers: [{name: i, image: x}]
containers: [{name: a, image: x}, {name: b, image: x}]`
	// Until all containers have started the API shows none of them (MAIN-03).
	const started = "ContainerStarted i/0\nContainerExited i/0 code=0\nContainerStarted a/0\nContainerStarted b/0\n"
	for _, tt := range []struct {
		name, script, container string
		previous                bool
		want                    int
		message                 string
	}{
		{"LOG-06 the one that runs", started, "a", false, 0, ""},
		{"LOG-06 the last that ended", "ContainerStarted i/0\nContainerExited i/0 code=0", "i", false, 0, ""},
		{"LOG-06 the last that ended, though it waits", started + "ContainerExited a/0 code=1\nContainerStarted a/1\nContainerExited a/1 code=1", "a", false, 1, ""},
		{"LOG-06 the one before", started + "ContainerExited a/0 code=1\nContainerStarted a/1", "a", true, 0, ""},
		{"LOG-06 the last that ended is the one before, while it waits", started + "ContainerExited a/0 code=1\nContainerStarted a/1\nContainerExited a/1 code=1", "a", true, 1, ""},
		{"LOG-06 there was none before", started, "a", true, 0, `previous terminated container "a" in pod "p" not found`},
		{"LOG-07 never started", "", "a", false, 0, `container "a" in pod "p" is waiting to start: PodInitializing`},
		{"LOG-07 no image", "ImageFailed i/0 image=x reason=ErrImagePull message=no", "i", false, 0, `container "i" in pod "p" is waiting to start: image can't be pulled`},
		{"LOG-07 still no image", "ImageFailed i/0 image=x reason=ErrImagePull message=no\n+2s", "i", false, 0, `container "i" in pod "p" is waiting to start: trying and failing to pull image`},
		{"LOG-07 MAIN-03 it runs, but another one is still to start", "ContainerStarted i/0\nContainerExited i/0 code=0\nContainerStarted a/0", "a", false, 0, `container "a" in pod "p" is waiting to start: PodInitializing`},
		{"LOG-07 no such container", "", "z", false, 0, `container z is not valid for pod p`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := play(t, spec, tt.script)
			pod := s.pod.DeepCopy()
			pod.Status = Status(s.pod, s.o, s.now)
			got, err := LogsOf(pod, tt.container, tt.previous)
			switch {
			case tt.message == "" && (err != nil || got != tt.want):
				t.Errorf("attempt %d, %v, want %d", got, err, tt.want)
			case tt.message != "" && (err == nil || err.Error() != tt.message):
				t.Errorf("%v, want %s", err, tt.message)
			}
		})
	}
	t.Run("LOG-10 EXEC-03 the container that nobody names", func(t *testing.T) {
		pod := newPod(t, spec)
		name, note := DefaultContainer(pod)
		if name != "a" || note != `Defaulted container "a" out of: a, b, i (init)` {
			t.Errorf("%q %q", name, note)
		}
		pod.Annotations = map[string]string{"kubectl.kubernetes.io/default-container": "b"}
		if name, note = DefaultContainer(pod); name != "b" || note != "" {
			t.Errorf("%q %q", name, note)
		}
		pod.Annotations["kubectl.kubernetes.io/default-container"] = "gone"
		if name, _ = DefaultContainer(pod); name != "a" {
			t.Errorf("%q", name)
		}
		if _, note := DefaultContainer(newPod(t, `containers: [{name: a, image: x}]`)); strings.TrimSpace(note) != "" {
			t.Errorf("%q", note)
		}
	})
}
