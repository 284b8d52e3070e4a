package container

import (
	corev1 "k8s.io/api/core/v1"
)

// Reasons of a ConfigError, as they appear in a container's waiting state.
const (
	ReasonConfigError = "CreateContainerConfigError"
	ReasonCreateError = "CreateContainerError"
)

// DefaultTerminationMessagePath is used where the Pod has not been defaulted
// (TMSG-06).
const DefaultTerminationMessagePath = "/dev/termination-log"

// maxArgEnvBytes bounds what one guest's arguments and environment may take
// together, as ARG_MAX does for a process on Linux. Without it a short manifest
// could expand to any size, because $(VAR) references nest.
const maxArgEnvBytes = 2 << 20

// ImageConfig is what an image says about the container made from it; the
// fields are those of the OCI image configuration.
type ImageConfig struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"` // KEY=value
	WorkingDir string   `json:"workingDir,omitempty"`
	User       string   `json:"user,omitempty"` // user, uid, user:group or uid:gid
	StopSignal string   `json:"stopSignal,omitempty"`
}

// Inputs are what NewConfig needs besides the Pod. The zero value is usable: an
// image without configuration, and no ConfigMaps and Secrets.
type Inputs struct {
	Image    ImageConfig
	ImageRef string // resolved name
	ImageID  string // digested reference
	Module   string // digest of the wasm module, sha256:…
	Attempt  int    // from 0

	PodIP    string
	HostIP   string
	NodeName string // used where the Pod has no spec.nodeName
	// NodeAllocatable is what resourceFieldRef reports for an unset limit
	// (DAPI-05).
	NodeAllocatable corev1.ResourceList

	// Services are those that the pod's environment tells of, where its
	// enableServiceLinks does not forbid it: of its namespace, as they are now
	// (ENV-09).
	Services []*corev1.Service

	// ConfigMaps and Secrets look an object up; nil finds nothing. The objects
	// are not modified.
	ConfigMaps func(namespace, name string) (*corev1.ConfigMap, bool)
	Secrets    func(namespace, name string) (*corev1.Secret, bool)

	// VolumeFile reads a file of one of the pod's volumes for fileKeyRef (ENV-06). nil:
	// there is no pod yet, and what such files say is not known.
	VolumeFile func(volume, path string) ([]byte, error)
}

func (in *Inputs) configMap(namespace, name string) (*corev1.ConfigMap, bool) {
	if in.ConfigMaps == nil {
		return nil, false
	}
	cm, ok := in.ConfigMaps(namespace, name)
	return cm, ok && cm != nil
}

func (in *Inputs) secret(namespace, name string) (*corev1.Secret, bool) {
	if in.Secrets == nil {
		return nil, false
	}
	s, ok := in.Secrets(namespace, name)
	return s, ok && s != nil
}

// ConfigError says why no blueprint can be made. Reason is the waiting reason
// of the container; Message is the text of the waiting state, and with "Error: "
// before it that of the Failed event (ENV-05).
type ConfigError struct {
	Reason  string
	Message string
}

func (e *ConfigError) Error() string { return e.Message }

func configError(message string) error {
	return &ConfigError{Reason: ReasonConfigError, Message: message}
}
