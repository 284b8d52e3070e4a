package container

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// envList is an environment in the order in which names first appeared. A
// later value replaces the earlier one in its place (ENV-07), so that the list
// is the same on every run, which upstream's is not.
type envList struct {
	names  []string
	values map[string]string
	bytes  int
}

func newEnvList() *envList { return &envList{values: map[string]string{}} }

func (l *envList) set(name, value string) {
	old, ok := l.values[name]
	if ok {
		l.bytes -= len(old)
	} else {
		l.names = append(l.names, name)
		l.bytes += len(name) + 2
	}
	l.bytes += len(value)
	l.values[name] = value
}

func (l *envList) lookup(name string) (string, bool) {
	v, ok := l.values[name]
	return v, ok
}

// environ merges what the runtime, the image and the pod say, the last one
// winning (ENV-10). HOSTNAME comes first.
func environ(hostname string, image []string, pod *envList) []string {
	all := newEnvList()
	all.set("HOSTNAME", hostname)
	for _, kv := range image {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			all.set(name, value)
		}
	}
	for _, name := range pod.names {
		all.set(name, pod.values[name])
	}
	out := make([]string, 0, len(all.names))
	for _, name := range all.names {
		out = append(out, name+"="+all.values[name])
	}
	return out
}

// podEnv is the environment that the Pod asks for: envFrom in order, then env
// in order (ENV-01..ENV-07).
func podEnv(pod *corev1.Pod, c *corev1.Container, in *Inputs) (*envList, error) {
	env := newEnvList()
	if links := pod.Spec.EnableServiceLinks; links == nil || *links {
		addServices(env, in.Services)
		if env.bytes > maxArgEnvBytes {
			return nil, errTooLong
		}
	}
	for i := range c.EnvFrom {
		if err := addEnvFrom(env, pod.Namespace, &c.EnvFrom[i], in); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		e := &c.Env[i]
		value, present := e.Value, true
		if value != "" {
			var ok bool
			if value, ok = expand(value, env.lookup, maxArgEnvBytes); !ok {
				return nil, errTooLong
			}
		} else if e.ValueFrom != nil {
			var err error
			if value, present, err = valueFrom(pod, c, e.ValueFrom, in); err != nil {
				return nil, err
			}
		}
		if !present {
			continue
		}
		if err := checkEnvName(e.Name); err != nil {
			return nil, err
		}
		env.set(e.Name, value)
		if env.bytes > maxArgEnvBytes {
			return nil, errTooLong
		}
	}
	return env, nil
}

func checkEnvName(name string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return fmt.Errorf("invalid environment variable name %q", name)
	}
	return nil
}

// addEnvFrom adds every key of one source (ENV-02).
func addEnvFrom(env *envList, namespace string, from *corev1.EnvFromSource, in *Inputs) error {
	add := func(key, value string) error {
		name := from.Prefix + key
		if err := checkEnvName(name); err != nil {
			return err
		}
		env.set(name, value)
		if env.bytes > maxArgEnvBytes {
			return errTooLong
		}
		return nil
	}
	switch {
	case from.ConfigMapRef != nil:
		ref := from.ConfigMapRef
		cm, ok := in.configMap(namespace, ref.Name)
		if !ok {
			return unlessOptional(ref.Optional, "configmap", ref.Name)
		}
		for _, key := range slices.Sorted(maps.Keys(cm.Data)) {
			if err := add(key, cm.Data[key]); err != nil {
				return err
			}
		}
	case from.SecretRef != nil:
		ref := from.SecretRef
		secret, ok := in.secret(namespace, ref.Name)
		if !ok {
			return unlessOptional(ref.Optional, "secret", ref.Name)
		}
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			if err := add(key, string(secret.Data[key])); err != nil {
				return err
			}
		}
	}
	return nil
}

func unlessOptional(optional *bool, kind, name string) error {
	if isTrue(optional) {
		return nil
	}
	return notFound(kind, name)
}

func notFound(kind, name string) error { return fmt.Errorf("%s %q not found", kind, name) }

func isTrue(b *bool) bool { return b != nil && *b }

// valueFrom resolves one source. present is false where an optional object or
// key is missing: the variable is then absent, not empty (ENV-05).
func valueFrom(pod *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource, in *Inputs) (value string, present bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = in.fieldValue(pod, from.FieldRef)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err = ResourceValue(pod, c, from.ResourceFieldRef, in.NodeAllocatable)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, ok := in.configMap(pod.Namespace, ref.Name)
		if !ok {
			return "", false, unlessOptional(ref.Optional, "configmap", ref.Name)
		}
		if value, ok = cm.Data[ref.Key]; ok || isTrue(ref.Optional) {
			return value, ok, nil
		}
		return "", false, fmt.Errorf("couldn't find key %s in ConfigMap %s/%s", ref.Key, pod.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, ok := in.secret(pod.Namespace, ref.Name)
		if !ok {
			return "", false, unlessOptional(ref.Optional, "secret", ref.Name)
		}
		data, ok := secret.Data[ref.Key]
		if ok || isTrue(ref.Optional) {
			return string(data), ok, nil
		}
		return "", false, fmt.Errorf("couldn't find key %s in Secret %s/%s", ref.Key, pod.Namespace, ref.Name)
	case from.FileKeyRef != nil:
		return fileKey(from.FileKeyRef, in)
	}
	return "", true, nil
}
