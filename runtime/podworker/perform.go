package podworker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/volume"
)

// perform carries one action out and reports what happened. An action that is
// cancelled reports only what nobody would otherwise learn.
func (w *Worker) perform(ctx context.Context, action lifecycle.Action) {
	switch a := action.(type) {
	case lifecycle.MountVolumes:
		w.mountVolumes(ctx, a)
	case lifecycle.CreateSandbox:
		w.createSandbox(ctx, a)
	case lifecycle.StartContainer:
		w.startContainer(ctx, a)
	case lifecycle.StopContainer:
		w.stopContainer(ctx, a)
	case lifecycle.RunProbe:
		w.runProbe(ctx, a)
	case lifecycle.RunHook:
		w.runHook(ctx, a)
	case lifecycle.ResizeContainer:
		w.resizeContainer(a)
	case lifecycle.ResetContainers:
		w.report(lifecycle.ContainersReset{At: time.Now(), Attempt: a.Attempt})
	case lifecycle.RemoveContainers:
		w.removeContainers(a)
	case lifecycle.RemoveSandbox:
		w.removeSandbox(ctx, a)
	case lifecycle.UnmountVolumes:
		w.unmountVolumes(ctx)
	default:
		w.cfg.Log.Error("unknown action", "pod", w.pod().Name, "action", fmt.Sprintf("%T", action))
	}
}

func (w *Worker) mountVolumes(ctx context.Context, a lifecycle.MountVolumes) {
	err := w.cfg.Volumes.Mount(ctx, w.pod())
	if err == nil {
		w.report(lifecycle.VolumesMounted{At: time.Now()})
		return
	}
	messages := []string{err.Error()}
	var mountErr *volume.MountError
	if errors.As(err, &mountErr) {
		messages = mountErr.Messages
	}
	w.report(lifecycle.VolumesFailed{At: time.Now(), Attempt: a.Attempt, Messages: messages})
}

func (w *Worker) createSandbox(ctx context.Context, a lifecycle.CreateSandbox) {
	sb, err := w.cfg.Driver.Create(ctx, w.pod(), a.Attempt)
	if err != nil {
		w.report(lifecycle.SandboxFailed{At: time.Now(), Attempt: a.Attempt, Message: err.Error()})
		return
	}
	w.mu.Lock()
	w.sandbox = sb
	w.mu.Unlock()
	w.report(lifecycle.SandboxCreated{At: time.Now(), Attempt: a.Attempt, ID: sb.ID(), IP: sb.IP(), DNSWarnings: sb.DNSWarnings()})
	go func() {
		<-sb.Done()
		w.mu.Lock()
		expected := w.leaving == sb
		w.mu.Unlock()
		if !expected {
			w.report(lifecycle.SandboxExited{At: time.Now(), Attempt: a.Attempt})
		}
	}()
}

func (w *Worker) removeSandbox(ctx context.Context, a lifecycle.RemoveSandbox) {
	w.mu.Lock()
	sb := w.sandbox
	w.leaving = sb
	w.mu.Unlock()
	if sb != nil {
		err := retry(ctx, func() error {
			err := sb.Remove(ctx)
			if err != nil && ctx.Err() == nil {
				w.report(lifecycle.SandboxRemoveFailed{At: time.Now(), Attempt: a.Attempt, Message: err.Error()})
			}
			return err
		})
		if err != nil {
			return
		}
	}
	w.mu.Lock()
	w.sandbox = nil
	w.mu.Unlock()
	w.report(lifecycle.SandboxRemoved{At: time.Now(), Attempt: a.Attempt})
}

func (w *Worker) removeContainers(a lifecycle.RemoveContainers) {
	for _, c := range w.pod().Spec.InitContainers {
		if err := w.cfg.RemoveLogs(w.pod(), c.Name); err != nil {
			w.cfg.Log.Warn("removing logs", "pod", w.pod().Name, "container", c.Name, "error", err)
		}
	}
	w.report(lifecycle.ContainersRemoved{At: time.Now(), SandboxAttempt: a.SandboxAttempt})
}

func (w *Worker) unmountVolumes(ctx context.Context) {
	err := retry(ctx, func() error { return w.cfg.Volumes.Unmount(w.pod().UID) })
	if err == nil {
		w.report(lifecycle.VolumesUnmounted{At: time.Now()})
	}
}

// retry repeats a release that must not be given up: what it releases would
// otherwise stay for good. It ends with ctx.
func retry(ctx context.Context, release func() error) error {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 10*time.Second) {
		err := release()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return err
		}
	}
}

// startContainer follows MAIN-02.
func (w *Worker) startContainer(ctx context.Context, a lifecycle.StartContainer) {
	failed := func(reason string, err error) {
		w.report(lifecycle.ContainerStartFailed{
			At: time.Now(), Container: a.ContainerRef, Try: a.Try, Reason: reason, Message: err.Error(),
		})
	}
	pod := w.pod() // one definition for all of it
	spec := containerSpec(pod, a.Name)
	for _, v := range imageVolumes(pod, spec) { // VOL-40: before the container's own
		if _, err := w.ensureImage(ctx, a, image.Request{Ref: v.Reference, Policy: v.PullPolicy, Volume: true}); err != nil {
			f := imageFailed(a, spec, err)
			f.Volume = v.Reference
			w.report(f)
			return
		}
	}
	img, err := w.ensureImage(ctx, a, image.Request{Ref: spec.Image, Policy: spec.ImagePullPolicy})
	if err != nil {
		w.report(imageFailed(a, spec, err))
		return
	}
	w.mu.Lock()
	sb := w.sandbox
	w.mu.Unlock()
	if sb == nil {
		failed("CreateContainerError", errors.New("the pod sandbox is gone"))
		return
	}
	var services []*corev1.Service
	if w.cfg.Services != nil {
		services = w.cfg.Services(pod.Namespace)
	}
	config, err := container.NewConfig(pod, spec, container.Inputs{
		Services: services,
		Image:    img.Config, ImageRef: img.Ref, ImageID: img.ID, Module: img.Module, Attempt: a.Attempt,
		PodIP: sb.IP(), HostIP: w.cfg.Node.HostIP,
		NodeName: w.cfg.Node.Name, NodeAllocatable: w.cfg.Node.Allocatable,
		ConfigMaps: w.cfg.Store.ConfigMap, Secrets: w.cfg.Store.Secret,
		VolumeFile: w.volumeFile,
	})
	var configErr *container.ConfigError
	switch {
	case errors.As(err, &configErr):
		failed(configErr.Reason, configErr)
		return
	case err != nil:
		failed("CreateContainerError", err)
		return
	}
	c, err := sb.Create(ctx, config)
	if err != nil {
		failed(createReason(err), err)
		return
	}
	w.report(lifecycle.ContainerCreated{At: time.Now(), Container: a.ContainerRef, ID: c.ID()})
	if ctx.Err() != nil {
		c.Kill()
		failed("CreateContainerError", context.Cause(ctx))
		return
	}
	live := &attempt{Container: c}
	w.mu.Lock()
	w.containers[a.ContainerRef] = live
	w.mu.Unlock()
	started := time.Now()
	if err := c.Start(ctx); err != nil {
		w.forget(a.ContainerRef)
		failed("RunContainerError", err)
		return
	}
	w.report(lifecycle.ContainerStarted{
		At: started, Container: a.ContainerRef, ID: c.ID(), SpecImage: spec.Image, Resources: &spec.Resources,
		User: container.User(pod, &config, img.Config.User),
	})
	go func() {
		<-c.Done()
		s := c.Status()
		w.used(a.Name, c.Usage().Fuel)
		w.report(lifecycle.ContainerExited{
			At: time.Now(), Container: a.ContainerRef, ExitCode: s.Code, Reason: s.Reason, Message: s.Message,
		})
		w.forget(a.ContainerRef)
	}()
}

func (w *Worker) volumeFile(volume, path string) ([]byte, error) {
	if w.cfg.VolumeFile == nil {
		return nil, fs.ErrNotExist
	}
	return w.cfg.VolumeFile(w.uid, volume, path)
}

// createReason maps an error of Sandbox.Create to the waiting reason (section
// 30). A module that cannot run is what a broken entry point is elsewhere: the
// container exists, but its start fails.
func createReason(err error) string {
	var configErr *sandbox.ConfigError
	var imageErr *sandbox.ImageError
	switch {
	case errors.As(err, &configErr):
		return "CreateContainerConfigError"
	case errors.As(err, &imageErr):
		return "RunContainerError"
	}
	return "CreateContainerError"
}

// ensureImage follows IMG-01: the policy is looked at for every start.
func (w *Worker) ensureImage(ctx context.Context, a lifecycle.StartContainer, r image.Request) (image.Image, error) {
	var missing []string
	var asked, begun time.Time
	r.Secrets, missing = w.pullSecrets()
	r.Namespace = w.pod().Namespace
	r.OnPull = func() {
		asked = time.Now()
		begun = asked
		w.report(lifecycle.ImagePulling{At: time.Now(), Container: a.ContainerRef, Image: r.Ref, MissingSecrets: missing})
	}
	r.OnTurn = func() { begun = time.Now() }
	img, pulled, err := w.cfg.Images.Ensure(ctx, r)
	if err != nil || r.Volume { // a volume is not the image that the status tells of
		return img, err
	}
	message := fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Ref)
	if pulled {
		now := time.Now()
		message = fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.",
			r.Ref, now.Sub(begun).Truncate(time.Millisecond), now.Sub(asked).Truncate(time.Millisecond), img.Size)
	}
	w.report(lifecycle.ImagePulled{
		At: time.Now(), Container: a.ContainerRef, Image: img.Ref, ImageID: img.ID, Message: message,
	})
	return img, nil
}

// imageVolumes are the images that a container mounts.
func imageVolumes(pod *corev1.Pod, c *corev1.Container) (list []*corev1.ImageVolumeSource) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image != nil && slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			list = append(list, v.Image)
		}
	}
	return list
}

// pullSecrets returns the pod's imagePullSecrets, and the names of those that
// are not there: the pull is tried all the same (IMG-10).
func (w *Worker) pullSecrets() (secrets []*corev1.Secret, missing []string) {
	pod := w.pod()
	for _, ref := range pod.Spec.ImagePullSecrets {
		if secret, ok := w.cfg.Store.Secret(pod.Namespace, ref.Name); ok {
			secrets = append(secrets, secret)
		} else if ref.Name != "" {
			missing = append(missing, ref.Name)
		}
	}
	return secrets, missing
}

func imageFailed(a lifecycle.StartContainer, spec *corev1.Container, err error) lifecycle.ImageFailed {
	f := lifecycle.ImageFailed{
		At: time.Now(), Container: a.ContainerRef, Try: a.Try, Image: spec.Image,
		Reason: "ErrImagePull", Message: err.Error(),
	}
	var imageErr *image.Error
	if errors.As(err, &imageErr) {
		f.Reason, f.Message = imageErr.Reason, imageErr.Message
	}
	return f
}

func (w *Worker) forget(ref lifecycle.ContainerRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.containers, ref)
}

// stopContainer follows DEL-08: the stop signal once, SIGKILL when the grace is
// over. When ctx ends, another stop with a shorter grace takes over.
func (w *Worker) stopContainer(ctx context.Context, a lifecycle.StopContainer) {
	w.mu.Lock()
	c := w.containers[a.ContainerRef]
	w.mu.Unlock()
	if c == nil {
		return // it has ended, and was reported to
	}
	c.signal.Do(func() {
		w.report(lifecycle.ContainerStopping{At: time.Now(), Container: a.ContainerRef})
		c.Signal(int(syscall.SIGTERM))
	})
	grace := time.NewTimer(a.Grace)
	defer grace.Stop()
	select {
	case <-c.Done():
		return
	case <-ctx.Done():
		return
	case <-grace.C:
	}
	c.Kill()
	select {
	case <-c.Done():
	case <-ctx.Done():
	}
}

func containerSpec(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if c := &pod.Spec.EphemeralContainers[i]; c.Name == name {
			return (*corev1.Container)(&c.EphemeralContainerCommon)
		}
	}
	return nil
}
