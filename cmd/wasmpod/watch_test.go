package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// What is not valid is told once and not taken up; what cannot change is told.
func TestWatchTellsWhatItDoesNotTakeUp(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "m.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const first = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"
	write(first)
	synctest.Test(t, func(t *testing.T) {
		var errs output
		a := &app{stderr: &errs}
		w := a.newWatcher(runOptions{namespace: "default"}, []string{dir})
		objects, err := manifest.Parse("default", manifest.Source{Name: file, Data: []byte(first)})
		if err != nil {
			t.Fatal(err)
		}
		r, err := runtime.Open(t.Context(), runtime.Config{DataDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Apply(objects); err != nil {
			t.Fatal(err)
		}
		s := newScreen(&errs, &errs, screenOptions{progress: true})
		defer s.close()
		w.runtime, w.screen, w.objects = r, s, objects
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		for _, step := range []struct{ text, want string }{
			{"kind: [", "not valid"},
			{strings.Replace(first, "a: b", "a: c", 1), "taken up: configmap/c\n"},
			{first + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}\n",
				"taken up: configmap/c\nwasmpod: pod/p changed in the manifests: that takes effect with the next run\n"},
			{strings.Replace(first, "a: b", "a: b, immutable: x", 1), "pod/p changed"},
		} {
			write(step.text)
			time.Sleep(4 * lookEvery)
			synctest.Wait()
			if got := errs.take(); strings.Count(got, "wasmpod: ") == 0 || !strings.Contains(got, step.want) {
				t.Errorf("after %q: %q, want %q", step.text, got, step.want)
			}
		}
		time.Sleep(10 * lookEvery)
		synctest.Wait()
		if again := errs.take(); again != "" {
			t.Errorf("told again: %s", again)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * lookEvery)
		stop()
		<-done
	})
	if w := (&app{}).newWatcher(runOptions{}, []string{"-"}); w != nil {
		t.Error("standard input is watched")
	}
}

// output is what has been written since it was last taken.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.b.Reset()
	return o.b.String()
}
