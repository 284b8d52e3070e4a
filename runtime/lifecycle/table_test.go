package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// play gives a pod with this spec a sandbox and then the facts of a script in
// the language of the scenarios, one a line.
func play(t *testing.T, spec, script string) *scenario {
	t.Helper()
	s := &scenario{t: t, now: begin, conditions: map[corev1.PodConditionType]string{}}
	s.pod = newPod(t, spec)
	s.run([]string{"PodAdmitted", "VolumesMounted", "SandboxCreated attempt=0 id=s0 ip=10.0.0.1"})
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" {
			s.run([]string{line})
		}
	}
	return s
}

func TestPhase(t *testing.T) {
	const (
		one = `
containers: [{name: a, image: x}]
`
		two = `
containers: [{name: a, image: x}, {name: b, image: y}]
`
		init = `
initContainers: [{name: i, image: x}]
containers: [{name: a, image: x}]
`
		sidecar = `
initContainers: [{name: s, image: x, restartPolicy: Always}]
containers: [{name: a, image: x}]
`
		never     = "restartPolicy: Never"
		onFailure = "restartPolicy: OnFailure"
	)
	for _, tt := range []struct {
		name   string
		spec   string
		script string
		want   corev1.PodPhase
	}{
		{"PHASE-01 an init container failed for good", init + never, `
			ContainerStarted i/0
			ContainerExited i/0 code=1 reason=Error
			SandboxRemoved attempt=0`, corev1.PodFailed},
		{"PHASE-02 an init container was never run", init, ``, corev1.PodPending},
		{"PHASE-02 an init container runs", init, `ContainerStarted i/0`, corev1.PodPending},
		{"PHASE-02 an init container will be tried again", init, `
			ContainerStarted i/0
			ContainerExited i/0 code=1 reason=Error`, corev1.PodPending},
		{"PHASE-02 a sidecar has not started", sidecar, ``, corev1.PodPending},
		{"PHASE-02 SIDE-06 a sidecar has not started in the new sandbox", sidecar, `
			ContainerStarted s/0
			ContainerStarted a/0
			SandboxRemoved attempt=0
			ContainersRemoved sandboxattempt=0`, corev1.PodPending},
		{"SIDE-06 a sidecar that has ended is not counted", sidecar, `
			ContainerStarted s/0
			ContainerStarted a/0
			ContainerExited s/0 code=1 reason=Error`, corev1.PodRunning},
		{"PHASE-03 one runs, the other never did", two, `
			ContainerStarted a/0
			ImageFailed b/0 try=0 image=y reason=ErrImagePull message=no`, corev1.PodPending},
		{"PHASE-03 a container without any record waits", one, ``, corev1.PodPending},
		{"PHASE-04 one runs, the other has ended", two + never, `
			ContainerStarted a/0
			ContainerStarted b/0
			ContainerExited a/0 code=1 reason=Error`, corev1.PodRunning},
		{"PHASE-05 deleted, all ended with 0", two, `
			ContainerStarted a/0
			ContainerStarted b/0
			PodDeleted grace=5s
			ContainerExited a/0 code=0 reason=Completed
			ContainerExited b/0 code=0 reason=Completed
			SandboxRemoved attempt=0`, corev1.PodSucceeded},
		{"PHASE-06 deleted, one did not end with 0", two, `
			ContainerStarted a/0
			ContainerStarted b/0
			PodDeleted grace=5s
			ContainerExited a/0 code=0 reason=Completed
			ContainerExited b/0 code=143 reason=Error
			SandboxRemoved attempt=0`, corev1.PodFailed},
		{"PHASE-12 deleted, all ended, the sandbox not yet removed", one, `
			ContainerStarted a/0
			PodDeleted grace=5s
			ContainerExited a/0 code=0 reason=Completed`, corev1.PodRunning},
		{"PHASE-07 all ended, one in backoff", two + onFailure, `
			ContainerStarted a/0
			ContainerStarted b/0
			ContainerExited a/0 code=0 reason=Completed
			ContainerExited b/0 code=1 reason=Error
			ContainerStarted b/1
			ContainerExited b/1 code=1 reason=Error`, corev1.PodRunning},
		{"PHASE-08 all ended with 0 and stay so", two + onFailure, `
			ContainerStarted a/0
			ContainerStarted b/0
			ContainerExited a/0 code=0 reason=Completed
			ContainerExited b/0 code=0 reason=Completed
			SandboxRemoved attempt=0`, corev1.PodSucceeded},
		{"PHASE-09 all ended, one not with 0", two + never, `
			ContainerStarted a/0
			ContainerStarted b/0
			ContainerExited a/0 code=0 reason=Completed
			ContainerExited b/0 code=1 reason=Error
			SandboxRemoved attempt=0`, corev1.PodFailed},
		{"SIDE-06 SIDE-07 a sidecar keeps the phase Running", sidecar + never, `
			ContainerStarted s/0
			ContainerStarted a/0
			ContainerExited a/0 code=0 reason=Completed`, corev1.PodRunning},
		{"SIDE-07 and its exit code does not count", sidecar + never, `
			ContainerStarted s/0
			ContainerStarted a/0
			ContainerExited a/0 code=0 reason=Completed
			ContainerExited s/0 code=137 reason=Error
			SandboxRemoved attempt=0`, corev1.PodSucceeded},
		{"PHASE-11 terminal phases stay", one + never, `
			ContainerStarted a/0
			ContainerExited a/0 code=0 reason=Completed
			SandboxRemoved attempt=0
			ContainerStarted a/1
			SandboxCreated attempt=1 id=s1
			PodDeleted grace=5s`, corev1.PodSucceeded},
		{"PHASE-14 deleted before it ran", one, `
			PodDeleted grace=5s
			SandboxRemoved attempt=0`, corev1.PodFailed},
		{"PHASE-14 deleted while one had not run, the other ended with 0", two, `
			ContainerStarted a/0
			PodDeleted grace=5s
			ContainerExited a/0 code=0 reason=Completed
			SandboxRemoved attempt=0`, corev1.PodFailed},
		{"DEL-11 deleted in a crash loop whose last exit was 0", one, `
			ContainerStarted a/0
			ContainerExited a/0 code=0 reason=Completed
			PodDeleted grace=5s
			SandboxRemoved attempt=0`, corev1.PodSucceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := play(t, tt.spec, tt.script)
			if got := Status(s.pod, s.o, s.now).Phase; got != tt.want {
				t.Errorf("%s, want %s\n%s", got, tt.want, s.render())
			}
		})
	}
}

func TestRestartable(t *testing.T) {
	policy := func(p corev1.ContainerRestartPolicy) *corev1.ContainerRestartPolicy { return &p }
	rule := func(op corev1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) corev1.ContainerRestartRule {
		return corev1.ContainerRestartRule{
			Action:    corev1.ContainerRestartRuleActionRestart,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: op, Values: codes},
		}
	}
	always, onFailure, never := corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, tt := range []struct {
		name      string
		pod       corev1.RestartPolicy
		container *corev1.ContainerRestartPolicy
		rules     []corev1.ContainerRestartRule
		yes, no   []int32
	}{
		{"RST-01 Always", always, nil, nil, []int32{0, 1, 137}, nil},
		{"RST-01 OnFailure", onFailure, nil, nil, []int32{1, 137}, []int32{0}},
		{"RST-01 Never", never, nil, nil, nil, []int32{0, 1, 137}},
		{"RST-10 container Always over pod Never", never, policy("Always"), nil, []int32{0, 1}, nil},
		{"RST-10 container OnFailure over pod Always", always, policy("OnFailure"), nil, []int32{1}, []int32{0}},
		{"RST-10 container Never over pod Always", always, policy("Never"), nil, nil, []int32{0, 1}},
		{"RST-11 In", never, policy("Never"), []corev1.ContainerRestartRule{rule("In", 42, 0)}, []int32{42, 0}, []int32{1}},
		{"RST-11 NotIn", never, policy("Never"), []corev1.ContainerRestartRule{rule("NotIn", 42)}, []int32{0, 1}, []int32{42}},
		{"RST-11 a later rule", never, policy("Never"), []corev1.ContainerRestartRule{rule("In", 1), rule("In", 2)}, []int32{1, 2}, []int32{3}},
		{"RST-11 no match: the container's policy", never, policy("OnFailure"), []corev1.ContainerRestartRule{rule("In", 42)}, []int32{42, 7}, []int32{0}},
		{"RST-11 a rule without codes or with an unknown operator matches nothing", never, policy("Never"),
			[]corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart}, rule("Near", 42)}, nil, []int32{0, 42}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: tt.pod}}
			c := &corev1.Container{RestartPolicy: tt.container, RestartPolicyRules: tt.rules}
			for _, code := range tt.yes {
				if !restartable(pod, c, code) {
					t.Errorf("exit code %d: not restarted", code)
				}
			}
			for _, code := range tt.no {
				if restartable(pod, c, code) {
					t.Errorf("exit code %d: restarted", code)
				}
			}
		})
	}
}

func TestLadders(t *testing.T) {
	t.Run("RST-03 TIME-04 restarts", func(t *testing.T) {
		c, at := Container{}, begin
		var got []time.Duration
		for range 9 {
			c.BeganAt = at
			delay := c.backOff(at)
			if !c.NotBefore.Equal(at.Add(delay)) {
				t.Errorf("not before %s", c.NotBefore)
			}
			got = append(got, delay/time.Second)
			at = at.Add(delay)
		}
		if want := []time.Duration{0, 10, 20, 40, 80, 160, 300, 300, 300}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
	t.Run("RST-05 TIME-05 forgotten after more than 600 s", func(t *testing.T) {
		for seconds, want := range map[int]time.Duration{540: 80 * time.Second, 600: 80 * time.Second, 601: 0} {
			c := Container{Backoff: 80 * time.Second, BeganAt: begin}
			if got := c.backOff(begin.Add(time.Duration(seconds) * time.Second)); got != want {
				t.Errorf("%d s: %s, want %s", seconds, got, want)
			}
		}
	})
	t.Run("TIME-07 pulls", func(t *testing.T) {
		p, at := Pull{}, begin
		var got []time.Duration
		for range 8 {
			p = p.fail(at, false)
			got = append(got, p.Delay/time.Second)
			at = p.Until()
		}
		if want := []time.Duration{10, 20, 40, 80, 160, 300, 300, 300}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if p = p.fail(at.Add(301*time.Second), false); p.Delay != 10*time.Second {
			t.Errorf("after more than 600 s without a failure: %s", p.Delay)
		}
	})
	t.Run("TIME-07 IMG-01 who has to wait for a failed pull", func(t *testing.T) {
		for _, tt := range []struct {
			failedUnder, policy corev1.PullPolicy
			want                bool
		}{
			{corev1.PullAlways, corev1.PullAlways, true},
			{corev1.PullAlways, corev1.PullIfNotPresent, false},
			{corev1.PullAlways, corev1.PullNever, false},
			{corev1.PullIfNotPresent, corev1.PullAlways, true},
			{corev1.PullIfNotPresent, corev1.PullIfNotPresent, true},
			{corev1.PullIfNotPresent, corev1.PullNever, false},
		} {
			p := Pull{}.fail(begin, tt.failedUnder == corev1.PullAlways)
			if got := p.blocks(tt.policy); got != tt.want {
				t.Errorf("%s after %s: %t", tt.policy, tt.failedUnder, got)
			}
		}
	})
}

func TestGrace(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spec  string
		grace string
		want  time.Duration
	}{
		{"DEL-06 the whole period", "", "30s", 30 * time.Second},
		{"TIME-02 never less than 2 s", "", "0s", 2 * time.Second},
		{"TIME-03 a negative one is 1 s", "", "-5s", 2 * time.Second},
		{"DEL-11 TIME-01 default", "", "", 30 * time.Second},
		{"DEL-11 the spec's", "terminationGracePeriodSeconds: 7\n", "", 7 * time.Second},
		{"TIME-03 the spec's zero", "terminationGracePeriodSeconds: 0\n", "", 2 * time.Second},
		{"absurd", "terminationGracePeriodSeconds: 9223372036854775807\n", "", 100 * 365 * 24 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := tt.spec + `
restartPolicy: Never
initContainers: [{name: s, image: x, restartPolicy: Always}]
containers: [{name: a, image: x}]`
			s := play(t, spec, "ContainerStarted s/0\nContainerStarted a/0")
			if tt.grace != "" {
				s.run([]string{"PodDeleted grace=" + tt.grace})
			}
			s.run([]string{"ContainerExited a/0 code=0 reason=Completed"})
			want := StopContainer{ContainerRef: ContainerRef{Name: "s"}, Grace: tt.want}
			if got := Decide(s.pod, s.o, s.now).Actions; len(got) != 1 || got[0] != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

func TestStatusDetails(t *testing.T) {
	t.Run("TMSG-05 messages share 12288 bytes and end with a whole character", func(t *testing.T) {
		s := play(t, `
restartPolicy: Never
containers: [{name: a, image: x}, {name: b, image: x}, {name: c, image: x}, {name: d, image: x}, {name: e, image: x}]`,
			"ContainerStarted a/0\nContainerStarted b/0\nContainerStarted c/0\nContainerStarted d/0\nContainerStarted e/0")
		s.apply(ContainerExited{At: s.now, Container: ContainerRef{Name: "a"}, ExitCode: 1, Message: strings.Repeat("é", 6000)})
		got := Status(s.pod, s.o, s.now).ContainerStatuses[0].State.Terminated.Message
		if len(got) != 2456 || !utf8.ValidString(got) { // 12288/5 is 2457, which is inside a character
			t.Errorf("%d bytes, valid %t", len(got), utf8.ValidString(got))
		}
		s.apply(ContainerExited{At: s.now, Container: ContainerRef{Name: "b"}, ExitCode: 1, Message: strings.Repeat("\x80", 20000)})
		if got := Status(s.pod, s.o, s.now).ContainerStatuses[1].State.Terminated.Message; got != "\uFFFD" {
			t.Errorf("%q of what is no text", got)
		}
	})
	t.Run("STATE-13 resources and mounts of a container that has run", func(t *testing.T) {
		s := play(t, `
containers:
- name: a
  image: x
  resources: {requests: {cpu: 100m}, limits: {cpu: 1}}
  volumeMounts:
  - {name: v, mountPath: /v}
  - {name: v, mountPath: /ro, readOnly: true}
  - {name: v, mountPath: /rro, readOnly: true, recursiveReadOnly: Enabled}`, "")
		before := Status(s.pod, s.o, s.now).ContainerStatuses[0]
		if before.Resources != nil || len(before.VolumeMounts) != 3 {
			t.Errorf("before: %+v", before)
		}
		s.run([]string{"ContainerStarted a/0 id=c0"})
		if u := Status(s.pod, s.o, s.now).ContainerStatuses[0].User; u != nil {
			t.Errorf("user %+v", u)
		}
		s.run([]string{"ContainerExited a/0 code=1"})
		s.apply(ContainerStarted{At: s.now, Container: ContainerRef{Name: "a", Attempt: 1}, ID: "c0", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 7}}})
		c := Status(s.pod, s.o, s.now).ContainerStatuses[0]
		if c.User == nil || c.User.Linux.UID != 7 {
			t.Errorf("user %+v", c.User)
		}
		if c.Resources.Limits.Cpu().Cmp(resource.MustParse("1")) != 0 || c.AllocatedResources.Cpu().Cmp(resource.MustParse("100m")) != 0 {
			t.Errorf("%+v %+v", c.Resources, c.AllocatedResources)
		}
		if c.VolumeMounts[0].RecursiveReadOnly != nil || *c.VolumeMounts[1].RecursiveReadOnly != "Disabled" || *c.VolumeMounts[2].RecursiveReadOnly != "Enabled" {
			t.Errorf("%+v", c.VolumeMounts)
		}
		c.Resources.Limits[corev1.ResourceCPU] = resource.MustParse("9")
		if s.pod.Spec.Containers[0].Resources.Limits.Cpu().Value() != 1 {
			t.Error("the status shares memory with the spec")
		}
		if c.ContainerID != "wasmpod://c0" { // IMG-12
			t.Errorf("containerID %q", c.ContainerID)
		}
	})
	t.Run("COND-06 COND-12 readiness gates keep a pod unready", func(t *testing.T) {
		s := play(t, `
readinessGates: [{conditionType: example.com/up}]
containers: [{name: a, image: x}]`, "ContainerStarted a/0")
		for _, c := range Status(s.pod, s.o, s.now).Conditions {
			if c.ObservedGeneration != 1 {
				t.Errorf("%+v", c)
			}
			const message = `corresponding condition of pod readiness gate "example.com/up" does not exist.`
			if c.Type == corev1.PodReady && (c.Status != "False" || c.Reason != "ReadinessGatesNotReady" || c.Message != message) {
				t.Errorf("%+v", c)
			}
			if c.Type == corev1.ContainersReady && c.Status != "True" {
				t.Errorf("%+v", c)
			}
		}
	})
	t.Run("COND-01 COND-06 COND-09 conditions of others are kept as they are, and come first", func(t *testing.T) {
		s := play(t, `
readinessGates: [{conditionType: example.com/up}]
containers: [{name: a, image: x}]`, "ContainerStarted a/0")
		set := func(status corev1.ConditionStatus, reason string) corev1.PodStatus {
			s.now = s.now.Add(10 * time.Second)
			s.apply(ConditionSet{At: s.now, Condition: corev1.PodCondition{Type: "example.com/up", Status: status, Reason: reason}})
			return Status(s.pod, s.o, s.now)
		}
		first := set("False", "Down").Conditions
		if first[0].Type != "example.com/up" || first[0].Reason != "Down" || first[0].ObservedGeneration != 0 {
			t.Errorf("%+v", first)
		}
		for _, c := range first {
			const message = `the status of pod readiness gate "example.com/up" is not "True", but False`
			if c.Type == corev1.PodReady && (c.Reason != "ReadinessGatesNotReady" || c.Message != message) {
				t.Errorf("%+v", c)
			}
		}
		if again := set("False", "StillDown").Conditions[0]; again.Reason != "StillDown" || again.LastTransitionTime != first[0].LastTransitionTime {
			t.Errorf("%+v", again)
		}
		for _, c := range set("True", "Up").Conditions {
			if c.Type == corev1.PodReady && (c.Status != "True" || !c.LastTransitionTime.Time.Equal(s.now)) {
				t.Errorf("%+v", c)
			}
		}
		for i := range 100 {
			s.apply(ConditionSet{At: s.now, Condition: corev1.PodCondition{Type: corev1.PodConditionType(fmt.Sprint(i))}})
		}
		if n := len(s.o.Foreign); n != maxForeign {
			t.Errorf("%d conditions of others", n)
		}
	})
	t.Run("COND-01 a condition flips no earlier than it is known, to the second", func(t *testing.T) {
		s := play(t, `containers: [{name: a, image: x}]`, "+1500ms\nContainerStarted a/0\n+20s")
		for _, c := range Status(s.pod, s.o, s.now).Conditions {
			if c.Type == corev1.PodReady && !c.LastTransitionTime.Time.Equal(begin.Add(time.Second)) {
				t.Errorf("%+v", c)
			}
		}
	})
}
