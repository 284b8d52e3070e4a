package inproc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/logs"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/volume"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// guestSource does what its arguments say.
const guestSource = `package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	for _, arg := range os.Args[1:] {
		verb, rest, _ := strings.Cut(arg, " ")
		switch verb {
		case "print":
			fmt.Println(rest)
		case "cat":
			b, err := os.ReadFile(rest)
			if err != nil {
				fmt.Println(err)
			}
			os.Stdout.Write(b)
		case "write":
			name, text, _ := strings.Cut(rest, " ")
			if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
				fmt.Println(err)
			}
		case "env":
			fmt.Println(os.Getenv(rest))
		case "pwd":
			fmt.Println(os.Getwd())
		case "sleep":
			d, _ := time.ParseDuration(rest)
			time.Sleep(d)
		case "spin":
			fmt.Println("spinning")
			for {
			}
		case "eat":
			var hog [][]byte
			for {
				b := make([]byte, 1<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				hog = append(hog, b)
			}
		case "panic":
			panic(rest)
		case "exit":
			var code int
			fmt.Sscan(rest, &code)
			os.Exit(code)
		}
	}
}
`

// node is what a driver works with, in a directory of the test's.
type node struct {
	*Driver
	dir     string
	module  string // path of the guest
	images  *image.Service
	volumes *volume.Manager

	mu  sync.Mutex
	out bytes.Buffer
}

func (n *node) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out.Write(p)
}

func (n *node) output() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out.String()
}

// shared is the engine of all tests, as it is that of all pods of a process. A
// bubble of synctest needs one of its own.
var shared = sync.OnceValues(func() (*wasm.Engine, error) { return newEngine() })

// codeCache keeps the guest's code between tests.
var codeCache string

func TestMain(m *testing.M) {
	var err error
	if codeCache, err = os.MkdirTemp("", "wasmpod-code-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(codeCache)
	os.Exit(code)
}

func newEngine() (*wasm.Engine, error) {
	return wasm.New(context.Background(), wasm.Config{
		CacheDir:    codeCache,
		Interpreter: raceEnabled, // the compiler is slow under the race detector
		Hosts:       []wasm.HostModule{wasip1.Instantiate},
		ImportName:  wasip1.ImportName,
	})
}

func newNode(t testing.TB, engine *wasm.Engine) *node {
	t.Helper()
	n := &node{dir: t.TempDir(), module: wasmtest.BuildGo(t, guestSource)}
	network, err := podnet.NewNetwork(podnet.Config{Prefix: netip.MustParsePrefix("127.128.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	if n.images, err = image.Open(image.Config{}); err != nil {
		t.Fatal(err)
	}
	n.volumes = volume.NewManager(volume.Config{
		Root: n.dir,
		ConfigMap: func(_, name string) (*corev1.ConfigMap, bool) {
			return &corev1.ConfigMap{Data: map[string]string{"key": "value of " + name}}, true
		},
	})
	n.Driver = New(Config{
		Engine: engine, Images: n.images, Volumes: n.volumes, Network: network,
		Root: filepath.Join(n.dir, "pods"), LogRoot: filepath.Join(n.dir, "logs"),
		ResolvConf: []byte("nameserver 192.0.2.53\n"), Log: slog.New(slog.DiscardHandler),
		Stdio: func(container.Config) Stdio { return Stdio{Stdout: n, Stderr: n} },
	})
	return n
}

func sharedNode(t *testing.T) *node {
	engine, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return newNode(t, engine)
}

func (n *node) pod(t testing.TB, edit func(*corev1.PodSpec), args ...string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: types.UID("uid-" + strings.ReplaceAll(t.Name(), "/", "-"))},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: n.module, Args: args}}},
	}
	if edit != nil {
		edit(&pod.Spec)
	}
	manifest.DefaultPod(pod)
	if errs := manifest.ValidatePod(pod); len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	if err := n.volumes.Mount(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func (n *node) sandbox(t testing.TB, pod *corev1.Pod) sandbox.Sandbox {
	t.Helper()
	s, err := n.Create(t.Context(), pod, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		if err := n.volumes.Unmount(pod.UID); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Join(n.dir, "pods")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return s
}

func (n *node) create(t testing.TB, s sandbox.Sandbox, pod *corev1.Pod) (sandbox.Container, error) {
	t.Helper()
	c := &pod.Spec.Containers[0]
	img, err := n.images.Resolve(t.Context(), c.Image, c.ImagePullPolicy)
	if err != nil {
		t.Fatal(err)
	}
	config, err := container.NewConfig(pod, c, container.Inputs{Image: img.Config, ImageRef: img.Ref, ImageID: img.ID, Module: img.Module, PodIP: s.IP()})
	if err != nil {
		t.Fatal(err)
	}
	return s.Create(t.Context(), config)
}

func (n *node) start(t testing.TB, s sandbox.Sandbox, pod *corev1.Pod) sandbox.Container {
	t.Helper()
	c, err := n.create(t, s, pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs the container of a pod to its end.
func (n *node) run(t *testing.T, edit func(*corev1.PodSpec), args ...string) (sandbox.ExitStatus, string) {
	t.Helper()
	pod := n.pod(t, edit, args...)
	c := n.start(t, n.sandbox(t, pod), pod)
	<-c.Done()
	return c.Status(), n.output()
}

func TestExitStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		args    []string
		want    sandbox.ExitStatus
		message string // is part of the termination message
	}{
		"STATE-03 Completed":      {[]string{"print hello"}, sandbox.ExitStatus{Code: 0, Reason: "Completed"}, ""},
		"STATE-03 Error":          {[]string{"exit 3"}, sandbox.ExitStatus{Code: 3, Reason: "Error"}, ""},
		"Go panic":                {[]string{"panic x"}, sandbox.ExitStatus{Code: 2, Reason: "Error"}, ""},
		"TMSG-02 message of file": {[]string{"write /dev/termination-log goodbye", "exit 1"}, sandbox.ExitStatus{Code: 1, Reason: "Error"}, "goodbye"},
	} {
		t.Run(name, func(t *testing.T) {
			got, out := sharedNode(t).run(t, nil, tt.args...)
			if got.Code != tt.want.Code || got.Reason != tt.want.Reason || !strings.Contains(got.Message, tt.message) {
				t.Errorf("%+v, want %+v with message %q; output:\n%s", got, tt.want, tt.message, out)
			}
		})
	}
}

// Whatever a guest leaves as its message, the status has text of bounded length.
func TestTMSG02HostileMessage(t *testing.T) {
	got, _ := sharedNode(t).run(t, nil, "write /dev/termination-log "+strings.Repeat("x", 9000)+strings.Repeat("\xff", 100)+"end", "exit 1")
	if n := len(got.Message); n > 4096 || !utf8.ValidString(got.Message) || !strings.HasSuffix(got.Message, "xx\ufffdend") {
		t.Errorf("%d bytes: %q", n, got.Message)
	}
}

// A module's names are as long as its author likes.
func TestLongErrorOfModule(t *testing.T) {
	n := sharedNode(t)
	n.module = filepath.Join(n.dir, "long.wasm")
	name := strings.Repeat("n", 100_000)
	text := func(s string) []byte { return append(binary.AppendUvarint(nil, uint64(len(s))), s...) }
	imports := append([]byte{1}, slices.Concat(text("m"), text(name), []byte{0, 0})...)
	module := slices.Concat([]byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02"), text(string(imports)))
	if err := os.WriteFile(n.module, module, 0o644); err != nil {
		t.Fatal(err)
	}
	pod := n.pod(t, nil)
	_, err := n.create(t, n.sandbox(t, pod), pod)
	if err == nil || !strings.Contains(err.Error(), "module imports m.nnn") || len(err.Error()) > 2000 {
		t.Errorf("error %.200v", err)
	}
}

// gone is a terminal that was closed.
type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestNobodyLooksOn(t *testing.T) {
	n := sharedNode(t)
	n.cfg.Stdio = func(container.Config) Stdio { return Stdio{Stdout: gone{}, Stderr: n} }
	pod := n.pod(t, nil, "print one", "print two")
	c := n.start(t, n.sandbox(t, pod), pod)
	<-c.Done()
	b, err := os.ReadFile(logs.Path(filepath.Join(n.dir, "logs"), "ns", "pod", string(pod.UID), "c", 0))
	if err != nil || c.Status().Code != 0 || strings.Count(string(b), "\n") != 2 {
		t.Errorf("%+v, log %q, %v", c.Status(), b, err)
	}
}

func TestTMSG03FallbackToLogs(t *testing.T) {
	got, _ := sharedNode(t).run(t, func(s *corev1.PodSpec) {
		s.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}, "print one", "print two", "exit 1")
	if got.Message != "one\ntwo\n" {
		t.Errorf("message %q", got.Message)
	}
}

func TestFilesVOL43(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := sharedNode(t)
	got, out := n.run(t, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}},
			{Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}},
		}
		s.Containers[0].WorkingDir = "/work"
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{
			{Name: "scratch", MountPath: "/data"},
			{Name: "scratch", MountPath: "/part", SubPath: "a/b"},
			{Name: "host", MountPath: "/host", ReadOnly: true},
			{Name: "host", MountPath: "/one", SubPath: "f"},
			{Name: "cm", MountPath: "/cm"},
			{Name: "cm", MountPath: "/etc/key", SubPath: "key"},
		}
	},
		"pwd", "env HOSTNAME", "cat /etc/hostname", "cat /etc/resolv.conf",
		"write /part/x through subPath\n", "cat /data/a/b/x",
		"cat /host/f", "cat /one", "write /host/new x",
		"cat /cm/key", "print ", "cat /etc/key", "print ", "write /cm/key x",
		"write /own private\n", "cat /own", "cat /dev/null", "write /dev/stdout to stdout\n",
		"cat /etc/hosts")
	want := `/work <nil>
pod
pod
nameserver 192.0.2.53
through subPath
of the host
of the host
open /host/new: Read-only file system
value of cm
value of cm
open /cm/key: Read-only file system
private
to stdout
`
	hosts, ok := strings.CutPrefix(out, want)
	if got.Code != 0 || !ok {
		t.Errorf("%+v, output:\n%s\nwant:\n%s", got, out, want)
	}
	if !strings.Contains(hosts, "127.128.0.1\tpod") {
		t.Errorf("NET-03: hosts file %q", hosts)
	}
}

func TestSEC02ReadOnlyRoot(t *testing.T) {
	yes := true
	_, out := sharedNode(t).run(t, func(s *corev1.PodSpec) {
		s.Containers[0].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
	}, "write /x x", "write /etc/hosts x", "write /dev/termination-log fine", "cat /dev/termination-log")
	if want := "open /x: Read-only file system\nopen /etc/hosts: Read-only file system\nfine"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
}

func TestVOL30SubPathEscape(t *testing.T) {
	n := sharedNode(t)
	pod := n.pod(t, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/m", SubPath: "link"}}
	}, "cat /m/passwd")
	s := n.sandbox(t, pod)
	dir, _ := n.volumes.Path(pod.UID, "v")
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, err := n.create(t, s, pod)
	if want := `failed to prepare subPath for volumeMount "v" of container "c"`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// The kill of a guest that never calls the host. There is no bound on the time
// here: a kill that does not work ends the test by its timeout.
func TestStopSpinning(t *testing.T) {
	for name, stop := range map[string]func(sandbox.Container){
		"DEL-08 stop signal": func(c sandbox.Container) { c.Signal(15) },
		"kill":               func(c sandbox.Container) { c.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			n := sharedNode(t)
			pod := n.pod(t, nil, "spin")
			s := n.sandbox(t, pod)
			c := n.start(t, s, pod)
			stop(c)
			<-c.Done()
			want := map[bool]int32{true: 137, false: 143}[name == "kill"]
			if got := c.Status(); got.Code != want || got.Reason != "Error" {
				t.Errorf("%+v, want exit code %d", got, want)
			}
		})
	}
}

func TestOOM06MemoryLimit(t *testing.T) {
	got, out := sharedNode(t).run(t, func(s *corev1.PodSpec) {
		s.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	}, "eat")
	if got.Code != 137 || got.Reason != "OOMKilled" {
		t.Errorf("%+v, output:\n%s", got, out)
	}
}

func TestRemoveKillsWhatRuns(t *testing.T) {
	n := sharedNode(t)
	pod := n.pod(t, nil, "spin")
	s := n.sandbox(t, pod)
	running := n.start(t, s, pod)
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-running.Done()
	<-s.Done()
	if _, err := n.create(t, s, pod); err == nil {
		t.Error("a container was created in a sandbox that is gone")
	}
}

func TestKillBeforeStart(t *testing.T) {
	n := sharedNode(t)
	pod := n.pod(t, nil)
	c, err := n.create(t, n.sandbox(t, pod), pod)
	if err != nil {
		t.Fatal(err)
	}
	c.Kill()
	<-c.Done()
	if err := c.Start(t.Context()); err == nil {
		t.Error("a container that was killed has started")
	}
}

func TestBrokenModule(t *testing.T) {
	n := sharedNode(t)
	n.module = filepath.Join(n.dir, "broken.wasm")
	if err := os.WriteFile(n.module, []byte("\x00asm\x01\x00\x00\x00\x07"), 0o644); err != nil {
		t.Fatal(err)
	}
	pod := n.pod(t, nil)
	_, err := n.create(t, n.sandbox(t, pod), pod)
	var imageErr *sandbox.ImageError
	if !errors.As(err, &imageErr) {
		t.Errorf("error %T %v, want a *sandbox.ImageError", err, err)
	}
}

// A guest's clock is the bubble's: an hour of sleep takes no time, and the
// infra module, which waits for ever, does not move the clock.
func TestFakeTime(t *testing.T) {
	wasmtest.BuildGo(t, guestSource) // outside: it runs processes
	synctest.Test(t, func(t *testing.T) {
		engine, err := newEngine()
		if err != nil {
			t.Fatal(err)
		}
		defer engine.Close(context.Background())
		n := newNode(t, engine)
		begin := time.Now()
		pod := n.pod(t, nil, "sleep 1h", "print awake", "sleep 1000h")
		s, err := n.Create(t.Context(), pod, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := n.start(t, s, pod)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := n.output(); got != "awake\n" {
			t.Errorf("after two hours the guest has said %q", got)
		}
		c.Signal(15)
		<-c.Done()
		if got := c.Status(); got.Code != 143 {
			t.Errorf("%+v, want exit code 143", got)
		}
		if err := s.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 2*time.Hour {
			t.Errorf("took %v of the bubble's time", took)
		}
	})
}

func TestLogFile(t *testing.T) {
	n := sharedNode(t)
	pod := n.pod(t, nil, "print logged")
	c := n.start(t, n.sandbox(t, pod), pod)
	<-c.Done()
	b, err := os.ReadFile(logs.Path(filepath.Join(n.dir, "logs"), "ns", "pod", string(pod.UID), "c", 0))
	if err != nil || !strings.HasSuffix(string(b), " stdout F logged\n") {
		t.Errorf("LOG-01, LOG-02: %q, %v", b, err)
	}
}
