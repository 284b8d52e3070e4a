package lifecycle

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// Observed is everything that has happened to one pod so far, as data. The zero
// value is a pod to which nothing has happened. Treat it as immutable: Apply
// returns a new value and leaves the old one as it was, so a value may be read
// by any goroutine. It can be stored as JSON and taken up again.
type Observed struct {
	Admitted   time.Time            `json:"admitted,omitzero"` // status.startTime
	Volumes    Volumes              `json:"volumes"`
	Sandbox    Sandbox              `json:"sandbox"`
	Containers map[string]Container `json:"containers,omitempty"` // by name, init containers included
	Pulls      map[string]Pull      `json:"pulls,omitempty"`      // failed pulls by image as the manifest has it
	Ending     Ending               `json:"ending"`
	Sync       Sync                 `json:"sync,omitzero"`
	// Probes are the trackers of the pod's probes, in the order of the spec.
	Probes []probes.Tracker `json:"probes,omitempty"`
	// Resetting says that a rule restarts all containers (RST-20), and Resets how
	// often that has been done.
	Resetting bool `json:"resetting,omitempty"`
	Resets    int  `json:"resets,omitempty"`
	// Infeasible is why the pod cannot have the resources that it declares, and
	// Resizing the generation whose resources it is being given (RES-20).
	Infeasible string `json:"infeasible,omitempty"`
	Resizing   int64  `json:"resizing,omitempty"`
	// Revision is raised by every fact but results of probes that change no
	// verdict: as long as it is the same, Status is, but for what Plan.Stale says.
	Revision int64 `json:"revision,omitempty"`
	// Final is the terminal phase, once it may be shown (PHASE-12). It never
	// changes again.
	Final corev1.PodPhase `json:"final,omitempty"`
	// Foreign are conditions that others have set, in the order in which they first
	// did (COND-09).
	Foreign []corev1.PodCondition `json:"foreign,omitempty"`
	// Conditions remember when each condition last flipped (COND-01).
	Conditions []Condition `json:"conditions,omitempty"`
}

// Volumes is what is known of the pod's volumes.
type Volumes struct {
	Mounted  bool          `json:"mounted,omitempty"`
	Released bool          `json:"released,omitempty"` // unmounted for good
	Attempt  int           `json:"attempt,omitempty"`  // the next MountVolumes
	Delay    time.Duration `json:"delay,omitempty"`    // last step of the retry ladder (TIME-16)
	RetryAt  time.Time     `json:"retryAt,omitzero"`
}

// SandboxState is the state of the newest sandbox.
type SandboxState string

const (
	SandboxAbsent SandboxState = ""      // none yet, or the last one is gone
	SandboxReady  SandboxState = "ready" // its infra module runs
	SandboxLost   SandboxState = "lost"  // its infra module has ended; it is still to be removed
)

// Sandbox is what is known of the pod's newest sandbox.
type Sandbox struct {
	State   SandboxState `json:"state,omitempty"`
	Attempt int          `json:"attempt,omitempty"` // of the one there is, or else of the next
	ID      string       `json:"id,omitempty"`
	IP      string       `json:"ip,omitempty"` // kept after the sandbox is gone
	LostAt  time.Time    `json:"lostAt,omitzero"`
	RetryAt time.Time    `json:"retryAt,omitzero"`
	// Purge says that init containers of the last sandbox still have records,
	// which have to go before the next one is created (SBX-05).
	Purge bool `json:"purge,omitempty"`
}

// ContainerState is the state of a container's newest attempt.
type ContainerState string

const (
	ContainerAbsent  ContainerState = "" // never started, or its record was removed
	ContainerRunning ContainerState = "running"
	ContainerEnded   ContainerState = "ended"
)

// Container is what is known of one container.
type Container struct {
	State ContainerState `json:"state,omitempty"`
	// Starts counts the attempts that had an instance: the newest has the
	// number Starts-1, which is its restartCount, and the next one Starts.
	Starts int `json:"starts,omitempty"`
	Try    int `json:"try,omitempty"` // of the next attempt

	ID        string    `json:"id,omitempty"`        // of the newest instance
	CreatedID string    `json:"createdID,omitempty"` // created, not yet started
	Image     string    `json:"image,omitempty"`
	ImageID   string    `json:"imageID,omitempty"`
	Tried     string    `json:"tried,omitempty"` // the image of the newest try, as its definition had it
	StartedAt time.Time `json:"startedAt,omitzero"`

	// Ended is the termination of the newest attempt and Previous that of the
	// one before. They outlive the record of an init container.
	Ended    *Termination `json:"ended,omitempty"`
	Previous *Termination `json:"previous,omitempty"`

	// Waiting is why it did not start; cleared by a start (STATE-05).
	Waiting   Waiting       `json:"waiting"`
	NotBefore time.Time     `json:"notBefore,omitzero"` // of the next start
	Backoff   time.Duration `json:"backoff,omitempty"`  // next step of the restart ladder (RST-03)
	// BeganAt is when the newest start attempt began; an attempt is older than
	// its instance by the time that its image took (RST-05).
	BeganAt time.Time `json:"beganAt,omitzero"`

	// Started is what others wait for (SIDE-01): it runs, its postStart hook has
	// returned, and its startup probe has succeeded (STATE-09), since OpenAt.
	Started bool      `json:"started,omitempty"`
	OpenAt  time.Time `json:"openAt,omitzero"`
	Ready   bool      `json:"ready,omitempty"` // COND-07

	// Resources are those that the newest attempt runs with (RES-21). They are never
	// modified.
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	Resize    Resize                       `json:"resize,omitzero"`
	// User is who it runs, or ran, as. Never modified.
	User *corev1.ContainerUser `json:"user,omitempty"`

	PostStart   HookState `json:"postStart,omitempty"`
	PreStop     HookState `json:"preStop,omitempty"`
	PreStopDone time.Time `json:"preStopDone,omitzero"`

	// Stop is the decision to stop the newest attempt though the pod lives on.
	Stop *Stop `json:"stop,omitempty"`
	// Killing is the text of its newest Killing event.
	Killing string `json:"killing,omitempty"`
	// Again says that it is started again whatever its exit code was (RST-08).
	Again bool `json:"again,omitempty"`
	// Lost says that it ended because its sandbox did, which is no failure of
	// its own.
	Lost bool `json:"lost,omitempty"`
}

// HookState is how far a hook of the newest attempt has come.
type HookState string

// The states of a hook.
const (
	HookAbsent  HookState = ""
	HookRunning HookState = "running"
	HookFailed  HookState = "failed" // postStart: the container is being killed for it
	HookDone    HookState = "done"
)

// Stop is why and how one attempt of a container is stopped. It is never modified
// once made.
type Stop struct {
	At      time.Time     `json:"at"` // when Grace began to count
	Grace   time.Duration `json:"grace,omitempty"`
	Message string        `json:"message,omitempty"` // of the Killing event
	NoHook  bool          `json:"noHook,omitempty"`  // without preStop (RST-20)
	Again   bool          `json:"again,omitempty"`   // to be started again at once
	Waiting Waiting       `json:"waiting"`           // why it waits then (HOOK-02)
}

// hooked reports whether its postStart hook has not returned, or has failed, for
// which it is being killed.
func (c *Container) hooked() bool {
	return c.State == ContainerRunning && (c.PostStart == HookRunning || c.PostStart == HookFailed)
}

// starting reports whether a start of c is known to be under way.
func (c Container) starting() bool { return c.State != ContainerRunning && !c.BeganAt.IsZero() }

// Termination is how one attempt ended. It is never modified once made.
type Termination struct {
	ExitCode   int32     `json:"exitCode"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ID         string    `json:"id,omitempty"`
}

// Waiting is the last error of a container's start.
type Waiting struct {
	Reason  string    `json:"reason,omitempty"`
	Message string    `json:"message,omitempty"`
	At      time.Time `json:"at,omitzero"`
	// Then and BackOff, if set, replace Reason and Message from At+resync on, when
	// the next look finds it backing off (IMG-08, RST-09).
	Then    string `json:"then,omitempty"`
	BackOff string `json:"backOff,omitempty"`
}

// Pull is the backoff of one image of the pod (TIME-07).
type Pull struct {
	Delay  time.Duration `json:"delay"`
	Failed time.Time     `json:"failed"`
	// Always says that the policy of the failed pull was Always, so that the
	// image may well be present.
	Always bool `json:"always,omitempty"`
}

// Until is when the image may be pulled again.
func (p Pull) Until() time.Time { return p.Failed.Add(p.Delay) }

// Cause is why a pod is being ended.
type Cause string

const (
	NotEnding Cause = ""
	Completed Cause = "completed" // by itself: nothing is left to run (DEL-11)
	Deleted   Cause = "deleted"
	Deadline  Cause = "deadline" // activeDeadlineSeconds (DEAD-02)
	Evicted   Cause = "evicted"  // RES-32
	Killed    Cause = "killed"   // its sandbox is gone and may not be replaced (SBX-06)
)

// Ending is the decision to end the pod. The first cause stays; only the grace
// period may become shorter.
type Ending struct {
	Cause Cause         `json:"cause,omitempty"`
	At    time.Time     `json:"at,omitzero"` // when Grace began to count
	Grace time.Duration `json:"grace,omitempty"`
	// Message is why it was evicted, and Overran that it was told of that this takes
	// too long (DEL-12).
	Message string `json:"message,omitempty"`
	Overran bool   `json:"overran,omitempty"`
}

// Condition is the memory of one pod condition.
type Condition struct {
	Type   corev1.PodConditionType `json:"type"`
	Status corev1.ConditionStatus  `json:"status"`
	Since  time.Time               `json:"since,omitzero"`
}

// clone makes the maps and slices of o its own, so that it can be changed.
func (o Observed) clone() Observed {
	o.Containers = maps.Clone(o.Containers)
	o.Pulls = maps.Clone(o.Pulls)
	o.Conditions = slices.Clone(o.Conditions)
	o.Foreign = slices.Clone(o.Foreign)
	o.Probes = slices.Clone(o.Probes)
	return o
}

// running reports whether any container of the pod runs.
func (o *Observed) running() bool {
	for _, c := range o.Containers {
		if c.State == ContainerRunning {
			return true
		}
	}
	return false
}

// ending reports whether the pod is being ended: nothing is started any more
// (DEL-09, MAIN-07).
func (o *Observed) ending() bool { return o.Ending.Cause != NotEnding }

// passTime folds in what time alone brings about, which is the active deadline
// (DEAD-01). It reports whether the deadline has now been exceeded for the
// first time. Decide calls it on its copy, and Apply keeps the result.
func (o *Observed) passTime(pod *corev1.Pod, now time.Time) bool {
	deadline, ok := o.deadline(pod)
	if !ok || now.Before(deadline) {
		return false
	}
	o.Ending = Ending{Cause: Deadline, At: deadline, Grace: gracePeriod(pod)}
	return true
}

// deadline is when the pod's active deadline will end it, if there is one to
// wait for.
func (o *Observed) deadline(pod *corev1.Pod) (time.Time, bool) {
	if pod.Spec.ActiveDeadlineSeconds == nil || o.Admitted.IsZero() || o.ending() {
		return time.Time{}, false
	}
	return o.Admitted.Add(seconds(*pod.Spec.ActiveDeadlineSeconds)), true
}

// seconds converts a number of seconds of the API without overflow: 100 years
// are as good as for ever.
func seconds(n int64) time.Duration {
	const most = 100 * 365 * 24 * 3600
	return time.Duration(min(max(n, -most), most)) * time.Second
}

// isSidecar reports whether an init container is a native sidecar (SIDE).
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// A stage is how far a pod has come. What is due depends on the stage, and
// doc.md shows which fact leads from one to another.
type stage string

const (
	stageNew          stage = "New"          // not admitted yet
	stageMounting     stage = "Mounting"     // volumes
	stageSandboxing   stage = "Sandboxing"   // no sandbox: remove old records, create one
	stageInitializing stage = "Initializing" // init containers
	stageRunning      stage = "Running"      // regular containers and sidecars
	stageResetting    stage = "Resetting"    // all containers restart in the sandbox there is
	stageReplacing    stage = "Replacing"    // the sandbox was lost: stop what ran in it, remove it
	stageStopping     stage = "Stopping"     // ending: containers still run
	stageRemoving     stage = "Removing"     // ending: the sandbox is still there
	stageUnmounting   stage = "Unmounting"   // ending: volumes are still there
	stageFinished     stage = "Finished"
)

func (o *Observed) stage(pod *corev1.Pod) stage {
	if o.ending() {
		switch {
		case o.running():
			return stageStopping
		case o.Sandbox.State != SandboxAbsent:
			return stageRemoving
		case !o.Volumes.Released:
			return stageUnmounting
		}
		return stageFinished
	}
	switch {
	case o.Admitted.IsZero():
		return stageNew
	case !o.Volumes.Mounted:
		return stageMounting
	case o.Sandbox.State == SandboxLost:
		return stageReplacing
	case o.Sandbox.State == SandboxAbsent:
		return stageSandboxing
	case o.Resetting:
		return stageResetting
	}
	if _, done := o.nextInit(pod); !done {
		return stageInitializing
	}
	return stageRunning
}
