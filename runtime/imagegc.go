package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/runtime/image"
)

const (
	// imageGCPeriod is how often it is looked whether images are to be removed, as
	// in the kubelet.
	imageGCPeriod = 5 * time.Minute
	// imageTouchPeriod is how often images in use are marked as such for other
	// processes on the same store. It is below any sensible minimum age.
	imageTouchPeriod = time.Minute
)

// imageCollector removes images that are not used, as the kubelet's image garbage
// collection does.
type imageCollector struct {
	thresholds image.Thresholds
	images     interface {
		Collect(ctx context.Context, t image.Thresholds, inUse []string) (image.Collected, error)
		Touch(ids []string)
	}
	inUse func() []string
	// event tells of what the node's user should know.
	event func(reason, message string)
	log   *slog.Logger
}

// run runs until ctx ends.
func (c *imageCollector) run(ctx context.Context) {
	tick := time.NewTicker(imageTouchPeriod)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case now := <-tick.C:
			inUse := c.inUse()
			c.images.Touch(inUse)
			if now.Sub(last) >= imageGCPeriod {
				last = now
				c.collect(ctx, inUse)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (c *imageCollector) collect(ctx context.Context, inUse []string) {
	done, err := c.images.Collect(ctx, c.thresholds, inUse)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		c.log.Warn("image garbage collection failed", "error", err)
		c.event("ImageGCFailed", err.Error())
		return
	case len(done.Images) > 0:
		c.log.Info("removed unused images", "images", done.Images, "bytes", done.Bytes)
	}
	if done.Bytes < done.Wanted {
		message := fmt.Sprintf("Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.", done.Wanted, done.Bytes)
		c.log.Warn(message)
		c.event("FreeDiskSpaceFailed", message)
	}
}

// startImageCollector starts it if it is enabled.
func (r *Runtime) startImageCollector() {
	if !r.cfg.ImageGC.Enabled() {
		return
	}
	c := &imageCollector{thresholds: r.cfg.ImageGC, images: r.images, inUse: r.imagesInUse, event: r.nodeEvent, log: r.cfg.Log}
	r.tasks.Go(func() { c.run(r.ctx) })
}

// imagesInUse are the images of pods that have not ended: what their containers
// were started from, and what they will be started from.
func (r *Runtime) imagesInUse() []string {
	var list []string
	for _, pod := range r.store.Pods() {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			list = append(list, c.Image)
		}
		for _, c := range pod.Spec.EphemeralContainers {
			list = append(list, c.Image)
		}
		for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
			if s.ImageID != "" {
				list = append(list, s.ImageID)
			}
		}
		for _, v := range pod.Spec.Volumes {
			if v.Image != nil {
				list = append(list, v.Image.Reference)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// nodeEvent tells OnEvent of an event of the node.
func (r *Runtime) nodeEvent(reason, message string) {
	if r.cfg.OnEvent == nil {
		return
	}
	now := metav1.Now()
	r.cfg.OnEvent(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: fmt.Sprintf("%s.%x", r.node.Name, now.UnixNano())},
		InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: r.node.Name},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message,
		Source:         corev1.EventSource{Component: "kubelet", Host: r.node.Name},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
}
