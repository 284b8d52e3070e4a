package lifecycle

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/wasmpod/wasmpod/probes"
)

var update = flag.Bool("update", false, "rewrite the outputs in testdata/*.txt; commit only the changes you understand")

// begin is when every scenario's clock starts.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestScenarios runs testdata/*.txt. A file is a list of steps separated by
// blank lines: commands, a line ----, and everything that is observable then.
// The header's "# covers:" line names the rules of the semantics reference.
//
//	pod                 followed by the pod's spec in YAML
//	update              followed by another spec: the next generation of the pod
//	+10s                moves the clock
//	FACT [C/N] k=v …    applies a fact at the clock's time; field names in lower
//	                    case; quote values with blanks; at=-2s for a late fact
//
// In an output, ">" is an action, "!" an event, "wake" and "since" are relative
// to the scenario's begin, and conditions appear when they have changed.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		covers := coverage(string(data))
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+" "+covers, func(t *testing.T) {
			if covers == "" {
				t.Error(`no "# covers:" line`)
			}
			got := runScenario(t, string(data), nil)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(data) {
				t.Errorf("output differs (run with -update and read the diff):\n%s", firstDifference(string(data), got))
			}
		})
	}
}

func coverage(text string) string {
	for line := range strings.Lines(text) {
		if ids, ok := strings.CutPrefix(line, "# covers:"); ok {
			return strings.TrimSpace(ids)
		}
	}
	return ""
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\n-%s\n+%s", i+1, w[i], g[i])
		}
	}
	return "one is a prefix of the other"
}

// runScenario carries out a file and returns it with its outputs. transition,
// if not nil, is told of every change of stage.
func runScenario(t *testing.T, text string, transition func(from stage, f Fact, to stage)) string {
	t.Helper()
	s := &scenario{t: t, now: begin, transition: transition}
	var out strings.Builder
	var step []string
	skipping, blank := false, false
	flush := func() {
		if step == nil {
			return
		}
		out.WriteString("----\n" + s.run(step))
		step = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		wasBlank := blank
		blank = line == ""
		switch {
		case line == "----":
			skipping = true
			flush()
		case line == "":
			flush() // a new step without an output yet
			if !wasBlank {
				out.WriteString("\n")
			}
			skipping = false
		case skipping:
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n")
			step = append(step, line)
		}
	}
	flush()
	return strings.TrimRight(out.String(), "\n") + "\n"
}

type scenario struct {
	t          *testing.T
	pod        *corev1.Pod
	o          Observed
	now        time.Time
	events     []Event
	conditions map[corev1.PodConditionType]string
	transition func(from stage, f Fact, to stage)
}

func (s *scenario) run(lines []string) string {
	s.t.Helper()
	for i, line := range lines {
		switch {
		case line == "pod":
			s.pod = newPod(s.t, strings.Join(lines[i+1:], "\n"))
			s.o, s.conditions = Observed{}, map[corev1.PodConditionType]string{}
			return s.render()
		case line == "update" || strings.HasPrefix(line, "update "):
			generation := s.pod.Generation
			s.pod = newPod(s.t, strings.Join(lines[i+1:], "\n"))
			s.pod.Generation = generation + 1
			_, infeasible, _ := strings.Cut(line, " ")
			s.apply(PodUpdated{At: s.now, Generation: generation + 1, Infeasible: infeasible})
			return s.render()
		case strings.HasPrefix(line, "+"):
			d, err := time.ParseDuration(line[1:])
			if err != nil {
				s.t.Fatal(err)
			}
			s.now = s.now.Add(d)
		default:
			s.apply(s.parseFact(line))
		}
	}
	return s.render()
}

func (s *scenario) apply(f Fact) {
	s.t.Helper()
	before, from := toJSON(s.t, s.o), s.o.stage(s.pod)
	passed := s.o
	deadline := passed.passTime(s.pod, f.when()) // then it is not the fact's doing
	next, events := s.o.Apply(s.pod, f)
	if toJSON(s.t, s.o) != before {
		s.t.Fatalf("Apply(%+v) changed its receiver", f)
	}
	var restored Observed
	if err := json.Unmarshal([]byte(toJSON(s.t, next)), &restored); err != nil || toJSON(s.t, restored) != toJSON(s.t, next) {
		s.t.Fatalf("Observed does not survive JSON: %v\n%.2000s", err, toJSON(s.t, next))
	}
	s.o = next
	s.events = append(s.events, events...)
	if to := s.o.stage(s.pod); s.transition != nil && from != to && !deadline {
		s.transition(from, f, to)
	}
}

// newPod makes a pod from its spec, with the defaults that matter here.
func newPod(t testing.TB, spec string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace, pod.UID, pod.Generation = "p", "ns", "u1", 1
	if err := yaml.UnmarshalStrict([]byte(spec), &pod.Spec); err != nil {
		t.Fatal(err)
	}
	if pod.Spec.RestartPolicy == "" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	for _, c := range containers(pod) {
		if c.ImagePullPolicy == "" {
			c.ImagePullPolicy = corev1.PullIfNotPresent
		}
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p != nil { // TIME-13
				p.PeriodSeconds = cmp.Or(p.PeriodSeconds, 10)
				p.TimeoutSeconds = cmp.Or(p.TimeoutSeconds, 1)
				p.SuccessThreshold = cmp.Or(p.SuccessThreshold, 1)
				p.FailureThreshold = cmp.Or(p.FailureThreshold, 3)
			}
		}
	}
	return pod
}

func toJSON(t interface {
	Helper()
	Fatal(...any)
}, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var facts = map[string]reflect.Type{}

func init() {
	for _, f := range []Fact{
		PodAdmitted{}, PodDeleted{}, VolumesMounted{}, VolumesFailed{}, SandboxCreated{}, SandboxFailed{}, SandboxExited{},
		ProbeFinished{}, HookFinished{}, ContainersReset{}, ContainerResized{}, ResizeFailed{}, PodEvicted{}, SandboxRemoveFailed{}, ConditionSet{},
		SandboxRemoved{}, ContainersRemoved{}, ImagePulling{}, ImagePulled{}, ImageFailed{}, ContainerCreated{},
		ContainerStarted{}, ContainerStartFailed{}, ContainerStopping{}, ContainerExited{}, VolumesUnmounted{},
	} {
		facts[reflect.TypeOf(f).Name()] = reflect.TypeOf(f)
	}
}

func (s *scenario) parseFact(line string) Fact {
	s.t.Helper()
	words := splitWords(s.t, line)
	typ, ok := facts[words[0]]
	if !ok {
		s.t.Fatalf("unknown fact in %q", line)
	}
	v := reflect.New(typ).Elem()
	v.FieldByName("At").Set(reflect.ValueOf(s.now))
	for _, word := range words[1:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			name, attempt, _ := strings.Cut(word, "/")
			n, err := strconv.Atoi(attempt)
			if err != nil {
				s.t.Fatalf("%q: %v", line, err)
			}
			v.FieldByName("Container").Set(reflect.ValueOf(ContainerRef{Name: name, Attempt: n}))
			continue
		}
		if key == "at" {
			d, err := time.ParseDuration(value)
			if err != nil {
				s.t.Fatal(err)
			}
			v.FieldByName("At").Set(reflect.ValueOf(s.now.Add(d)))
			continue
		}
		if v.FieldByName("Kind").IsValid() && key == "kind" {
			v.FieldByName("Kind").Set(reflect.ValueOf(named(s.t, value, probes.Liveness, probes.Readiness, probes.Startup)))
			continue
		}
		if key == "result" {
			v.FieldByName("Result").Set(reflect.ValueOf(named(s.t, value, probes.Unknown, probes.Success, probes.Failure, probes.Warning)))
			continue
		}
		if key == "code" {
			key = "exitcode"
		}
		field := v.FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, key) })
		switch {
		case !field.IsValid():
			s.t.Fatalf("%q: no field %s", line, key)
		case field.Type() == reflect.TypeFor[time.Duration]():
			d, err := time.ParseDuration(value)
			if err != nil {
				s.t.Fatal(err)
			}
			field.SetInt(int64(d))
		case field.CanInt():
			n, err := strconv.Atoi(value)
			if err != nil {
				s.t.Fatal(err)
			}
			field.SetInt(int64(n))
		case field.Kind() == reflect.Slice:
			field.Set(reflect.Append(field, reflect.ValueOf(value)))
		default:
			field.SetString(value)
		}
	}
	if f, ok := v.Addr().Interface().(*ProbeFinished); ok {
		if f.Began.IsZero() {
			f.Began = f.At
		}
		for _, tr := range s.o.Probes { // the attempt that is under way
			if f.Seq == 0 && tr.Container == f.Container.Name && tr.Kind == f.Kind {
				f.Seq = tr.Seq
			}
		}
	}
	return v.Interface().(Fact)
}

// named finds a value by its name.
func named[T fmt.Stringer](t testing.TB, name string, values ...T) T {
	t.Helper()
	for _, v := range values {
		if strings.EqualFold(v.String(), name) {
			return v
		}
	}
	t.Fatalf("%q is none of %v", name, values)
	panic("unreachable")
}

// splitWords splits at blanks outside of double quotes.
func splitWords(t testing.TB, line string) []string {
	t.Helper()
	var words []string
	var word strings.Builder
	quoted := false
	for _, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ' ' && !quoted:
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	if quoted {
		t.Fatalf("open quote in %q", line)
	}
	return append(words, word.String())
}

// render writes everything that is observable now.
func (s *scenario) render() string {
	s.t.Helper()
	plan, status := Decide(s.pod, s.o, s.now), Status(s.pod, s.o, s.now)
	if again := Decide(s.pod, s.o, s.now); !reflect.DeepEqual(plan, again) {
		s.t.Fatalf("Decide twice: %+v, then %+v", plan, again)
	}
	if again := Status(s.pod, s.o, s.now); !reflect.DeepEqual(status, again) {
		s.t.Fatalf("Status twice: %+v, then %+v", status, again)
	}
	var b strings.Builder
	for _, e := range s.events {
		path := ""
		if e.FieldPath != "" {
			path = e.FieldPath + " "
		}
		fmt.Fprintf(&b, "! %s %s %s%s\n", e.Type, e.Reason, path, e.Message)
	}
	s.events = nil
	for _, a := range plan.Actions {
		fmt.Fprintf(&b, "> %s\n", renderAction(a))
	}
	if !plan.Wake.IsZero() {
		fmt.Fprintf(&b, "wake %s\n", plan.Wake.Sub(begin))
	}
	if plan.Finished {
		b.WriteString("finished\n")
	}
	fmt.Fprintf(&b, "%s at %s", status.Phase, s.now.Sub(begin))
	if status.Reason != "" {
		fmt.Fprintf(&b, " %s: %s", status.Reason, status.Message)
	}
	if status.PodIP != "" {
		fmt.Fprintf(&b, " ip=%s", status.PodIP)
	}
	b.WriteString("\n")
	for _, c := range slices.Concat(status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses) {
		resources := ""
		if s.pod.Generation > 1 && c.Resources != nil {
			resources = renderResources(c)
		}
		fmt.Fprintf(&b, "  %s%s\n", renderContainer(c), resources)
	}
	for t := range s.conditions {
		if !slices.ContainsFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == t }) {
			delete(s.conditions, t)
			fmt.Fprintf(&b, "  %s is gone\n", t)
		}
	}
	for _, c := range status.Conditions {
		line := fmt.Sprintf("%s=%s", c.Type, c.Status)
		if c.Reason != "" {
			line += " " + c.Reason
		}
		if c.Message != "" {
			line += fmt.Sprintf(" %q", c.Message)
		}
		line += fmt.Sprintf(" since %s", c.LastTransitionTime.Sub(begin))
		if s.conditions[c.Type] != line {
			s.conditions[c.Type] = line
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}

func renderAction(a Action) string {
	switch a := a.(type) {
	case StartContainer:
		return fmt.Sprintf("StartContainer %s/%d try=%d", a.Name, a.Attempt, a.Try)
	case StopContainer:
		return fmt.Sprintf("StopContainer %s/%d grace=%s", a.Name, a.Attempt, a.Grace)
	case RunProbe:
		return fmt.Sprintf("RunProbe %s/%d %s seq=%d", a.Name, a.Attempt, a.Kind, a.Seq)
	case ResizeContainer:
		return fmt.Sprintf("ResizeContainer %s/%d generation=%d try=%d", a.Name, a.Attempt, a.Generation, a.Try)
	case RunHook:
		return fmt.Sprintf("RunHook %s/%d %s", a.Name, a.Attempt, a.Hook)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", reflect.TypeOf(a).Name(), strings.Trim(fmt.Sprintf("%+v", a), "{}")))
}

func renderContainer(c corev1.ContainerStatus) string {
	var b strings.Builder
	b.WriteString(c.Name + " ")
	switch {
	case c.State.Running != nil:
		fmt.Fprintf(&b, "Running since %s", c.State.Running.StartedAt.Sub(begin))
	case c.State.Terminated != nil:
		b.WriteString("Terminated " + renderTermination(c.State.Terminated))
	case c.State.Waiting != nil:
		b.WriteString("Waiting " + c.State.Waiting.Reason)
		if c.State.Waiting.Message != "" {
			fmt.Fprintf(&b, " %q", c.State.Waiting.Message)
		}
	}
	if c.LastTerminationState.Terminated != nil {
		b.WriteString("; last " + renderTermination(c.LastTerminationState.Terminated))
	}
	if c.RestartCount > 0 {
		fmt.Fprintf(&b, "; restarts %d", c.RestartCount)
	}
	if c.Ready {
		b.WriteString("; ready")
	}
	return b.String()
}

// renderResources writes what a container runs with, and what it was promised if
// that is something else. They are shown once a pod has been updated.
func renderResources(c corev1.ContainerStatus) string {
	list := func(l corev1.ResourceList) string {
		cpu, memory := l[corev1.ResourceCPU], l[corev1.ResourceMemory]
		return cpu.String() + "/" + memory.String()
	}
	if len(c.Resources.Limits)+len(c.Resources.Requests) == 0 {
		return ""
	}
	s := fmt.Sprintf("; limits %s requests %s", list(c.Resources.Limits), list(c.Resources.Requests))
	if a := list(c.AllocatedResources); a != list(c.Resources.Requests) {
		s += " allocated " + a
	}
	return s
}

func renderTermination(t *corev1.ContainerStateTerminated) string {
	s := fmt.Sprintf("%s %d", t.Reason, t.ExitCode)
	if !t.FinishedAt.IsZero() {
		s += fmt.Sprintf(" at %s", t.FinishedAt.Sub(begin))
	}
	if t.Message != "" {
		s += fmt.Sprintf(" %q", t.Message)
	}
	return s
}
