package lifecycle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ephemeral is an ephemeral container as others are declared: it may have neither
// probes, hooks nor ports, and is never restarted.
func ephemeral(pod *corev1.Pod, i int) *corev1.Container {
	return (*corev1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
}

func isEphemeral(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == name })
}

// ephemeralStarts lists the ephemeral containers that have not run yet. They come
// before all others (SBX-01), and whatever has become of those.
func (o *Observed) ephemeralStarts(pod *corev1.Pod) (list []start) {
	for i := range pod.Spec.EphemeralContainers {
		if spec := ephemeral(pod, i); o.Containers[spec.Name].State == ContainerAbsent {
			list = append(list, o.start(spec))
		}
	}
	return list
}

// stopEphemeral stops them with the regular containers; no sidecar waits for them.
func (p *Plan) stopEphemeral(pod *corev1.Pod, o *Observed, s stopping) {
	for i := range pod.Spec.EphemeralContainers {
		name := pod.Spec.EphemeralContainers[i].Name
		if c := o.Containers[name]; c.State == ContainerRunning {
			p.signal(stopping{c.ref(name), s.since, s.grace})
		}
	}
}

// declaredRunning reports whether any container runs that RestartAllContainers
// has to end: ephemeral ones stay (RST-20).
func (o *Observed) declaredRunning(pod *corev1.Pod) (yes bool) {
	each(pod, func(spec *corev1.Container, _ bool) {
		yes = yes || o.Containers[spec.Name].State == ContainerRunning
	})
	return yes
}
