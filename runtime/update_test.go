package runtime

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// shows prints what is in a file whenever that has changed, and its environment
// once.
const shows = `package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	fmt.Println("env", os.Getenv("KEY"))
	last := ""
	for {
		b, err := os.ReadFile("/etc/app/key")
		now := string(b)
		if err != nil {
			now = "none"
		}
		if now != last {
			fmt.Println("file", now)
			last = now
		}
		if now == "end" {
			return
		}
		time.Sleep(time.Second)
	}
}
`

const updated = `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  volumes: [{name: config, configMap: {name: app, optional: true}}]
  containers:
  - name: c
    image: GUEST
    env: [{name: KEY, valueFrom: {configMapKeyRef: {name: app, key: key, optional: true}}}]
    volumeMounts: [{name: config, mountPath: /etc/app}]
`

func configMap(value, more string) string {
	return "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\n" + more + "data: {key: " + value + "}\n"
}

func TestUpdate(t *testing.T) {
	module := wasmtest.BuildGo(t, shows)
	parse := func(yaml string) *manifest.Objects {
		o, err := manifest.Parse("default", manifest.Source{Name: "m", Data: []byte(strings.ReplaceAll(yaml, "GUEST", module))})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	synctest.Test(t, func(t *testing.T) {
		out := new(output)
		r, err := Open(t.Context(), Config{
			DataDir: dataDir(t), Interpreter: raceEnabled,
			Stdio: func(container.Config) Stdio { return Stdio{Stdout: out, Stderr: out} },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Apply(parse(updated)); err != nil {
			t.Fatal(err)
		}
		update := func(yaml, want string) {
			t.Helper()
			time.Sleep(10 * time.Second)
			changed, err := r.Update(t.Context(), parse(updated+yaml))
			got := strings.Join(changed, " ")
			if err != nil {
				got += err.Error()
			}
			if got != want {
				t.Errorf("Update: %q, want %q", got, want)
			}
			time.Sleep(10 * time.Second)
		}
		time.Sleep(10 * time.Second)
		if err := r.Apply(parse(configMap("zero", ""))); err != nil { // VOL-13: filled when it appears
			t.Fatal(err)
		}
		update(configMap("one", ""), "configmap/app")
		update(configMap("one", ""), "")
		update(configMap("two", ""), "configmap/app")
		update("", "") // what is not listed stays
		update(configMap("end", "immutable: true\n"), "configmap/app")
		update(configMap("more", "immutable: true\n"), "configmap \"app\": data: Forbidden: field is immutable when `immutable` is set")
		if err := r.Wait(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		// ENV-08: the environment is that of the start.
		if want := "env \nfile none\nfile zero\nfile one\nfile two\nfile end\n"; out.String() != want {
			t.Errorf("the guest has seen\n%s\nwant\n%s", out, want)
		}
	})
}
