package lifecycle

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Resize is how far the change of one container's resources has come.
type Resize struct {
	Generation int64 `json:"generation,omitempty"` // that asks for it
	Done       int64 `json:"done,omitempty"`       // the newest that was carried out
	// Try is the number of the next attempt, and Waiting the error of the last.
	Try     int     `json:"try,omitempty"`
	Waiting Waiting `json:"waiting,omitzero"`
}

// resizable are the resources that change in place (RES-20).
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// wanted reports whether the newest attempt of a container has other resources than
// its definition, and whether it has to be restarted for that.
func wanted(spec *corev1.Container, c *Container) (differs, restart bool) {
	if c.Resources == nil || c.Resources == &spec.Resources {
		return false, false
	}
	for _, name := range resizable {
		limit, had := spec.Resources.Limits[name], c.Resources.Limits[name]
		request, asked := spec.Resources.Requests[name], c.Resources.Requests[name]
		if limit.Cmp(had) == 0 && request.Cmp(asked) == 0 {
			continue
		}
		differs = true
		for _, p := range spec.ResizePolicy {
			restart = restart || p.ResourceName == name && p.RestartPolicy == corev1.RestartContainer
		}
	}
	return differs, restart
}

// resizing lists the containers whose resources are to be changed.
func (o *Observed) resizing(pod *corev1.Pod) (list []*corev1.Container) {
	if o.ending() || o.Infeasible != "" {
		return nil
	}
	each(pod, func(spec *corev1.Container, init bool) {
		if init && !isSidecar(spec) {
			return // it gets them with its next start
		}
		c := o.Containers[spec.Name]
		if differs, _ := wanted(spec, &c); differs && c.State == ContainerRunning {
			list = append(list, spec)
		}
	})
	return list
}

// updated takes a new definition: resources that can be changed while a container runs
// will be, and others restart it (RES-20, MAIN-04); images see redefined.
func (a *applying) updated(f PodUpdated) {
	o := a.o
	if o.ending() || f.Generation < a.pod.Generation {
		return
	}
	if f.Infeasible != o.Infeasible {
		o.Infeasible = f.Infeasible
		if f.Infeasible != "" {
			a.podEvent(corev1.EventTypeWarning, "ResizeInfeasible", "Pod resize Infeasible: "+f.Infeasible)
		}
	}
	for _, spec := range containers(a.pod) {
		c := o.Containers[spec.Name]
		// One that was told while it ran gets them by its restart.
		if differs, _ := wanted(spec, &c); differs && c.State == ContainerEnded && f.Infeasible == "" && c.Resize.Generation != a.pod.Generation {
			c.Resources = nil
			c.forgive()
			a.put(spec.Name, c)
		}
		if c.State != ContainerRunning && c.catchUp(spec) {
			c.forgive()
			a.put(spec.Name, c)
		}
	}
	list := o.resizing(a.pod)
	if len(list) > 0 && o.Resizing != a.pod.Generation {
		o.Resizing = a.pod.Generation
		a.podEvent(corev1.EventTypeNormal, "ResizeStarted", "Pod resize started: "+a.resources())
	}
	for _, spec := range list {
		c := o.Containers[spec.Name]
		if c.Resize.Generation == a.pod.Generation {
			continue
		}
		c.Resize = Resize{Generation: a.pod.Generation, Done: c.Resize.Done}
		if _, restart := wanted(spec, &c); restart && c.Stop == nil && !o.Resetting && o.Sandbox.State == SandboxReady {
			c.Stop = &Stop{
				At: a.at, Grace: containerGrace(a.pod, nil), Again: true,
				Message: fmt.Sprintf("Container %s resize requires restart", spec.Name),
			}
		}
		a.put(spec.Name, c)
	}
}

// resize adds the changes of resources that need no restart.
func (p *Plan) resize(pod *corev1.Pod, o *Observed, now time.Time) {
	for _, spec := range o.resizing(pod) {
		c := o.Containers[spec.Name]
		if _, restart := wanted(spec, &c); restart || c.Stop != nil || o.hidden(spec.Name) {
			continue
		}
		due := c.Resize.Waiting.At
		if !due.IsZero() {
			due = due.Add(retryDelay)
		}
		p.at(due, now, ResizeContainer{ContainerRef: c.ref(spec.Name), Generation: pod.Generation, Try: c.Resize.Try})
	}
}

func (a *applying) resized(f ContainerResized) {
	c := a.o.Containers[f.Container.Name]
	if find(a.pod, f.Container.Name) == nil || c.State != ContainerRunning || f.Container != c.ref(f.Container.Name) ||
		f.Generation <= c.Resize.Done {
		return
	}
	if c.Resources = f.Resources; c.Resources == nil {
		c.Resources = &find(a.pod, f.Container.Name).Resources
	}
	c.Resize.Done, c.Resize.Waiting = f.Generation, Waiting{}
	a.put(f.Container.Name, c)
}

// resizeFailed keeps the resources that the container has; it is tried again,
// because what it uses may become less.
func (a *applying) resizeFailed(f ResizeFailed) {
	c := a.o.Containers[f.Container.Name]
	if c.State != ContainerRunning || f.Container != c.ref(f.Container.Name) ||
		f.Generation != c.Resize.Generation || f.Try != c.Resize.Try {
		return
	}
	message := clean(f.Message)
	if c.Resize.Waiting.Message != message {
		a.podEvent(corev1.EventTypeWarning, "ResizeError", "Pod resize error: "+message)
	}
	c.Resize.Try++
	c.Resize.Waiting = Waiting{Reason: corev1.PodReasonError, Message: message, At: f.At}
	a.put(f.Container.Name, c)
}

// resizesEnded says so when the last container has what it is to have.
func (a *applying) resizesEnded() {
	o := a.o
	if o.Resizing == 0 || len(o.resizing(a.pod)) > 0 {
		return
	}
	for _, spec := range containers(a.pod) {
		c := o.Containers[spec.Name]
		if differs, _ := wanted(spec, &c); differs && c.State == ContainerEnded && c.Again && !o.ending() {
			return // it restarts for it
		}
	}
	o.Resizing = 0
	if !o.ending() && o.Infeasible == "" {
		a.podEvent(corev1.EventTypeNormal, "ResizeCompleted", "Pod resize completed: "+a.resources())
	}
}

// resources are those of the definition, as events have them.
func (a *applying) resources() string {
	type container struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources,omitzero"`
	}
	var list struct {
		Init       []container `json:"initContainers,omitempty"`
		Containers []container `json:"containers"`
		Generation int64       `json:"generation"`
	}
	list.Generation = a.pod.Generation
	each(a.pod, func(spec *corev1.Container, init bool) {
		if c := (container{spec.Name, spec.Resources}); init {
			list.Init = append(list.Init, c)
		} else {
			list.Containers = append(list.Containers, c)
		}
	})
	text, _ := json.Marshal(list) // of plain values
	return string(text)
}

// resizeConditions are there as long as a resize is (COND-11).
func resizeConditions(pod *corev1.Pod, o *Observed) (list []corev1.PodCondition) {
	if o.Infeasible != "" && !o.ending() {
		list = append(list, corev1.PodCondition{
			Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: corev1.PodReasonInfeasible, Message: o.Infeasible,
		})
	}
	if o.Resizing == 0 || o.ending() {
		return list
	}
	c := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}
	for _, spec := range o.resizing(pod) {
		if w := o.Containers[spec.Name].Resize.Waiting; w.Reason != "" && c.Reason == "" {
			c.Reason, c.Message = w.Reason, w.Message
		}
	}
	return append(list, c)
}

// actualResources are those that a container that has run runs with, and those
// that it was promised: the ones of its definition, unless these cannot be had
// (RES-21).
func (o *Observed) actualResources(spec *corev1.Container, c *Container) (actual *corev1.ResourceRequirements, allocated corev1.ResourceList) {
	declared := &spec.Resources
	actual = declared
	if c.Resources != nil {
		actual = c.Resources
	}
	if o.Infeasible != "" {
		declared = actual
	}
	return actual.DeepCopy(), declared.Requests.DeepCopy()
}
