package podworker

import (
	"maps"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// Sandbox is the pod's sandbox; nil while there is none.
func (w *Worker) Sandbox() sandbox.Sandbox {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sandbox
}

// Container is the live attempt of a container; nil while there is none.
func (w *Worker) Container(name string) sandbox.Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref, c := range w.containers {
		if ref.Name == name {
			return c.Container
		}
	}
	return nil
}

func (w *Worker) used(container string, fuel uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fuel == nil {
		w.fuel = make(map[string]uint64)
	}
	w.fuel[container] += fuel
}

// Fuel is what the attempts of each container that have ended have used, in the
// units of wasm.Stats.
func (w *Worker) Fuel() map[string]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.fuel)
}

// Live are the containers that run at the moment, by what they are attempts of.
func (w *Worker) Live() map[lifecycle.ContainerRef]sandbox.Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	live := make(map[lifecycle.ContainerRef]sandbox.Container, len(w.containers))
	for ref, c := range w.containers {
		live[ref] = c.Container
	}
	return live
}
