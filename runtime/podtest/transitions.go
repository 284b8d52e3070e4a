package podtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// shown is the last status that a pod had at one moment.
type shown struct {
	at     time.Duration // since the beginning
	pod    *corev1.Pod
	status *corev1.PodStatus
}

// recordStatus keeps the last status of each moment: in a bubble nothing that only
// one run in ten has then depends on which goroutine was quicker.
func (p *Pods) recordStatus(pod *corev1.Pod, status *corev1.PodStatus) {
	s := shown{time.Since(p.begin), pod, status.DeepCopy()}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.statuses) - 1; i >= 0 && p.statuses[i].at == s.at; i-- {
		if p.statuses[i].pod.UID == pod.UID {
			p.statuses[i] = s
			return
		}
	}
	p.statuses = append(p.statuses, s)
}

// Transitions returns every change of a pod's status so far, one a line, with the
// time since the start: its phase, its conditions, and the state of each container.
// What changes and changes back within one moment is left out. In a bubble of
// testing/synctest it is the same for every run.
func (p *Pods) Transitions() string {
	p.mu.Lock()
	list := slices.Clone(p.statuses)
	p.mu.Unlock()
	slices.SortStableFunc(list, func(a, b shown) int {
		if a.at != b.at {
			return int(min(1, max(-1, a.at-b.at)))
		}
		return strings.Compare(a.pod.Name, b.pod.Name)
	})
	var out strings.Builder
	last := make(map[string]map[string]string) // by pod, what is known of each thing
	for _, s := range list {
		known := last[string(s.pod.UID)]
		if known == nil {
			known = make(map[string]string)
			last[string(s.pod.UID)] = known
		}
		for _, l := range lines(s.status) {
			if known[l.what] == l.is {
				continue
			}
			known[l.what] = l.is
			text := strings.NewReplacer("\n", `\n`, string(s.pod.UID), "UID").Replace(l.is)
			fmt.Fprintf(&out, "%-10v %s %s: %s\n", s.at.Round(time.Millisecond), s.pod.Name, l.what, text)
		}
	}
	return out.String()
}

type line struct{ what, is string }

func lines(s *corev1.PodStatus) []line {
	list := []line{{"phase", strings.TrimSpace(string(s.Phase) + " " + s.Reason)}}
	for _, c := range s.Conditions {
		list = append(list, line{string(c.Type), strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message))})
	}
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses) {
		is := state(c.State)
		if c.Ready {
			is += ", ready"
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			is += fmt.Sprintf(", before that %s %d", t.Reason, t.ExitCode)
		}
		if c.RestartCount > 0 {
			is += fmt.Sprintf(", %d restarts", c.RestartCount)
		}
		list = append(list, line{"container " + c.Name, is})
	}
	return list
}

// GoldenTransitions compares the transitions with a file, which -podtest.update
// writes. It is for tests in a bubble.
func (p *Pods) GoldenTransitions(file string) {
	p.t.Helper()
	p.golden(file, p.Transitions())
}
