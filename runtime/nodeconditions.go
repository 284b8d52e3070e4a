package runtime

import (
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pressureTransition is how long a pressure is told of after it was seen last, as
// with the kubelet's --eviction-pressure-transition-period.
const pressureTransition = 5 * time.Minute

// mechanismConditions is by which condition of the node it is told that a mechanism is
// not the best one: the name of a Check, and a type.
var mechanismConditions = map[string]corev1.NodeConditionType{
	"engine":                     "EngineDegraded",
	"kill and stop":              "KillDegraded",
	"file confinement":           "FileConfinementDegraded",
	"memory limit":               "MemoryLimitDegraded",
	"cpu limit":                  "CPULimitDegraded",
	"pod IPs on the host":        "PodIPsOnHostDegraded",
	egressWallName:               "KernelEgressWallDegraded",
	"memory pressure":            "MemoryEvictionDegraded",
	cpuCheckName:                 "CPUAccountingDegraded",
	"run queue and page faults":  "SchedulerAccountingDegraded",
	"compiler confinement":       "CompilerConfinementDegraded",
	"kernel OOM kills":           "OOMAttributionDegraded",
	"kernel OOM kill of wasmpod": "OwnOOMAttributionDegraded",
	"oom_score_adj":              "OOMScoreDegraded",
	"kernel cgroups":             "KernelCgroupsDegraded",
	"kernel's wall: cpu":         "KernelCPUWallDegraded",
	"kernel's wall: memory":      "KernelMemoryWallDegraded",
}

// vital are the checks without which no pod is run.
var vital = []string{"data directory", "egress"}

// nodeState is what a node's conditions are derived from.
type nodeState struct {
	Checks  []Check
	Closing bool
	// When less was seen last than the node needs; zero if never.
	MemoryShort, DiskShort time.Time
}

// nodeConditions are the conditions of a node: those of the kubelet, with its reasons
// and messages, in its order, and one for each mechanism that is not fully in force.
// One of those that was told of before is told of with status False once it is. The
// pressures last for pressureTransition. previous is what was returned before: it has
// the times of transitions.
func nodeConditions(s nodeState, previous []corev1.NodeCondition, now time.Time) []corev1.NodeCondition {
	pressure := func(kind corev1.NodeConditionType, short time.Time, yes, no [2]string) corev1.NodeCondition {
		if !short.IsZero() && now.Sub(short) < pressureTransition {
			return corev1.NodeCondition{Type: kind, Status: corev1.ConditionTrue, Reason: yes[0], Message: yes[1]}
		}
		return corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: no[0], Message: no[1]}
	}
	conditions := []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, s.MemoryShort,
			[2]string{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"},
			[2]string{"KubeletHasSufficientMemory", "kubelet has sufficient memory available"}),
		pressure(corev1.NodeDiskPressure, s.DiskShort,
			[2]string{"KubeletHasDiskPressure", "kubelet has disk pressure"},
			[2]string{"KubeletHasNoDiskPressure", "kubelet has no disk pressure"}),
		// Containers are no processes.
		pressure(corev1.NodePIDPressure, time.Time{}, [2]string{}, [2]string{"KubeletHasSufficientPID", "kubelet has sufficient PID available"}),
		ready(s),
	}
	for _, c := range s.Checks {
		kind, ok := mechanismConditions[c.Name]
		if !ok {
			continue
		}
		condition := corev1.NodeCondition{Type: kind, Status: corev1.ConditionTrue, Message: c.Name + ": " + c.text()}
		switch c.Status {
		case "fallback":
			condition.Reason = "MechanismIsFallback"
		case "absent":
			condition.Reason = "MechanismIsAbsent"
		default:
			if !slices.ContainsFunc(previous, func(p corev1.NodeCondition) bool { return p.Type == kind }) {
				continue
			}
			condition.Status, condition.Reason = corev1.ConditionFalse, "MechanismInForce"
		}
		conditions = append(conditions, condition)
	}
	for i := range conditions {
		c := &conditions[i]
		c.LastHeartbeatTime = metav1.NewTime(now)
		c.LastTransitionTime = c.LastHeartbeatTime
		if j := slices.IndexFunc(previous, func(p corev1.NodeCondition) bool { return p.Type == c.Type && p.Status == c.Status }); j >= 0 {
			c.LastTransitionTime = previous[j].LastTransitionTime
		}
	}
	return conditions
}

func ready(s nodeState) corev1.NodeCondition {
	var why []string
	if s.Closing {
		why = append(why, "node is shutting down")
	}
	for _, c := range s.Checks {
		if c.Status == "absent" && slices.Contains(vital, c.Name) {
			why = append(why, c.Name+": "+c.text())
		}
	}
	c := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if len(why) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "KubeletNotReady", strings.Join(why, ", ")
	}
	return c
}

// text is by what it is done, why not better, and what to do.
func (c Check) text() string {
	text := c.Mechanism
	if c.Why != "" {
		text += "; not better because: " + c.Why
	}
	if c.Hint != "" {
		text += "; to do: " + c.Hint
	}
	return text
}

// Conditions is what a node on this host would say of itself: see Runtime.NodeConditions.
// checks are those of Checks.
func Conditions(cfg Config, checks []Check) []corev1.NodeCondition {
	now := time.Now()
	s := nodeState{Checks: checks}
	if available := machineMemory().Available; memoryShort(available, cfg.EvictBelow) {
		s.MemoryShort = now
	}
	if diskShort(cfg.DataDir) {
		s.DiskShort = now
	}
	return nodeConditions(s, nil, now)
}

// memoryShort says whether so much is less than the threshold; available is 0 where it
// is not known.
func memoryShort(available, threshold int64) bool { return available > 0 && available < threshold }

// diskShort says whether a kubelet with its default thresholds would say so of the
// filesystem of pods and images: nodefs.available<10%, nodefs.inodesFree<5%,
// imagefs.available<15%, imagefs.inodesFree<5% (RES-31).
func diskShort(dir string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return false
	}
	// Some filesystems have as many inodes as one likes, and say zero.
	return fs.Blocks > 0 && uint64(fs.Bavail) < fs.Blocks/100*15 || fs.Files > 0 && fs.Ffree < fs.Files/20
}

// conditions keeps the conditions of a node, to tell of changes. The zero value is
// ready to use.
type conditions struct {
	mu    sync.Mutex
	state nodeState
	last  []corev1.NodeCondition
	found bool // the mechanisms were, when last was made
}

// NodeConditions are the conditions of this node as a kubelet would have them in the
// status of its Node (RES-31), and besides one of type …Degraded for each mechanism
// of Mechanisms that is not fully in force; its message says what to do about it.
func (r *Runtime) NodeConditions() []corev1.NodeCondition {
	checks := r.Mechanisms()
	return r.observe(func(s *nodeState, now time.Time) {
		s.Checks = checks
		if memoryShort(r.memoryAvailable(), r.cfg.EvictBelow) {
			s.MemoryShort = now
		}
	})
}

// observe updates what the conditions are derived from, and logs those that change.
func (r *Runtime) observe(update func(s *nodeState, now time.Time)) []corev1.NodeCondition {
	r.mu.Lock()
	closing := r.closed
	r.mu.Unlock()
	c := &r.conditions
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	update(&c.state, now)
	c.state.Closing = closing
	if diskShort(r.cfg.DataDir) {
		c.state.DiskShort = now
	}
	previous, found := c.last, c.found
	c.last, c.found = nodeConditions(c.state, previous, now), c.state.Checks != nil
	for _, n := range changed(c.last, previous, found) {
		log := r.cfg.Log.Info
		// To end was somebody's wish.
		if (n.Status == corev1.ConditionTrue) != (n.Type == corev1.NodeReady) && !(closing && n.Type == corev1.NodeReady) {
			log = r.cfg.Log.Warn
		}
		log("node condition", "type", string(n.Type), "status", string(n.Status), "reason", n.Reason, "message", n.Message)
	}
	return slices.Clone(c.last)
}

// changed are the conditions whose status or reason is another one than before. What
// is as it should be from the beginning is no change, and what mechanisms there are is
// logged with them when they are found, see announce: found says that previous was made
// after that.
func changed(conditions, previous []corev1.NodeCondition, found bool) (out []corev1.NodeCondition) {
	for _, c := range conditions {
		i := slices.IndexFunc(previous, func(p corev1.NodeCondition) bool { return p.Type == c.Type })
		switch {
		case i >= 0:
			if previous[i].Status == c.Status && previous[i].Reason == c.Reason {
				continue
			}
		case strings.HasSuffix(string(c.Type), "Degraded"):
			if !found {
				continue
			}
		case (c.Status == corev1.ConditionTrue) == (c.Type == corev1.NodeReady):
			continue
		}
		out = append(out, c)
	}
	return out
}
