package volume

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// payload is the content of a projected volume: slash-separated relative path
// to file.
type payload map[string]file

type file struct {
	data []byte
	mode int32
}

// sum identifies the content of a payload.
func (p payload) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(p)) {
		f := p[name]
		fmt.Fprintf(h, "%d:%s %o %d:", len(name), name, f.mode, len(f.data))
		h.Write(f.data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

const defaultFileMode = 0o644

// projects says whether the volume shows API objects as files.
func projects(v *corev1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil
}

// kind names the directory that volumes of one kind are in.
func kind(v *corev1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return "empty-dir"
	case v.ConfigMap != nil:
		return "configmap"
	case v.Secret != nil:
		return "secret"
	case v.Projected != nil:
		return "projected"
	case v.DownwardAPI != nil:
		return "downward-api"
	case v.Ephemeral != nil:
		return "ephemeral"
	}
	return ""
}

// payload collects what the volume is to show (VOL-12, VOL-13, VOL-16).
func (m *Manager) payload(pod *corev1.Pod, v *corev1.Volume) (payload, error) {
	switch {
	case v.ConfigMap != nil:
		s := v.ConfigMap
		return m.configMap(pod.Namespace, s.Name, s.Items, mode(s.DefaultMode), s.Optional)
	case v.Secret != nil:
		s := v.Secret
		return m.secret(pod.Namespace, s.SecretName, s.Items, mode(s.DefaultMode), s.Optional)
	case v.DownwardAPI != nil:
		return m.downwardAPI(pod, v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode))
	case v.Projected != nil:
		return m.projected(pod, v.Projected)
	}
	return nil, errors.New("volume has no content")
}

func mode(m *int32) int32 {
	if m == nil {
		return defaultFileMode
	}
	return *m
}

func isTrue(b *bool) bool { return b != nil && *b }

func (m *Manager) configMap(namespace, name string, items []corev1.KeyToPath, defaultMode int32, optional *bool) (payload, error) {
	var cm *corev1.ConfigMap
	found := false
	if m.config.ConfigMap != nil {
		cm, found = m.config.ConfigMap(namespace, name)
	}
	if !found || cm == nil {
		if !isTrue(optional) {
			return nil, fmt.Errorf("configmap %q not found", name)
		}
		cm = &corev1.ConfigMap{}
	}
	all := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	maps.Copy(all, cm.BinaryData)
	for key, value := range cm.Data {
		all[key] = []byte(value)
	}
	return project(all, items, defaultMode, isTrue(optional), "configmap references non-existent config key: %s")
}

func (m *Manager) secret(namespace, name string, items []corev1.KeyToPath, defaultMode int32, optional *bool) (payload, error) {
	var secret *corev1.Secret
	found := false
	if m.config.Secret != nil {
		secret, found = m.config.Secret(namespace, name)
	}
	if !found || secret == nil {
		if !isTrue(optional) {
			return nil, fmt.Errorf("secret %q not found", name)
		}
		secret = &corev1.Secret{}
	}
	return project(secret.Data, items, defaultMode, isTrue(optional), "references non-existent secret key: %s")
}

// project picks the items, or everything if there are none.
func project(all map[string][]byte, items []corev1.KeyToPath, defaultMode int32, optional bool, missing string) (payload, error) {
	out := payload{}
	if len(items) == 0 {
		for key, data := range all {
			out[key] = file{data: data, mode: defaultMode}
		}
		return out, nil
	}
	for _, item := range items {
		data, ok := all[item.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf(missing, item.Key)
		}
		f := file{data: data, mode: defaultMode}
		if item.Mode != nil {
			f.mode = *item.Mode
		}
		out[item.Path] = f
	}
	return out, nil
}

func (m *Manager) downwardAPI(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, defaultMode int32) (payload, error) {
	out := payload{}
	var errs []error
	for _, item := range items {
		f := file{mode: defaultMode}
		if item.Mode != nil {
			f.mode = *item.Mode
		}
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = container.FieldValue(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = container.ResourceValue(pod, nil, item.ResourceFieldRef, m.config.NodeAllocatable)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.data = []byte(value)
		out[path.Clean(item.Path)] = f
	}
	if len(errs) > 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	return out, nil
}

// projected merges sources, the later one winning; every source that fails is
// reported.
func (m *Manager) projected(pod *corev1.Pod, source *corev1.ProjectedVolumeSource) (payload, error) {
	out := payload{}
	var errs []error
	defaultMode := mode(source.DefaultMode)
	for _, s := range source.Sources {
		var part payload
		var err error
		switch {
		case s.ConfigMap != nil:
			part, err = m.configMap(pod.Namespace, s.ConfigMap.Name, s.ConfigMap.Items, defaultMode, s.ConfigMap.Optional)
		case s.Secret != nil:
			part, err = m.secret(pod.Namespace, s.Secret.Name, s.Secret.Items, defaultMode, s.Secret.Optional)
		case s.DownwardAPI != nil:
			part, err = m.downwardAPI(pod, s.DownwardAPI.Items, defaultMode)
		case s.ServiceAccountToken != nil:
			err = errors.New("projected source serviceAccountToken is not supported")
		default:
			err = errors.New("projected source is not supported")
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		maps.Copy(out, part)
	}
	if len(errs) > 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	return out, nil
}

// sourceName is the name of the volume's source in a manifest.
func sourceName(v *corev1.Volume) string {
	s := v.VolumeSource
	switch {
	case s.Image != nil:
		return "image"
	case s.CSI != nil:
		return "csi"
	case s.NFS != nil:
		return "nfs"
	case s.ISCSI != nil:
		return "iscsi"
	}
	return "of this kind"
}
