package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// lookEvery is how often the manifests of a run are looked at. A file that is
// being written is taken up when two looks have found it the same.
const lookEvery = 500 * time.Millisecond

// watcher takes up changes of the manifests of a run while its pods run.
type watcher struct {
	app       *app
	names     []string
	namespace string
	runtime   *runtime.Runtime
	screen    *screen

	objects *manifest.Objects // as applied
	applied fingerprint
	last    fingerprint // of the last look
}

// fingerprint tells whether files have changed since another look at them.
type fingerprint []stamp

type stamp struct {
	name string
	info fs.FileInfo
}

func (f fingerprint) equal(g fingerprint) bool {
	return slices.EqualFunc(f, g, func(a, b stamp) bool {
		return a.name == b.name && a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime()) && os.SameFile(a.info, b.info)
	})
}

// newWatcher looks at the manifests, before they are read: what changes from here
// on is a change. It returns nil if they are not all files, and so cannot change.
func (a *app) newWatcher(o runOptions, names []string) *watcher {
	w := &watcher{app: a, names: names, namespace: o.namespace}
	look, err := w.look()
	if err != nil {
		return nil
	}
	w.applied, w.last = look, look
	return w
}

// look takes the fingerprint of the manifests as they are now.
func (w *watcher) look() (fingerprint, error) {
	var look fingerprint
	for _, name := range w.names {
		if name == "-" {
			return nil, errors.New("standard input is no file")
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		files := []string{name}
		if info.IsDir() {
			if files, err = manifestsIn(name); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil {
				return nil, err
			}
			if !info.Mode().IsRegular() {
				return nil, fmt.Errorf("%s is not a regular file", file)
			}
			look = append(look, stamp{file, info})
		}
	}
	return look, nil
}

// run looks until ctx ends.
func (w *watcher) run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		look, err := w.look()
		if err != nil { // removed, or about to be replaced
			w.last = nil
			continue
		}
		settled := look.equal(w.last)
		w.last = look
		if !settled || look.equal(w.applied) {
			continue
		}
		w.applied = look // also if it is not valid: it is told once
		w.apply(ctx)
	}
}

// apply reads the manifests again, and takes up what can change while pods run.
func (w *watcher) apply(ctx context.Context) {
	sources, err := w.app.sources(w.names)
	if err != nil {
		w.screen.message(err.Error())
		return
	}
	objects, err := manifest.Parse(w.namespace, sources...)
	if err != nil {
		w.screen.message("the changed manifest is not valid, and is not taken up:\n" + err.Error())
		return
	}
	changed, err := w.runtime.Update(ctx, objects)
	if len(changed) > 0 {
		w.screen.message("taken up: " + strings.Join(changed, ", "))
		w.screen.services(w.runtime.Services())
	}
	if err != nil {
		w.screen.message(err.Error())
	}
	other := slices.DeleteFunc(changedObjects(w.objects, objects), func(o string) bool { return slices.Contains(changed, o) })
	if len(other) > 0 {
		w.screen.message(strings.Join(other, ", ") + " changed in the manifests: that takes effect with the next run")
	}
	w.objects = objects
}

// changedObjects lists the objects but ConfigMaps and Secrets that differ, as
// kind/name.
func changedObjects(old, now *manifest.Objects) (changed []string) {
	compare(&changed, "pod", old.Pods, now.Pods)
	compare(&changed, "deployment", old.Deployments, now.Deployments)
	compare(&changed, "replicaset", old.ReplicaSets, now.ReplicaSets)
	compare(&changed, "statefulset", old.StatefulSets, now.StatefulSets)
	compare(&changed, "daemonset", old.DaemonSets, now.DaemonSets)
	compare(&changed, "job", old.Jobs, now.Jobs)
	compare(&changed, "service", old.Services, now.Services)
	compare(&changed, "networkpolicy", old.NetworkPolicies, now.NetworkPolicies)
	compare(&changed, "namespace", old.Namespaces, now.Namespaces)
	return changed
}

func compare[T metav1.Object](changed *[]string, kind string, old, now []T) {
	key := func(o T) string { return o.GetNamespace() + "/" + o.GetName() + "/" + o.GetGenerateName() }
	before := make(map[string]T, len(old))
	for _, o := range old {
		before[key(o)] = o
	}
	for _, o := range now {
		b, ok := before[key(o)]
		if !ok || !equality.Semantic.DeepEqual(b, o) {
			*changed = append(*changed, kind+"/"+o.GetName()+o.GetGenerateName())
		}
		delete(before, key(o))
	}
	for _, o := range old {
		if _, gone := before[key(o)]; gone {
			*changed = append(*changed, kind+"/"+o.GetName()+o.GetGenerateName())
		}
	}
}
