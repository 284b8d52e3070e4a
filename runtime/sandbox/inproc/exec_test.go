package inproc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// command runs a command in a container and returns its code and output.
func command(t *testing.T, c sandbox.Container, args ...string) (int32, string, error) {
	t.Helper()
	var out bytes.Buffer
	code, err := c.Exec(t.Context(), sandbox.ExecConfig{Command: args, Stdout: &out, Stderr: &out, Prompt: true})
	return code, out.String(), err
}

// What a namespace's modules may import goes for commands, too.
func TestExecOfWhatMayNotBeImported(t *testing.T) {
	n := sharedNode(t)
	pod, _, c := sleeping(t, n)
	dir, _ := n.volumes.Path(pod.UID, "v")
	module, err := os.ReadFile(n.module)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/tool.wasm", module, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ allowed, want string }{
		{"ns=wasi_snapshot_preview1.*", ""},
		{"other=-", ""},
		{"ns=wasi_snapshot_preview1.fd_*", `exec /data/tool.wasm: its module imports wasi_snapshot_preview1.args_get, `},
	} {
		policy, err := image.ParseImportPolicy([]string{tt.allowed})
		if err != nil {
			t.Fatal(err)
		}
		images, err := image.Open(image.Config{Imports: policy})
		if err != nil {
			t.Fatal(err)
		}
		g := c.(*guest)
		g.programs.release()
		g.sandbox.cfg.Images = images
		_, _, err = command(t, c, "/data/tool.wasm", "print hi")
		var execErr *sandbox.ExecError
		if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &execErr) || execErr.Code != 126 || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.allowed, err, tt.want)
		}
	}
}

// sleeping is a pod whose container sleeps, with an emptyDir at /data.
func sleeping(t *testing.T, n *node) (*corev1.Pod, sandbox.Sandbox, sandbox.Container) {
	t.Helper()
	pod := n.pod(t, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/data"}}
		s.Containers[0].WorkingDir = "/data"
		s.Containers[0].Env = []corev1.EnvVar{{Name: "X", Value: "of the container"}}
	}, "sleep 1000h")
	s := n.sandbox(t, pod)
	return pod, s, n.start(t, s, pod)
}

func TestExec(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after the sandbox's removal
	n := sharedNode(t)
	pod, _, c := sleeping(t, n)
	own := "/" + n.module[strings.LastIndex(n.module, "/")+1:]
	dir, _ := n.volumes.Path(pod.UID, "v")
	module, err := os.ReadFile(n.module)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"tool.wasm": module, "text": []byte("no program"), "script": []byte("#!/data/tool.wasm print of the script\n"),
		"loop": []byte("#!/data/loop\n"), "broken": []byte("\x00asm\x01\x00\x00\x00\x07"),
	} {
		if err := os.WriteFile(dir+"/"+name, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		command []string
		code    int32
		out     string
		err     string
	}{
		"EXEC-02 exit code":                 {[]string{own, "exit 3"}, 3, "", ""},
		"EXEC-07 environment":               {[]string{own, "env X"}, 0, "of the container\n", ""},
		"EXEC-07 working directory":         {[]string{own, "pwd"}, 0, "/data <nil>\n", ""},
		"EXEC-07 hostname":                  {[]string{own, "cat /etc/hostname"}, 0, "pod\n", ""},
		"EXEC-07 same files":                {[]string{own, "write /data/f text", "cat /data/f"}, 0, "text", ""},
		"module in a volume":                {[]string{"/data/tool.wasm", "print hi"}, 0, "hi\n", ""},
		"module by relative path":           {[]string{"./tool.wasm", "print hi"}, 0, "hi\n", ""},
		"script":                            {[]string{"/data/script"}, 0, "of the script\n", ""},
		"127 not in PATH":                   {[]string{"foo"}, 127, "", `exec: "foo": executable file not found in $PATH`},
		"127 no such path":                  {[]string{"/bin/foo"}, 127, "", `exec: "/bin/foo": stat /bin/foo: no such file or directory`},
		"126 directory":                     {[]string{"/data"}, 126, "", `exec: "/data": permission denied`},
		"126 no program":                    {[]string{"/data/text"}, 126, "", "exec /data/text: exec format error"},
		"126 script that interprets itself": {[]string{"/data/loop"}, 126, "", "too many levels"},
		"126 broken module":                 {[]string{"/data/broken"}, 126, "", "exec /data/broken: "},
		"no command":                        {nil, 127, "", "no command specified"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, err := command(t, c, tt.command...)
			if tt.err != "" {
				var execErr *sandbox.ExecError
				if !errors.As(err, &execErr) || execErr.Code != tt.code || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %d and %q", err, tt.code, tt.err)
				}
				return
			}
			if err != nil || code != tt.code || out != tt.out {
				t.Errorf("%d %q %v, want %d %q", code, out, err, tt.code, tt.out)
			}
		})
	}
}

// stdinGuest copies its input to both outputs.
const stdinGuest = `package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println("out", in.Text())
		fmt.Fprintln(os.Stderr, "err", in.Text())
	}
	fmt.Println("end")
}
`

func TestExecStreams(t *testing.T) {
	n := sharedNode(t)
	n.module = wasmtest.BuildGo(t, stdinGuest)
	pod := n.pod(t, func(s *corev1.PodSpec) { s.Containers[0].Stdin, s.Containers[0].StdinOnce = true, true })
	c := n.start(t, n.sandbox(t, pod), pod)
	own := n.module[strings.LastIndex(n.module, "/")+1:]
	for _, tty := range []bool{false, true} {
		var stdout, stderr bytes.Buffer
		code, err := c.Exec(t.Context(), sandbox.ExecConfig{Command: []string{own}, Stdin: strings.NewReader("one\ntwo\n"), Stdout: &stdout, Stderr: &stderr, TTY: tty, Resize: make(chan sandbox.TerminalSize)})
		if err != nil || code != 0 {
			t.Fatalf("%d %v", code, err)
		}
		wantOut, wantErr := "out one\nout two\nend\n", "err one\nerr two\n"
		if tty {
			wantOut, wantErr = "out one\nerr one\nout two\nerr two\nend\n", ""
		}
		if stdout.String() != wantOut || stderr.String() != wantErr {
			t.Errorf("TTY %v: stdout %q, stderr %q", tty, &stdout, &stderr)
		}
	}
	t.Run("EXEC-04 attach, stdinOnce", func(t *testing.T) {
		in, feed := io.Pipe()
		out, see := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := c.Attach(t.Context(), sandbox.AttachConfig{Stdin: in, Stdout: see})
			see.Close()
			ended <- err
		}()
		io.WriteString(feed, "three\n")
		line := make([]byte, len("out three\n"))
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "out three\n" {
			t.Errorf("%q %v", line, err)
		}
		feed.Close()
		rest, _ := io.ReadAll(out)
		if err := <-ended; err != nil || string(rest) != "end\n" {
			t.Errorf("%q %v", rest, err)
		}
		<-c.Done()
		if _, err := c.Exec(t.Context(), sandbox.ExecConfig{Command: []string{own}}); !errors.Is(err, sandbox.ErrNotRunning) {
			t.Errorf("EXEC-01: %v", err)
		}
		if err := c.Attach(t.Context(), sandbox.AttachConfig{}); !errors.Is(err, sandbox.ErrNotRunning) {
			t.Errorf("EXEC-01: %v", err)
		}
	})
}

// said is closed when something is written.
type said chan struct{}

func (s said) Write(p []byte) (int, error) {
	select {
	case <-s:
	default:
		close(s)
	}
	return len(p), nil
}

func TestExecIsKilled(t *testing.T) {
	for name, stop := range map[string]struct {
		by   func(cancel func(), c sandbox.Container, s sandbox.Sandbox)
		want error
	}{
		"by its context":           {func(cancel func(), _ sandbox.Container, _ sandbox.Sandbox) { cancel() }, context.Canceled},
		"by the container's end":   {func(_ func(), c sandbox.Container, _ sandbox.Sandbox) { c.Kill() }, nil},
		"by the sandbox's removal": {func(_ func(), _ sandbox.Container, s sandbox.Sandbox) { _ = s.Remove(context.Background()) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := sharedNode(t)
			_, s, c := sleeping(t, n)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			started := make(said)
			ended := make(chan error, 1)
			var code int32
			go func() {
				var err error
				code, err = c.Exec(ctx, sandbox.ExecConfig{Command: []string{n.module[strings.LastIndex(n.module, "/")+1:], "spin"}, Stdout: started})
				ended <- err
			}()
			<-started
			stop.by(cancel, c, s)
			if err := <-ended; !errors.Is(err, stop.want) || code != 137 {
				t.Errorf("%d %v", code, err)
			}
		})
	}
}

func TestExecIsBounded(t *testing.T) {
	n := sharedNode(t)
	_, _, c := sleeping(t, n)
	g := c.(*guest)
	for range maxCommands {
		if _, err := g.commands.begin(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := command(t, c, "foo"); !errors.Is(err, errTooManyCommands) {
		t.Errorf("error %v", err)
	}
	for range maxCommands {
		g.commands.end()
	}
}

func TestUpdateLimits(t *testing.T) {
	n := sharedNode(t)
	_, _, c := sleeping(t, n)
	own := n.module[strings.LastIndex(n.module, "/")+1:]
	if err := c.Update(container.Limits{MemoryBytes: 64 << 20, CPUShares: 2}); err != nil {
		t.Fatal(err)
	}
	for c.Usage().MemoryBytes < 1<<16 { // it has not been instantiated yet
		runtime.Gosched()
	}
	var refused *sandbox.ResizeError
	if err := c.Update(container.Limits{MemoryBytes: 1 << 16}); !errors.As(err, &refused) || !strings.Contains(err.Error(), `attempting to set container "c" memory limit (65536) below current usage (`) {
		t.Errorf("error %v", err)
	}
	// It takes the container with it (OOM-03).
	if code, _, err := command(t, c, own, "eat"); code != 137 || err != nil {
		t.Errorf("a command beyond the limit: %d %v", code, err)
	}
	<-c.Done()
	if err := c.Update(container.Limits{}); !errors.Is(err, sandbox.ErrNotRunning) {
		t.Errorf("error %v", err)
	}
}

// The limit of a container that is under way can be raised past what it began
// with.
func TestUpdateRaisesLimit(t *testing.T) {
	n := sharedNode(t)
	n.module = wasmtest.BuildGo(t, `package main

import (
	"bufio"
	"fmt"
	"os"
)

var hog [][]byte

func main() {
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	for range 100 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		hog = append(hog, b)
	}
}
`)
	pod := n.pod(t, func(s *corev1.PodSpec) {
		s.Containers[0].Stdin = true
		s.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
	})
	c := n.start(t, n.sandbox(t, pod), pod)
	if err := c.Update(container.Limits{MemoryBytes: 512 << 20}); err != nil {
		t.Fatal(err)
	}
	go c.Attach(t.Context(), sandbox.AttachConfig{Stdin: strings.NewReader("go\n")})
	<-c.Done()
	if s := c.Status(); s.Code != 0 {
		t.Errorf("%+v", s)
	}
}

func TestDialNobody(t *testing.T) {
	n := sharedNode(t)
	_, s, _ := sleeping(t, n)
	_, err := s.DialContext(t.Context(), "tcp", s.IP()+":80")
	if want := "dial tcp " + s.IP() + ":80: connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// BenchmarkExecProbe is an exec probe of a small C guest.
func BenchmarkExecProbe(b *testing.B) {
	module := wasmtest.BuildC(b, "#include <unistd.h>\nint main(int argc, char **argv) { if (argc == 1) sleep(1000000); return 0; }\n")
	engine, err := shared()
	if err != nil {
		b.Fatal(err)
	}
	n := newNode(b, engine)
	n.module = module
	pod := n.pod(b, nil)
	c := n.start(b, n.sandbox(b, pod), pod)
	config := sandbox.ExecConfig{Command: []string{module[strings.LastIndex(module, "/"):], "x"}, Stdout: io.Discard, Stderr: io.Discard, Prompt: true}
	b.ReportAllocs()
	for b.Loop() {
		if code, err := c.Exec(b.Context(), config); code != 0 || err != nil {
			b.Fatal(code, err)
		}
	}
}

func TestCommandExceedsMemory(t *testing.T) {
	t.Run("OOM-03 OOM-01 a command that exceeds the limit ends the container with it", func(t *testing.T) {
		n := sharedNode(t)
		pod := n.pod(t, func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
		}, "sleep 1000h")
		c := n.start(t, n.sandbox(t, pod), pod)
		own := "/" + n.module[strings.LastIndex(n.module, "/")+1:]
		if code, _, err := command(t, c, own, "eat"); code != 137 || err != nil {
			t.Errorf("the command: %d, %v", code, err)
		}
		<-c.Done()
		if got := c.Status(); got.Code != 137 || got.Reason != "OOMKilled" || !strings.Contains(got.Message, "memory limit of") {
			t.Errorf("the container: %+v", got)
		}
	})
}
