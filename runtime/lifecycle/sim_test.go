package lifecycle

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/wasmpod/wasmpod/probes"
)

func drawPod(t *rapid.T) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace, pod.UID = "p", "ns", "u1"
	policies := []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
	pod.Spec.RestartPolicy = rapid.SampledFrom(policies).Draw(t, "policy")
	if rapid.Bool().Draw(t, "has grace") {
		grace := rapid.Int64Range(0, 40).Draw(t, "grace")
		pod.Spec.TerminationGracePeriodSeconds = &grace
	}
	if rapid.IntRange(0, 3).Draw(t, "has deadline") == 0 {
		deadline := rapid.Int64Range(1, 400).Draw(t, "deadline")
		pod.Spec.ActiveDeadlineSeconds = &deadline
	}
	draw := func(name string) corev1.Container {
		c := corev1.Container{
			Name:            name,
			Image:           rapid.SampledFrom([]string{"a:1", "b:1"}).Draw(t, "image"),
			ImagePullPolicy: rapid.SampledFrom([]corev1.PullPolicy{corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever}).Draw(t, "pull"),
		}
		switch rapid.IntRange(0, 4).Draw(t, "container policy") {
		case 0:
			p := corev1.ContainerRestartPolicy(rapid.SampledFrom(policies).Draw(t, "own policy"))
			c.RestartPolicy = &p
		case 1:
			p := corev1.ContainerRestartPolicyNever
			c.RestartPolicy = &p
			c.RestartPolicyRules = []corev1.ContainerRestartRule{{
				Action: rapid.SampledFrom([]corev1.ContainerRestartRuleAction{"Restart", "RestartAllContainers"}).Draw(t, "rule"),
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
					Operator: rapid.SampledFrom([]corev1.ContainerRestartRuleOnExitCodesOperator{"In", "NotIn"}).Draw(t, "operator"),
					Values:   []int32{1},
				},
			}}
		}
		return c
	}
	watched := func(c *corev1.Container) {
		probe := func(kind string) *corev1.Probe {
			if rapid.IntRange(0, 2).Draw(t, kind) != 0 {
				return nil
			}
			return &corev1.Probe{
				PeriodSeconds: rapid.Int32Range(1, 20).Draw(t, "period"), InitialDelaySeconds: rapid.Int32Range(0, 20).Draw(t, "delay"),
				SuccessThreshold: 1, FailureThreshold: rapid.Int32Range(1, 3).Draw(t, "failures"),
			}
		}
		c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = probe("startup"), probe("liveness"), probe("readiness")
		if rapid.IntRange(0, 2).Draw(t, "hooks") == 0 {
			c.Lifecycle = &corev1.Lifecycle{}
			if rapid.Bool().Draw(t, "postStart") {
				c.Lifecycle.PostStart = &corev1.LifecycleHandler{}
			}
			if rapid.Bool().Draw(t, "preStop") {
				c.Lifecycle.PreStop = &corev1.LifecycleHandler{}
			}
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "inits") {
		c := draw(fmt.Sprintf("i%d", i))
		if c.RestartPolicyRules == nil && rapid.Bool().Draw(t, "sidecar") {
			p := corev1.ContainerRestartPolicyAlways
			c.RestartPolicy = &p
			watched(&c)
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "containers") {
		c := draw(fmt.Sprintf("c%d", i))
		watched(&c)
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return pod
}

// sim is a simulated node with one pod on it.
type sim struct {
	t   *rapid.T
	pod *corev1.Pod
	o   Observed
	now time.Time
	// back says that the clock was set back.
	back bool

	// The node as it is; facts about it may still be in the queue.
	sandbox bool
	live    map[string]int // attempt that runs, by container
	running map[Action]bool
	queue   []queued
	exits   bool // settle ends regular containers with 0

	// What has been told.
	past      []Fact
	told      map[string]bool
	begun     map[StartContainer]bool // running, and known to
	deleted   bool
	instances map[string]int   // how many have been reported
	initDone  map[string]bool  // ordinary init containers that succeeded in this sandbox
	reported  map[string]bool  // containers reported as running
	plan      *Plan            // since no fact has come
	restarts  map[string]int32 // as last shown
	final     corev1.PodPhase  // once shown
}

// queued is a fact on its way; done is the action that has returned with it.
type queued struct {
	fact Fact
	done Action
}

func newSim(t *rapid.T, pod *corev1.Pod) *sim {
	s := &sim{
		t: t, pod: pod, now: begin,
		live: map[string]int{}, running: map[Action]bool{}, instances: map[string]int{},
		told: map[string]bool{}, begun: map[StartContainer]bool{}, initDone: map[string]bool{}, reported: map[string]bool{}, restarts: map[string]int32{},
	}
	s.apply(PodAdmitted{At: s.now})
	return s
}

// steps does n things of which any could come next.
func (s *sim) steps(n int) {
	for range n {
		ops := []string{"sync", "sync", "sync", "sleep", "replay", "infra", "update", "jump", "evict"}
		if len(s.running) > 0 {
			ops = append(ops, "progress", "progress", "progress")
		}
		if len(s.live) > 0 {
			ops = append(ops, "exit")
		}
		if len(s.queue) > 0 {
			ops = append(ops, "deliver", "deliver", "deliver")
		}
		switch rapid.SampledFrom(ops).Draw(s.t, "op") {
		case "sync":
			s.sync()
		case "sleep":
			s.sleep(rapid.Bool().Draw(s.t, "to wake"))
		case "replay":
			if len(s.past) > 0 {
				s.apply(rapid.SampledFrom(s.past).Draw(s.t, "old fact"))
			}
		case "evict":
			if rapid.IntRange(0, 15).Draw(s.t, "evicts") == 0 {
				s.apply(PodEvicted{At: s.now, Grace: time.Second, Message: "too much"})
			}
		case "update":
			if rapid.IntRange(0, 3).Draw(s.t, "updates") == 0 {
				s.update()
			}
		case "jump":
			if rapid.IntRange(0, 7).Draw(s.t, "jumps") == 0 {
				s.jump()
			}
		case "infra":
			if s.sandbox && rapid.IntRange(0, 3).Draw(s.t, "dies") == 0 {
				s.emit(nil, SandboxExited{At: s.now, Attempt: s.o.Sandbox.Attempt})
			}
		case "progress":
			s.progress(rapid.SampledFrom(s.actions()).Draw(s.t, "action"), rapid.IntRange(0, 7).Draw(s.t, "outcome"))
		case "exit":
			name := rapid.SampledFrom(slices.Sorted(maps.Keys(s.live))).Draw(s.t, "container")
			s.exit(name, rapid.SampledFrom([]int32{0, 0, 1, 2, 137}).Draw(s.t, "code"))
		case "deliver":
			s.deliver()
		}
	}
}

// settle lets everything succeed until nothing happens any more.
func (s *sim) settle() {
	for range 2000 {
		for len(s.queue) > 0 {
			s.deliver()
		}
		s.sync()
		switch actions := s.actions(); {
		case len(s.queue) > 0:
		case len(actions) == 0 && len(s.plan.Actions) > 0: // something was cancelled first
		case len(actions) > 0:
			for _, a := range actions {
				if s.running[a] {
					s.progress(a, 7)
				}
			}
		case s.plan.Finished:
			return
		case s.exits && slices.ContainsFunc(slices.Collect(maps.Keys(s.live)), s.comesToAnEnd):
			for _, name := range slices.Sorted(maps.Keys(s.live)) {
				if s.comesToAnEnd(name) {
					s.exit(name, 0)
				}
			}
		case !s.plan.Wake.IsZero():
			s.sleep(true)
		default:
			return
		}
	}
	s.t.Fatalf("does not settle: %+v\n%+v", s.plan, s.o)
}

// update gives the pod another generation: with another image, other resources, or an
// ephemeral container more.
func (s *sim) update() {
	if s.deleted {
		return
	}
	pod := s.pod.DeepCopy()
	pod.Generation++
	f := PodUpdated{At: s.now, Generation: pod.Generation}
	if n := len(pod.Spec.EphemeralContainers); n < 2 && rapid.Bool().Draw(s.t, "ephemeral") {
		pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: fmt.Sprint("e", n), Image: "a:1"},
		})
	} else if rapid.IntRange(0, 3).Draw(s.t, "another image") == 0 {
		list := containers(pod)
		list[rapid.IntRange(0, len(list)-1).Draw(s.t, "changed")].Image = rapid.SampledFrom([]string{"a:1", "b:1", "c:2"}).Draw(s.t, "image")
	} else {
		cpu := *resource.NewMilliQuantity(rapid.Int64Range(1, 3).Draw(s.t, "cpu"), resource.DecimalSI)
		spec := &pod.Spec.Containers[rapid.IntRange(0, len(pod.Spec.Containers)-1).Draw(s.t, "resized")]
		spec.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: cpu}
		spec.ResizePolicy = []corev1.ContainerResizePolicy{{
			ResourceName:  corev1.ResourceCPU,
			RestartPolicy: rapid.SampledFrom([]corev1.ResourceResizeRestartPolicy{"NotRequired", "RestartContainer"}).Draw(s.t, "resize policy"),
		}}
		if rapid.IntRange(0, 4).Draw(s.t, "infeasible") == 0 {
			f.Infeasible = "too much"
		}
	}
	s.pod = pod
	s.apply(f)
}

// jump sets the clock, as an administrator may. Some of what is waited for comes
// too early then, but nothing is ever lost. (An active deadline that has passed is
// not undone: within a process the times that facts bear are monotonic as well.)
func (s *sim) jump() {
	least := -3600
	if s.pod.Spec.ActiveDeadlineSeconds != nil {
		least = 0
	}
	d := rapid.IntRange(least, 3600).Draw(s.t, "jump s")
	s.back = s.back || d < 0
	s.now = s.now.Add(time.Duration(d) * time.Second)
}

func (s *sim) comesToAnEnd(name string) bool {
	return !s.isInit(name) || !isSidecar(find(s.pod, name))
}

func (s *sim) isInit(name string) bool { return name[0] == 'i' }

func (s *sim) actions() []Action {
	list := slices.Collect(maps.Keys(s.running))
	slices.SortFunc(list, func(a, b Action) int {
		x, y := fmt.Sprintf("%T%+v", a, a), fmt.Sprintf("%T%+v", b, b)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return list
}

func (s *sim) sleep(toWake bool) {
	before := s.o
	from := Decide(s.pod, before, s.now)
	if toWake && from.Wake.After(s.now) {
		s.now = from.Wake
	} else {
		s.now = s.now.Add(time.Duration(rapid.IntRange(1, 60000).Draw(s.t, "sleep ms")) * time.Millisecond)
	}
	// An action stays in the plan until a fact shows that it is done; only the
	// active deadline needs no fact. What came too early because the clock was set
	// back is waited for again once that is the past.
	if s.back {
		return
	}
	passed := before
	if passed.passTime(s.pod, s.now) {
		return
	}
	to := Decide(s.pod, s.o, s.now)
	for _, a := range from.Actions {
		if _, ok := a.(RunHook); ok {
			continue // its grace is over (HOOK-05)
		}
		if !slices.Contains(to.Actions, a) {
			s.t.Fatalf("%T%+v vanished with time: %+v", a, a, to)
		}
	}
}

// sync does what the pod worker does: ask, and start what is not running.
func (s *sim) sync() {
	plan := s.check()
	s.plan = &plan
	for _, a := range plan.Actions {
		switch a.(type) {
		case RemoveSandbox, UnmountVolumes, ResetContainers:
			// Cancel what is no longer wanted, and look again when it has returned.
			waiting := false
			for _, other := range s.actions() {
				if !slices.Contains(plan.Actions, other) {
					waiting = true
					s.cancel(other)
				}
			}
			if waiting || len(s.queue) > 0 {
				return
			}
		}
		s.running[a] = true
	}
}

func (s *sim) cancel(a Action) {
	if slices.ContainsFunc(s.queue, func(q queued) bool { return q.done == a }) {
		return // it has returned
	}
	if st, ok := a.(StartContainer); ok && rapid.Bool().Draw(s.t, "reports its cancellation") {
		s.emit(a, ImageFailed{At: s.now, Container: st.ContainerRef, Try: st.Try, Reason: "ErrImagePull", Message: "context canceled"})
		return
	}
	delete(s.running, a)
}

func (s *sim) emit(done Action, f Fact) { s.queue = append(s.queue, queued{f, done}) }

func (s *sim) deliver() {
	q := s.queue[0]
	s.queue = s.queue[1:]
	s.apply(q.fact)
	if q.done != nil {
		delete(s.running, q.done)
		if st, ok := q.done.(StartContainer); ok {
			delete(s.begun, st)
		}
	}
}

func (s *sim) exit(name string, code int32) {
	attempt := s.live[name]
	delete(s.live, name)
	reason := "Error"
	if code == 0 {
		reason = "Completed"
	}
	s.emit(nil, ContainerExited{At: s.now, Container: ContainerRef{name, attempt}, ExitCode: code, Reason: reason})
}

// progress carries an action on; outcome 7 is success, and small ones are
// failures where the action has any.
func (s *sim) progress(a Action, outcome int) {
	if slices.ContainsFunc(s.queue, func(q queued) bool { return q.done == a }) {
		return // it has returned, and the worker has not heard yet
	}
	switch a := a.(type) {
	case MountVolumes:
		if outcome == 0 {
			s.emit(a, VolumesFailed{At: s.now, Attempt: a.Attempt, Messages: []string{"no"}})
		} else {
			s.emit(a, VolumesMounted{At: s.now})
		}
	case CreateSandbox:
		if outcome == 0 {
			s.emit(a, SandboxFailed{At: s.now, Attempt: a.Attempt, Message: "no"})
			return
		}
		s.sandbox = true
		s.emit(a, SandboxCreated{At: s.now, Attempt: a.Attempt, ID: fmt.Sprint("s", a.Attempt), IP: "10.0.0.1"})
	case StartContainer:
		s.startContainer(a, outcome)
	case StopContainer:
		attempt, ok := s.live[a.Name]
		switch {
		case !ok || attempt != a.Attempt:
			delete(s.running, a)
		case outcome < 4:
			s.emit(nil, ContainerStopping{At: s.now, Container: a.ContainerRef})
		default:
			s.exit(a.Name, []int32{0, 143, 137, 137}[outcome-4])
			delete(s.running, a)
		}
	case RemoveSandbox:
		for _, name := range slices.Sorted(maps.Keys(s.live)) {
			if outcome == 0 {
				delete(s.live, name) // nobody saw its end
			} else {
				s.exit(name, 137)
			}
		}
		s.sandbox = false
		s.emit(a, SandboxRemoved{At: s.now, Attempt: a.Attempt})
	case RunProbe:
		result := probes.Success
		if outcome < 4 {
			result = probes.Result(outcome)
		}
		s.emit(a, ProbeFinished{At: s.now, Began: s.now, Container: a.ContainerRef, Kind: a.Kind, Seq: a.Seq, Result: result})
	case RunHook:
		f := HookFinished{At: s.now, Container: a.ContainerRef, Hook: a.Hook}
		if outcome < 3 {
			f.Error = "no"
		}
		s.emit(a, f)
	case ResizeContainer:
		if outcome == 0 {
			s.emit(a, ResizeFailed{At: s.now, Container: a.ContainerRef, Generation: a.Generation, Try: a.Try, Message: "no"})
			return
		}
		s.emit(a, ContainerResized{
			At: s.now, Container: a.ContainerRef, Generation: s.pod.Generation, Resources: &find(s.pod, a.Name).Resources,
		})
	case ResetContainers:
		if slices.ContainsFunc(slices.Collect(maps.Keys(s.live)), func(name string) bool { return !isEphemeral(s.pod, name) }) {
			s.t.Fatalf("%+v while %v run", a, s.live)
		}
		s.emit(a, ContainersReset{At: s.now, Attempt: a.Attempt})
	case RemoveContainers:
		s.emit(a, ContainersRemoved{At: s.now, SandboxAttempt: a.SandboxAttempt})
	case UnmountVolumes:
		if s.sandbox {
			s.t.Fatal("volumes are unmounted under a sandbox")
		}
		s.emit(a, VolumesUnmounted{At: s.now})
	}
}

func (s *sim) startContainer(a StartContainer, outcome int) {
	ref, at := a.ContainerRef, s.now
	switch outcome {
	case 0:
		reason := rapid.SampledFrom([]string{"ErrImagePull", "ErrImageNeverPull", "InvalidImageName"}).Draw(s.t, "image failure")
		s.emit(a, ImageFailed{At: at, Container: ref, Try: a.Try, Image: find(s.pod, a.Name).Image, Reason: reason, Message: "no"})
	case 1:
		reason := rapid.SampledFrom([]string{"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}).Draw(s.t, "start failure")
		s.emit(a, ContainerStartFailed{At: at, Container: ref, Try: a.Try, Reason: reason, Message: "no"})
	case 2:
		s.emit(nil, ImagePulling{At: at, Container: ref, Image: "x"})
	default:
		if !s.sandbox {
			s.t.Fatalf("%+v without a sandbox", a)
		}
		if other, ok := s.live[a.Name]; ok {
			s.t.Fatalf("%s: attempt %d starts while %d runs", a.Name, a.Attempt, other)
		}
		s.live[a.Name] = a.Attempt
		s.emit(nil, ContainerCreated{At: at, Container: ref, ID: "x"})
		s.emit(a, ContainerStarted{At: at, Container: ref, ID: "x", SpecImage: find(s.pod, a.Name).Image})
	}
}

// apply tells a fact, and keeps account of what has been told.
func (s *sim) apply(f Fact) {
	before := toJSON(s.t, s.o)
	next, _ := s.o.Apply(s.pod, f)
	if toJSON(s.t, s.o) != before {
		s.t.Fatalf("%T%+v changed its receiver", f, f)
	}
	key := fmt.Sprintf("%T%+v", f, f)
	old := s.told[key]
	s.told[key] = true
	progress := false
	switch f.(type) {
	case ImagePulling, ImagePulled, ContainerCreated: // may be said at any try
		progress = true
	}
	if old && !progress && toJSON(s.t, next.Containers) != toJSON(s.t, s.o.Containers) && !s.deadlinePassed(f) {
		s.t.Fatalf("%T%+v was told twice and changed\n%+v to\n%+v", f, f, s.o, next)
	}
	tr := transition{s.o.stage(s.pod), next.stage(s.pod), reflect.TypeOf(f).Name()}
	if tr.fact == "PodEvicted" { // which ends a pod as a deletion does
		tr.fact = "PodDeleted"
	}
	if tr.from != tr.to && !s.deadlinePassed(f) && !transitions()[tr] {
		s.t.Fatalf("%s leads from %s to %s: add a scenario that shows it", tr.fact, tr.from, tr.to)
	}
	s.o, s.plan = next, nil
	if old {
		return
	}
	s.past = append(s.past, f)
	switch f := f.(type) {
	case PodDeleted:
		s.deleted = true
	case ImagePulling:
		for a := range s.running {
			if st, ok := a.(StartContainer); ok && st.ContainerRef == f.Container {
				s.begun[st] = true
			}
		}
	case ContainerStarted:
		s.instances[f.Container.Name] = f.Container.Attempt + 1
		s.reported[f.Container.Name] = true
	case ContainerStartFailed:
		if f.Reason == reasonRunContainerError {
			s.instances[f.Container.Name] = f.Container.Attempt + 1
		}
	case ContainerExited:
		delete(s.reported, f.Container.Name)
		if f.ExitCode == 0 {
			s.initDone[f.Container.Name] = true
		}
	case ContainersReset:
		clear(s.initDone)
	case SandboxRemoved:
		clear(s.initDone)
		clear(s.reported)
	}
}

func (s *sim) deadlinePassed(f Fact) bool {
	o := s.o
	return o.passTime(s.pod, f.when())
}
