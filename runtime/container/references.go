package container

import (
	corev1 "k8s.io/api/core/v1"
)

// Reference is one use of a ConfigMap or Secret by a pod.
type Reference struct {
	Kind     string // ConfigMap or Secret
	Name     string
	Optional bool
	// Container is the container whose environment needs the object; empty if
	// a volume does.
	Container string
	Volume    string
}

// References lists the ConfigMaps and Secrets that pod needs to start, in the
// order of the Pod: volumes, then init containers, then containers. Image pull
// secrets are not among them, because a missing one does not stop a pod.
func References(pod *corev1.Pod) []Reference {
	var refs []Reference
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		configMap := func(name string, optional *bool) {
			refs = append(refs, Reference{Kind: "ConfigMap", Name: name, Optional: isTrue(optional), Volume: v.Name})
		}
		secret := func(name string, optional *bool) {
			refs = append(refs, Reference{Kind: "Secret", Name: name, Optional: isTrue(optional), Volume: v.Name})
		}
		switch {
		case v.ConfigMap != nil:
			configMap(v.ConfigMap.Name, v.ConfigMap.Optional)
		case v.Secret != nil:
			secret(v.Secret.SecretName, v.Secret.Optional)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					configMap(s.ConfigMap.Name, s.ConfigMap.Optional)
				}
				if s.Secret != nil {
					secret(s.Secret.Name, s.Secret.Optional)
				}
			}
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			refs = append(refs, envReferences(&list[i])...)
		}
	}
	return refs
}

func envReferences(c *corev1.Container) []Reference {
	var refs []Reference
	add := func(kind, name string, optional *bool) {
		refs = append(refs, Reference{Kind: kind, Name: name, Optional: isTrue(optional), Container: c.Name})
	}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			add("ConfigMap", from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		}
		if from.SecretRef != nil {
			add("Secret", from.SecretRef.Name, from.SecretRef.Optional)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil || e.Value != "" {
			continue
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			add("ConfigMap", ref.Name, ref.Optional)
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			add("Secret", ref.Name, ref.Optional)
		}
	}
	return refs
}
