// Package lifecycle decides what happens to a pod next. It is pure: facts go in
// through Observed.Apply, and Decide and Status say what is due and what the
// API shows. It reads no clock, keeps no state of its own and starts nothing;
// doc.md beside this file draws the stages a pod passes through.
package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// ContainerRef names one attempt of one container of a pod. Attempt counts
// from 0 and equals the restartCount that the attempt is reported with. It is
// comparable, so that it can be a map key.
type ContainerRef struct {
	Name    string
	Attempt int
}

// An Action is one thing to do. Actions are plain comparable values: the pod
// worker runs an action once at a time, however often Decide repeats it, and a
// driver may send it to another process.
type Action interface{ isAction() }

// MountVolumes prepares every volume of the pod. It reports VolumesMounted or
// VolumesFailed. Attempt distinguishes retries.
type MountVolumes struct{ Attempt int }

// CreateSandbox creates the pod sandbox and starts its infra module. It
// reports SandboxCreated or SandboxFailed, and later SandboxExited if the
// infra module ends by itself (SBX-03).
type CreateSandbox struct{ Attempt int }

// StartContainer ensures the image, builds the container's blueprint, and
// starts it (MAIN-02). It reports ImagePulling, ImagePulled, ImageFailed,
// ContainerCreated, ContainerStarted, ContainerStartFailed as they happen, and
// ContainerExited when the guest ends. Try distinguishes start attempts of the
// same ContainerRef that failed before an instance existed (ErrImagePull,
// CreateContainerConfigError).
type StartContainer struct {
	ContainerRef
	Try int
}

// StopContainer asks a running container to end: stop signal, then SIGKILL
// when Grace has passed. It reports ContainerStopping at once, and the
// container's exit arrives as ContainerExited. A later StopContainer with a
// smaller Grace shortens it.
type StopContainer struct {
	ContainerRef
	Grace time.Duration
}

// RunProbe makes one attempt of a probe, within the probe's timeout. It reports
// ProbeFinished. Seq distinguishes attempts.
type RunProbe struct {
	ContainerRef
	Kind probes.Kind
	Seq  int
}

// RunHook runs a lifecycle hook of a running container. It reports HookFinished,
// and ContainerStopping at once if the hook is preStop. It has no timeout: it is
// cancelled when it is no longer in the plan (HOOK-03, HOOK-05).
type RunHook struct {
	ContainerRef
	Hook Hook
}

// ResizeContainer gives a running container the resources that the pod's newest
// definition has for it, of this Generation or a later one, without a restart
// (RES-20). It reports ContainerResized or ResizeFailed. Try distinguishes retries.
type ResizeContainer struct {
	ContainerRef
	Generation int64
	Try        int
}

// Hook is one of a container's lifecycle hooks.
type Hook string

// The hooks.
const (
	PostStart Hook = "postStart"
	PreStop   Hook = "preStop"
)

// RemoveSandbox stops the infra module and releases the sandbox. It reports
// SandboxRemoved.
type RemoveSandbox struct{ Attempt int }

// RemoveContainers forgets the records of ended init containers before a new
// sandbox repeats them (SBX-05). It is carried out by the fact it reports,
// ContainersRemoved; logs of the named containers are deleted.
type RemoveContainers struct{ SandboxAttempt int }

// ResetContainers forgets what has run in the sandbox, so that everything starts
// again in it (RST-20). It is carried out by the fact it reports, ContainersReset;
// logs are kept.
type ResetContainers struct{ Attempt int }

// UnmountVolumes tears the pod's volumes and directories down after its
// sandbox is gone (DEL-06). It reports VolumesUnmounted, after which the
// worker has nothing more to do.
type UnmountVolumes struct{}

func (MountVolumes) isAction()     {}
func (CreateSandbox) isAction()    {}
func (StartContainer) isAction()   {}
func (StopContainer) isAction()    {}
func (RunProbe) isAction()         {}
func (RunHook) isAction()          {}
func (ResizeContainer) isAction()  {}
func (ResetContainers) isAction()  {}
func (RemoveSandbox) isAction()    {}
func (RemoveContainers) isAction() {}
func (UnmountVolumes) isAction()   {}

// Plan is Decide's answer.
type Plan struct {
	// Actions are due now, in the order in which they should be started. An
	// action stays in the plan until a fact shows that it is done.
	Actions []Action
	// Wake is when to ask again although nothing has happened; zero: only when
	// a fact arrives.
	Wake time.Time
	// Stale is when Status says something else although nothing has happened;
	// zero: only when a fact arrives.
	Stale time.Time
	// Finished says that nothing will ever be due again: the phase is
	// terminal and everything the pod held has been released.
	Finished bool
}

// A Fact is one thing that happened. Facts are plain serialisable values.
type Fact interface {
	// when is the fact's At; being unexported it also seals the interface.
	when() time.Time
}

// PodAdmitted: the worker acknowledged the pod; status.startTime.
type PodAdmitted struct{ At time.Time }

// PodUpdated: the pod that is handed to Apply, Decide and Status from now on has
// another definition: a new generation, an ephemeral container more, other resources.
// Infeasible, if not empty, is why this node cannot ever give it the resources that
// it declares; it keeps those that it has (COND-11).
type PodUpdated struct {
	At         time.Time
	Generation int64 // dropped if the pod is newer
	Infeasible string
}

// ContainerResized: the container has the resources now that the definition of this
// Generation has for it; nil: those of the definition that Apply is given. They are
// never modified.
type ContainerResized struct {
	At         time.Time
	Container  ContainerRef
	Generation int64
	Resources  *corev1.ResourceRequirements
}

// ResizeFailed: the container still has the resources that it had.
type ResizeFailed struct {
	At         time.Time
	Container  ContainerRef
	Generation int64
	Try        int
	Message    string
}

// ConditionSet: somebody other than this package has set a condition of the pod,
// of a readiness gate say (COND-09). One of a type that this package owns is
// dropped.
type ConditionSet struct {
	At        time.Time
	Condition corev1.PodCondition
}

// PodDeleted: deletion was asked for with this grace period. A second one may
// only shorten the first (DEL-02, DEL-05).
type PodDeleted struct {
	At    time.Time
	Grace time.Duration
}

// PodEvicted: the pod is to be ended because it uses more than it may, or because
// the node is short of it (RES-32). Message says of what.
type PodEvicted struct {
	At      time.Time
	Grace   time.Duration
	Message string
}

// VolumesMounted: every volume is ready.
type VolumesMounted struct{ At time.Time }

// VolumesFailed: at least one volume could not be set up. Messages are the
// texts of the FailedMount events (VOL-04, VOL-20).
type VolumesFailed struct {
	At       time.Time
	Attempt  int
	Messages []string
}

// SandboxCreated: the infra module runs. DNSWarnings are the texts of
// DNSConfigForming events (NET-04).
type SandboxCreated struct {
	At          time.Time
	Attempt     int
	ID          string
	IP          string // pod IP; empty on the host network
	DNSWarnings []string
}

// SandboxFailed: the sandbox could not be created (SBX-08).
type SandboxFailed struct {
	At      time.Time
	Attempt int
	Message string
}

// SandboxExited: the infra module ended by itself.
type SandboxExited struct {
	At      time.Time
	Attempt int
}

// SandboxRemoveFailed: the sandbox could not be removed; it is tried again (DEL-12).
type SandboxRemoveFailed struct {
	At      time.Time
	Attempt int
	Message string
}

// SandboxRemoved: the sandbox is gone, and no container of it runs.
type SandboxRemoved struct {
	At      time.Time
	Attempt int
}

// ContainersRemoved answers RemoveContainers.
type ContainersRemoved struct {
	At             time.Time
	SandboxAttempt int
}

// ImagePulling: a pull has begun (IMG-06). MissingSecrets are imagePullSecrets
// that are not there (IMG-10).
type ImagePulling struct {
	At             time.Time
	Container      ContainerRef
	Image          string
	MissingSecrets []string
}

// ImagePulled: the image is present. Message is the event's text (IMG-04,
// IMG-06), complete.
type ImagePulled struct {
	At        time.Time
	Container ContainerRef
	Image     string // resolved name for status.image
	ImageID   string // digested reference for status.imageID
	Message   string
}

// ImageFailed: the image is not available (IMG-02, IMG-05, IMG-07, IMG-09).
// Reason is one of ErrImagePull, ErrImageNeverPull, InvalidImageName,
// ImageInspectError.
type ImageFailed struct {
	At        time.Time
	Container ContainerRef
	Try       int
	Image     string
	Volume    string // the image that failed, if it is that of a volume (VOL-40)
	Reason    string
	Message   string
}

// ContainerCreated: the blueprint is complete and the module compiled.
type ContainerCreated struct {
	At        time.Time
	Container ContainerRef
	ID        string // containerID without scheme
}

// ContainerStarted: the guest's first instruction is about to run. Resources are
// those it was started with, if they may differ from its definition's; they are
// never modified. SpecImage likewise is the image that its definition had. User is who
// its process is, if that is known; it is never modified.
type ContainerStarted struct {
	At        time.Time
	Container ContainerRef
	ID        string
	SpecImage string
	Resources *corev1.ResourceRequirements
	User      *corev1.ContainerUser
}

// ContainerStartFailed: the start ended in an error. Reason is
// CreateContainerConfigError or CreateContainerError (no instance ever
// existed: no terminated state, retried at TIME-09's pace), or
// RunContainerError (a terminated instance with reason StartError and exit
// code 128 remains: RST-09).
type ContainerStartFailed struct {
	At        time.Time
	Container ContainerRef
	Try       int
	Reason    string
	Message   string
}

// ContainersReset answers ResetContainers.
type ContainersReset struct {
	At      time.Time
	Attempt int
}

// ContainerStopping: the stop sequence has begun. Whether it is the first that
// is heard of an end that time alone has brought about, or no news, is for Apply
// to find out.
type ContainerStopping struct {
	At        time.Time
	Container ContainerRef
}

// ProbeFinished: an attempt of a probe that began at Began has ended. Output is
// what it has to say, and Error why it could not be made (PROBE-09).
type ProbeFinished struct {
	At, Began time.Time
	Container ContainerRef
	Kind      probes.Kind
	Seq       int
	Result    probes.Result
	Output    string
	Error     string
}

// HookFinished: a hook has ended. Error is empty if it succeeded. Fallback, if
// not empty, is the text of the event LifecycleHTTPFallback (HOOK-07).
type HookFinished struct {
	At        time.Time
	Container ContainerRef
	Hook      Hook
	Error     string
	Fallback  string
}

// ContainerExited: the guest has ended and its resources are released.
// Reason is Completed, Error, OOMKilled or StartError (STATE-03). Message is
// the termination message (TMSG).
type ContainerExited struct {
	At        time.Time
	Container ContainerRef
	ExitCode  int32
	Reason    string
	Message   string
}

// VolumesUnmounted: nothing of the pod is left on the host but its logs.
type VolumesUnmounted struct{ At time.Time }

func (f PodAdmitted) when() time.Time          { return f.At }
func (f PodUpdated) when() time.Time           { return f.At }
func (f ContainerResized) when() time.Time     { return f.At }
func (f ResizeFailed) when() time.Time         { return f.At }
func (f ConditionSet) when() time.Time         { return f.At }
func (f PodDeleted) when() time.Time           { return f.At }
func (f PodEvicted) when() time.Time           { return f.At }
func (f SandboxRemoveFailed) when() time.Time  { return f.At }
func (f VolumesMounted) when() time.Time       { return f.At }
func (f VolumesFailed) when() time.Time        { return f.At }
func (f SandboxCreated) when() time.Time       { return f.At }
func (f SandboxFailed) when() time.Time        { return f.At }
func (f SandboxExited) when() time.Time        { return f.At }
func (f SandboxRemoved) when() time.Time       { return f.At }
func (f ContainersRemoved) when() time.Time    { return f.At }
func (f ImagePulling) when() time.Time         { return f.At }
func (f ImagePulled) when() time.Time          { return f.At }
func (f ImageFailed) when() time.Time          { return f.At }
func (f ContainerCreated) when() time.Time     { return f.At }
func (f ContainerStarted) when() time.Time     { return f.At }
func (f ContainerStartFailed) when() time.Time { return f.At }
func (f ContainerStopping) when() time.Time    { return f.At }
func (f ContainerExited) when() time.Time      { return f.At }
func (f ContainersReset) when() time.Time      { return f.At }
func (f ProbeFinished) when() time.Time        { return f.At }
func (f HookFinished) when() time.Time         { return f.At }
func (f VolumesUnmounted) when() time.Time     { return f.At }

// Event is the pure part of a Kubernetes event: the worker adds names and
// counts (EVT).
type Event struct {
	At        time.Time
	Type      string // Normal or Warning
	Reason    string
	Message   string
	FieldPath string // spec.containers{name}; empty for the pod itself
}
