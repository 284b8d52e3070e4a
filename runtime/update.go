package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// Update takes up ConfigMaps and Secrets that are new or differ from those
// applied, and Services that are new, and ignores all other objects. Volumes that show them have the new
// content when it returns (VOL-10, VOL-14: an API server's node may take more than
// a minute); environments and subPath mounts have it with a container's next start
// (ENV-08, VOL-15). An object that is not listed any more stays: as with apply.
//
// It returns what has changed, as kind/name. The error names the objects that are
// immutable, which stay as they were, and the volumes whose new content cannot be
// had, which keep the old one.
func (r *Runtime) Update(ctx context.Context, objects *manifest.Objects) (changed []string, err error) {
	var errs []error
	for _, cm := range objects.ConfigMaps {
		old, ok := r.store.ConfigMap(cm.Namespace, cm.Name)
		switch {
		case ok && sameConfigMap(old, cm):
		case ok && isTrue(old.Immutable):
			errs = append(errs, immutable("configmap", cm.Name))
		default:
			r.store.PutConfigMap(cm)
			changed = append(changed, "configmap/"+cm.Name)
		}
	}
	for _, s := range objects.Secrets {
		old, ok := r.store.Secret(s.Namespace, s.Name)
		switch {
		case ok && sameSecret(old, s):
		case ok && isTrue(old.Immutable):
			errs = append(errs, immutable("secret", s.Name))
		default:
			r.store.PutSecret(s)
			changed = append(changed, "secret/"+s.Name)
		}
	}
	if len(changed) > 0 {
		errs = append(errs, r.refreshVolumes(ctx))
	}
	if added := r.newServices(objects.Services); len(added) > 0 {
		if err := r.network.put(r.ctx, &manifest.Objects{Services: added}); err != nil {
			return changed, errors.Join(append(errs, err)...)
		}
		for _, svc := range added {
			changed = append(changed, "service/"+svc.Name)
		}
	}
	return changed, errors.Join(errs...)
}

// newServices are those that there are none of yet. One that is there keeps its
// addresses, which pods may have in their environments.
func (r *Runtime) newServices(services []*corev1.Service) (added []*corev1.Service) {
	have := r.Services()
	for _, svc := range services {
		if !slices.ContainsFunc(have, func(h *corev1.Service) bool { return h.Namespace == svc.Namespace && h.Name == svc.Name }) {
			added = append(added, svc)
		}
	}
	return added
}

// refreshVolumes has the volumes of all pods that have not ended show the objects
// as they are now. What has not changed is not written.
func (r *Runtime) refreshVolumes(ctx context.Context) error {
	var errs []error
	for _, pod := range r.store.Pods() {
		if w := r.worker(pod.UID); w == nil || ended(w.Done()) {
			continue
		}
		if err := r.volume.Refresh(ctx, pod); err != nil {
			errs = append(errs, fmt.Errorf("pod %q: %w", pod.Name, err))
		}
	}
	return errors.Join(errs...)
}

func immutable(kind, name string) error {
	return fmt.Errorf("%s %q: data: Forbidden: field is immutable when `immutable` is set", kind, name)
}

func sameConfigMap(a, b *corev1.ConfigMap) bool {
	return maps.Equal(a.Data, b.Data) && maps.EqualFunc(a.BinaryData, b.BinaryData, slices.Equal) &&
		isTrue(a.Immutable) == isTrue(b.Immutable) && equality.Semantic.DeepEqual(a.Labels, b.Labels)
}

func sameSecret(a, b *corev1.Secret) bool {
	return maps.EqualFunc(a.Data, b.Data, slices.Equal) &&
		isTrue(a.Immutable) == isTrue(b.Immutable) && a.Type == b.Type && equality.Semantic.DeepEqual(a.Labels, b.Labels)
}

func isTrue(b *bool) bool { return b != nil && *b }
