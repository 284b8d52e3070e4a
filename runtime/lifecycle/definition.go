package lifecycle

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// redefined kills what runs with another image than its definition has, to be
// started again whatever its policy (MAIN-04, SIDE-03). Nothing else of a definition
// does that by itself (MAIN-05), and an ordinary init container is left alone
// (INIT-06). Starts that are under way come to their end first, as do hooks.
func (a *applying) redefined() {
	o := a.o
	if o.ending() || o.Resetting || o.Sandbox.State != SandboxReady {
		return
	}
	each(a.pod, func(spec *corev1.Container, init bool) {
		c := o.Containers[spec.Name]
		if c.State != ContainerRunning || c.Stop != nil || !c.outdated(spec) || init && !isSidecar(spec) || o.hidden(spec.Name) {
			return
		}
		message := fmt.Sprintf("Container %s definition changed, will be restarted", spec.Name)
		if init {
			message = fmt.Sprintf("Init container %s definition changed", spec.Name)
		}
		c.Backoff = 0 // that of another image (RST-06)
		c.Stop = &Stop{At: a.at, Grace: containerGrace(a.pod, nil), Message: message, Again: true}
		a.put(spec.Name, c)
	})
}

// outdated reports whether the newest try of a container was made with another image.
func (c *Container) outdated(spec *corev1.Container) bool {
	return c.Tried != "" && c.Tried != spec.Image
}

// tried notes which image a start was tried with: nothing if that is the definition's.
func (c *Container) tried(image string, spec *corev1.Container) {
	c.Tried = cmp.Or(image, spec.Image)
}

// catchUp has a container that does not run be tried with the image that its
// definition has now. It reports whether that is another one.
func (c *Container) catchUp(spec *corev1.Container) bool {
	if !c.outdated(spec) {
		return false
	}
	c.Tried = spec.Image
	return true
}

// forgive ends the wait of a container whose definition has changed in what its
// backoff is about (RST-06): of a new image nothing is known.
func (c *Container) forgive() {
	c.Backoff, c.NotBefore = 0, time.Time{}
}
