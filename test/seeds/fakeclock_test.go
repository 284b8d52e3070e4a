package seeds

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/podtest"
)

// The seeds with timelines, unchanged, in the fake time of a bubble: what takes
// minutes takes as long as the guests compute, and happens to the second.
func TestSeedsInFakeTime(t *testing.T) {
	if !*run {
		t.Skip("skipped: run by make test-seeds, which builds the guests")
	}
	for _, s := range []struct {
		seed  string
		check func(t *testing.T, p *podtest.Pods)
	}{
		{"04-lifecycle-demo", func(t *testing.T, p *podtest.Pods) {
			pod := p.Get("lifecycle-demo")
			pod.WaitReady()
			if code, out := pod.Exec("lifecycle-demo-container", "/bin/sh", "-c", "cat /usr/share/message"); code != 0 || out != "hello from the postStart handler\n" {
				t.Errorf("the postStart hook: %d, %q", code, out)
			}
			begin := time.Now()
			pod.Delete()
			if took := time.Since(begin); took >= 30*time.Second {
				t.Errorf("the preStop hook did not end it: %v", took)
			}
			if log := pod.Logs("lifecycle-demo-container"); !strings.Contains(log, "signal quit received") {
				t.Errorf("log %q", log)
			}
			expect(t, p, 0, "0 Started", "0 Killing")
		}},
		{"05-liveness-exec", func(t *testing.T, p *podtest.Pods) {
			time.Sleep(time.Minute)
			// The file goes at 30 s, and so comes a tick: either may be first.
			expect(t, p, 5, "0 Started", "35 Unhealthy", "40 Unhealthy", "45 Unhealthy", "45 Killing", "45 Started")
		}},
		{"06-liveness-httpget", exitsInFakeTime},
		{"07-liveness-tcpsocket", exitsInFakeTime},
		{"11-liveness-http", func(t *testing.T, p *podtest.Pods) {
			time.Sleep(119 * time.Second)
			expect(t, p, 0, "0 Started", "20 Unhealthy", "30 Unhealthy", "40 Unhealthy", "40 Killing", "40 Started",
				"60 Unhealthy", "70 Unhealthy", "80 Unhealthy", "80 Killing", "80 Started", "100 Unhealthy", "110 Unhealthy")
		}},
		{"12-myapp-pod-initcontainers", func(t *testing.T, p *podtest.Pods) {
			pod := p.Get("myapp-pod")
			time.Sleep(time.Minute)
			if n := strings.Count(pod.Logs("init-myservice"), "waiting for myservice"); n < 20 || n > 31 {
				t.Errorf("waited %d times in a minute, want every other second", n)
			}
			p.Apply(fmt.Sprintf(initServices, "myservice"))
			time.Sleep(time.Minute)
			p.Apply(fmt.Sprintf(initServices, "mydb"))
			pod.WaitReady()
			time.Sleep(time.Second)
			if log := pod.Logs("myapp-container"); log != "The app is running!\n" {
				t.Errorf("log %q", log)
			}
			expect(t, p, 2, "0 Started", "60 Started", "120 Started") // it looks every other second
		}},
	} {
		t.Run(s.seed, func(t *testing.T) {
			manifest, err := os.ReadFile(filepath.Join(manifests, s.seed+".fixed.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			synctest.Test(t, func(t *testing.T) { s.check(t, podtest.Run(t, manifest, images(t)...)) })
			t.Logf("in %v", time.Since(begin).Round(time.Millisecond))
		})
	}
}

// exitsInFakeTime is the ladder of RST-03.
func exitsInFakeTime(t *testing.T, p *podtest.Pods) {
	time.Sleep(20 * time.Minute)
	var want []string
	at := 0
	for _, delay := range []int{0, 0, 10, 20, 40, 80, 160, 300, 300} {
		at += delay
		want = append(want, strconv.Itoa(at)+" Started")
	}
	expect(t, p, 0, want...)
}

// images are those of these seeds.
func images(t *testing.T) (options []podtest.Option) {
	bin := func(name string) string {
		file, err := filepath.Abs(filepath.Join(manifests, "..", "bin", name+".wasm"))
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	add := func(ref, module string, cmd []string, files ...image.File) {
		options = append(options, podtest.Build(image.BuildSpec{Refs: []string{ref}, Module: bin(module), Cmd: cmd, Files: files}))
	}
	add("busybox", "busybox", []string{"sh"})
	add("busybox:1.28", "busybox", nil)
	add("k8s.gcr.io/liveness", "liveness", nil)
	html := filepath.Join(manifests, "..", "fileserver", "html", "index.html")
	add("nginx", "fileserver", nil, image.File{Host: html, Guest: "/usr/share/nginx/html/index.html"},
		image.File{Host: bin("busybox"), Guest: "/bin/sh"}, image.File{Host: bin("fileserver"), Guest: "/usr/sbin/nginx"})
	return options
}

// expect compares when the events came whose reasons are in want, in "SECONDS
// REASON" from the start of the first container, give or take some seconds.
func expect(t *testing.T, p *podtest.Pods, tolerance float64, want ...string) {
	t.Helper()
	split := func(s string) (seconds float64, reason string) {
		if _, err := fmt.Sscan(s, &seconds, &reason); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return seconds, reason
	}
	reasons := make(map[string]bool)
	for _, w := range want {
		_, reason := split(w)
		reasons[reason] = true
	}
	var got []string
	var first time.Duration
	for line := range strings.Lines(p.Timeline()) {
		fields := strings.Fields(line)
		at, err := time.ParseDuration(fields[0])
		if err != nil || !reasons[fields[2]] {
			continue
		}
		if len(got) == 0 {
			first = at
		}
		got = append(got, fmt.Sprintf("%v %s", (at-first).Round(time.Second).Seconds(), fields[2]))
	}
	same := slices.EqualFunc(got, want, func(got, want string) bool {
		at, reason := split(got)
		wantAt, wantReason := split(want)
		return reason == wantReason && math.Abs(at-wantAt) <= tolerance
	})
	if !same {
		t.Errorf("events\n%s\nwant\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), p.Timeline())
	}
}
