// Package container makes the blueprint of one guest: a Config is everything
// that one container attempt will see, as a plain value computed from the Pod,
// the image's configuration and the objects the Pod refers to. It is the same
// on every machine; wazero, host directories and ports appear only under
// package sandbox. `wasmpod run --dry-run` prints it.
package container

// Config is the blueprint of one guest.
type Config struct {
	Pod     PodRef `json:"pod"`
	Name    string `json:"name"`
	Attempt int    `json:"attempt"` // from 0; names the log file (LOG-01)

	Image    string `json:"image"`              // as the manifest has it
	ImageRef string `json:"imageRef,omitempty"` // resolved name (IMG-12)
	ImageID  string `json:"imageID"`            // digested reference (IMG-12)
	Module   string `json:"module"`             // digest of the wasm module, sha256:…

	// Program is the path of the image's own program: the first word of its
	// entrypoint. Args need not begin with it.
	Program    string   `json:"program,omitempty"`
	Args       []string `json:"args"`          // argv, argv[0] included (ENV-11, ENV-14)
	Env        []string `json:"env,omitempty"` // KEY=value, in order, no duplicates
	WorkingDir string   `json:"workingDir"`    // absolute
	Hostname   string   `json:"hostname"`

	// Mounts are in the order in which they are laid over one another: a later
	// mount shadows an earlier one at or below its path.
	Mounts         []Mount `json:"mounts,omitempty"`
	ReadOnlyRootFS bool    `json:"readOnlyRootFilesystem,omitempty"`

	TerminationMessagePath   string `json:"terminationMessagePath"`
	TerminationMessagePolicy string `json:"terminationMessagePolicy"`

	Stdin     bool `json:"stdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`
	TTY       bool `json:"tty,omitempty"`

	UID       *int64 `json:"runAsUser,omitempty"`
	GID       *int64 `json:"runAsGroup,omitempty"`
	Resources Limits `json:"limits"`
}

// PodRef names the pod of a Config.
type PodRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Mount lays a volume, or a part of one, over a guest path. Where the volume
// lies on the host is known to the sandbox only.
type Mount struct {
	Volume    string `json:"volume"`
	SubPath   string `json:"subPath,omitempty"` // relative, cleaned, expanded
	GuestPath string `json:"guestPath"`         // absolute, cleaned
	ReadOnly  bool   `json:"readOnly,omitempty"`
}

// Limits are what the container may use; zero is unlimited.
type Limits struct {
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	CPUMilli    int64 `json:"cpuMilli,omitempty"` // thousandths of a core
	CPUShares   int64 `json:"cpuShares"`          // RES-04
}
