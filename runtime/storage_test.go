package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// storageGuest does what its arguments say, two at a time.
const storageGuest = `package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	for i := 1; i+1 < len(os.Args); i += 2 {
		n, _ := strconv.Atoi(os.Args[i+1])
		text := bytes.Repeat([]byte("0123456789abcde\n"), n/16)
		switch file := os.Args[i]; file {
		case "log":
			os.Stdout.Write(text)
		case "sleep":
			time.Sleep(time.Duration(n) * time.Second)
		case "exit-unless":
			if _, err := os.Stat(os.Args[i+1]); err != nil {
				os.Exit(1)
			}
		case "env-file":
			os.WriteFile(os.Args[i+1], []byte("A='of the file'\n"), 0o644)
		case "print-env":
			fmt.Println(os.Getenv(os.Args[i+1]))
		case "append":
			b, err := os.ReadFile(os.Args[i+1])
			fmt.Println("before:", len(b), err == nil)
			os.WriteFile(os.Args[i+1], append(b, 'x'), 0o644)
		default:
			err := os.WriteFile(file, text, 0o644)
			if errors.Is(err, syscall.ENOSPC) {
				fmt.Println("full")
				os.Remove(file)
			} else if err != nil {
				fmt.Println(err)
			}
		}
	}
}
`

// storageRun runs pods in a bubble, looks at them after some times, and returns the
// logs of their containers by pod.
func storageRun(t *testing.T, data, yaml string, look map[time.Duration]func(map[string]corev1.PodStatus)) map[string]string {
	t.Helper()
	text := map[string]string{}
	synctest.Test(t, func(t *testing.T) {
		r, err := Open(t.Context(), Config{DataDir: data, Interpreter: raceEnabled})
		if err != nil {
			t.Fatal(err)
		}
		objects, err := manifest.Parse("", manifest.Source{Name: t.Name(), Data: []byte(yaml)})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := r.Apply(objects); err != nil {
			t.Fatal(err)
		}
		for at := time.Second; at <= 20*time.Second; at += time.Second {
			time.Sleep(time.Until(start.Add(at)))
			synctest.Wait()
			if look[at] != nil {
				now := map[string]corev1.PodStatus{}
				for _, p := range r.Pods() {
					now[p.Name] = p.Status
				}
				look[at](now)
			}
		}
		for _, p := range r.Pods() {
			var b strings.Builder
			for _, s := range p.Status.ContainerStatuses {
				for attempt := range s.RestartCount + 1 {
					_ = r.Logs(t.Context(), p, s.Name, int(attempt), &b)
				}
			}
			text[p.Name] = b.String()
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return text
}

func TestStorageRES30_TIME21_VOL40(t *testing.T) {
	module := wasmtest.BuildGo(t, storageGuest)
	pod := func(name string, containers ...string) string {
		return "---\napiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:\n  restartPolicy: OnFailure\n" +
			"  volumes:\n  - {name: v, emptyDir: {sizeLimit: 1Mi}}\n  - {name: m, emptyDir: {medium: Memory, sizeLimit: 2Mi}}\n  - {name: c, persistentVolumeClaim: {claimName: data}}\n" +
			"  containers:\n" + strings.Join(containers, "")
	}
	container := func(name, args, limits string) string {
		return "  - {name: " + name + ", image: " + module + ", args: [" + args + "], resources: {limits: {" + limits + "}}, volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}, {name: m, mountPath: /s, subPath: sub}, {name: c, mountPath: /c}]}\n"
	}
	const stay = `, sleep, "36000"`
	evictions := []struct {
		name       string
		containers []string
		message    string
	}{
		{"RES-30 emptyDir", []string{container("c", `/v/a, "2000000"`+stay, "")}, `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		{"RES-30 pod", []string{container("c", `/v/a, "600000"`+stay, "ephemeral-storage: 1Mi"), container("d", `/d, "900000"`+stay, "ephemeral-storage: 100Ki")},
			`Pod ephemeral local storage usage exceeds the total limit of containers 1124Ki. `},
		{"RES-30 container", []string{container("c", `/f, "900000"`+stay, "ephemeral-storage: 500Ki"), container("d", `sleep, "36000"`, "ephemeral-storage: 5Mi")},
			`Container c exceeded its local ephemeral storage limit "500Ki". `},
		{"RES-30 container, in memory", []string{container("c", `/f, "60000"`+stay, "ephemeral-storage: 50k"), container("d", `sleep, "36000"`, "ephemeral-storage: 5Mi")},
			`Container c exceeded its local ephemeral storage limit "50k". `},
		{"OOM-05 logs", []string{container("c", `log, "900000"`+stay, "ephemeral-storage: 500Ki"), container("d", `sleep, "36000"`, "ephemeral-storage: 5Mi")},
			`Container c exceeded its local ephemeral storage limit "500Ki". `},
		{"VOL-03 memory is not storage", []string{container("c", `/m/a, "1500000"`+stay, "ephemeral-storage: 500Ki")}, ""},
		{"VOL-41 a claim is not ephemeral storage", []string{container("c", `/c/large, "1500000"`+stay, "ephemeral-storage: 500Ki")}, ""},
		{"RES-30 within all limits", []string{container("c", `/v/a, "400000", /f, "100000", log, "50000"`+stay, "ephemeral-storage: 1Mi")}, ""},
	}
	yaml := "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n"
	counts := pod("count", container("c", "append, /c/count", ""))
	// One container fills the volume and then writes: beside another the two would race.
	all := yaml + counts + pod("memory", container("c", `exit-unless, /m/sub/kept`, ""), container("d", `/m/full, "3000000", /s/kept, "100000"`, ""))
	variable := func(name, volume string) string {
		return "{name: " + name + ", valueFrom: {fileKeyRef: {volumeName: " + volume + ", path: env, key: A}}}"
	}
	all += strings.Replace(pod("env", strings.Replace(container("c", "print-env, DISK, print-env, MEMORY", ""), "args:", "env: ["+variable("DISK", "v")+", "+variable("MEMORY", "m")+"], args:", 1)),
		"  containers:\n", "  initContainers:\n"+container("i", "env-file, /v/env, env-file, /m/env", "")+"  containers:\n", 1)
	for i, e := range evictions {
		all += pod(fmt.Sprintf("e%d", i), e.containers...)
	}
	data := dataDir(t)
	buildFiles(t, data, module)
	for name, source := range map[string]string{"image": "{reference: \"files:1\"}", "no-image": "{reference: \"other:1\", pullPolicy: Never}"} {
		all += "---\napiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:\n  restartPolicy: Never\n  volumes: [{name: i, image: " + source + "}]\n" +
			"  containers:\n  - {name: c, image: " + module + ", args: [append, /i/etc/text, append, /sub/text, log, \"16\"], volumeMounts: [{name: i, mountPath: /i}, {name: i, mountPath: /sub, subPath: etc}]}\n"
	}
	logs := storageRun(t, data, all, map[time.Duration]func(map[string]corev1.PodStatus){
		9 * time.Second: func(now map[string]corev1.PodStatus) {
			for i, e := range evictions {
				if s := now[fmt.Sprintf("e%d", i)]; s.Phase != corev1.PodRunning {
					t.Errorf("TIME-21: %s: after 9 s the pod is %s: %s %s", e.name, s.Phase, s.Reason, s.Message)
				}
			}
		},
		13 * time.Second: func(now map[string]corev1.PodStatus) {
			for i, e := range evictions {
				s := now[fmt.Sprintf("e%d", i)]
				switch {
				case e.message == "":
					if s.Phase != corev1.PodRunning {
						t.Errorf("%s: the pod is %s: %s %s", e.name, s.Phase, s.Reason, s.Message)
					}
				case s.Phase != corev1.PodFailed || s.Reason != "Evicted" || s.Message != e.message:
					t.Errorf("TIME-21: %s: after 13 s the pod is %s, %q, %q; want %q", e.name, s.Phase, s.Reason, s.Message, e.message)
				}
			}
		},
		20 * time.Second: func(now map[string]corev1.PodStatus) {
			// The first attempt may have come before the other container; the volume
			// is there for the next.
			if s := now["memory"]; s.Phase != corev1.PodSucceeded {
				t.Errorf("VOL-03: the pod is %s, %+v", s.Phase, s.ContainerStatuses)
			}
			if w := now["no-image"].ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ErrImageNeverPull" || !strings.Contains(w.Message, "other:1") {
				t.Errorf("VOL-40: the container waits for %+v", w)
			}
		},
	})
	if logs["env"] != "of the file\nof the file\n" {
		t.Errorf("ENV-06: %q", logs["env"])
	}
	if logs["memory"] != "full\n" {
		t.Errorf("VOL-03: the size was no limit: %q", logs["memory"])
	}
	// Twice the same, as nothing can be written.
	if logs["image"] != "before: 5 true\nbefore: 5 true\n0123456789abcde\n" {
		t.Errorf("VOL-40: %q", logs["image"])
	}
	if logs["count"] != "before: 0 false\n" {
		t.Errorf("VOL-41: %q", logs["count"])
	}
	logs = storageRun(t, data, yaml+counts, nil)
	if logs["count"] != "before: 1 true\n" {
		t.Errorf("VOL-41: the next run found %q", logs["count"])
	}
}

// buildFiles makes an image files:1 with a file /etc/text.
func buildFiles(t *testing.T, data, module string) {
	t.Helper()
	images, err := image.Open(image.Config{Root: filepath.Join(data, "images")})
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := image.BuildSpec{Refs: []string{"files:1"}, Module: module, Files: []image.File{{Host: text, Guest: "/etc/text"}}}
	if _, err := images.Build(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}
