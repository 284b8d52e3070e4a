package clients

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something to come up, compiling included.
const patience = 3 * time.Minute

// startPods runs the pods, and returns their IPs when all of them answer.
func startPods(t *testing.T, manifest string) (ips map[string]string) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pods.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs(*wasmpod)
	if err != nil {
		t.Fatal(err)
	}
	data := dir
	if cache, err := os.UserCacheDir(); err == nil {
		data = filepath.Join(cache, "wasmpod-seeds") // has some of the modules compiled
	}
	// The upstream of the proxy is on the host's loopback, which has to be allowed.
	upstream := netip.MustParseAddrPort(nginxAt)
	egress := fmt.Sprintf("%s/32:%d", upstream.Addr(), upstream.Port())
	cmd := exec.Command(bin, "run", "--data-dir", data, "--egress", egress, "--log-level", "info", file)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	count := strings.Count(manifest, "kind: Pod")
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case lines <- s.Text():
			default: // what nobody reads any more
			}
		}
	}()
	t.Cleanup(func() {
		begin := time.Now()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		t.Logf("the pods ended %v after SIGTERM: %v", time.Since(begin).Round(time.Millisecond), err)
	})
	ips = make(map[string]string)
	started := 0
	tooLate := time.After(patience)
	for started < count {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatal("wasmpod has ended")
			}
			words := strings.Fields(line)
			switch {
			case strings.Contains(line, "compiling"):
			case strings.Contains(line, " has IP "):
				ips[strings.TrimPrefix(words[1], "pod/")] = strings.TrimSuffix(words[4], ",")
			case strings.HasSuffix(line, "/main started"):
				started++
			default:
				t.Log(line)
			}
		case <-tooLate:
			t.Fatal("the pods do not start")
		}
	}
	for pod, ip := range ips {
		switch pod {
		case "proxy":
			awaitServer(t, proxyAt)
		case "redis":
			awaitServer(t, net.JoinHostPort(ip, "6379"))
		default:
			awaitServer(t, net.JoinHostPort(ip, "8080"))
		}
	}
	return ips
}

// awaitServer waits until something accepts connections.
func awaitServer(t *testing.T, at string) {
	t.Helper()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	tooLate := time.After(patience)
	for {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-retry.C:
		case <-tooLate:
			t.Fatalf("%s: %v", at, err)
		}
	}
}

// startNginx starts Debian's nginx with a configuration of its own.
func startNginx(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("served by nginx\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
worker_processes 1;
%[3]s
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server { listen %[2]s; root %[1]s; keepalive_requests 100000000; }
}
`, dir, nginxAt, asRoot())
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	path, err := find("nginx")
	if err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command(path, "-c", file, "-p", dir, "-e", filepath.Join(dir, "error.log")))
	awaitServer(t, nginxAt)
}

// asRoot keeps the workers of a root's nginx root, who can read the test's files.
func asRoot() string {
	if os.Geteuid() == 0 {
		return "user root;"
	}
	return ""
}

// startNative starts a native program; what is returned waits for it at an
// address.
func startNative(t *testing.T, program string, args ...string) func(at string) string {
	start(t, exec.Command(program, args...))
	return func(at string) string {
		awaitServer(t, at)
		return at
	}
}

// start starts a process that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // by the signal
		timer.Stop()
	})
}

// build builds a program in the folder of the examples: OUT stands for where it
// goes.
func build(t *testing.T, name string, args ...string) string {
	out := filepath.Join(t.TempDir(), "program")
	for i, a := range args {
		if a == "OUT" {
			args[i] = out
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = examples
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, text)
	}
	return out
}
