package cni

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// missing skips a test that root cannot run here, unless CI promised what it needs.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// open returns a Network of the ptp plugin, or skips where there can be none.
func open(t *testing.T) *Network {
	t.Helper()
	bin := ""
	for _, dir := range DefaultBinDirs {
		if _, err := os.Stat(filepath.Join(dir, "ptp")); err == nil {
			bin = dir
		}
	}
	switch {
	case os.Geteuid() != 0:
		t.Skip("network namespaces need root")
	case bin == "":
		missing(t, "there is no ptp plugin (apt-get install containernetworking-plugins)")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	if err := os.Mkdir(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	// ptp connects every pod by a pair of interfaces of its own, in a range for
	// documentation.
	text := []byte(`{"cniVersion": "1.0.0", "name": "wasmpod-test", "plugins": [{"type": "ptp", "ipMasq": false,
		"ipam": {"type": "host-local", "dataDir": "` + filepath.Join(dir, "ipam") + `", "ranges": [[{"subnet": "198.51.100.0/28"}]]}}]}`)
	if err := os.WriteFile(filepath.Join(conf, "10-test.conflist"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := Open(t.Context(), Config{ConfDir: conf, BinDirs: []string{bin}, StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLink(t *testing.T) {
	n := open(t)
	l, err := n.Add(t.Context(), Pod{ID: "pod-1", Namespace: "default", Name: "p", UID: "u"})
	if errors.Is(err, unix.EPERM) {
		t.Skipf("this host does not let root make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(t.Context())
	if len(l.IPs()) != 1 || !netip.MustParsePrefix("198.51.100.0/28").Contains(l.IPs()[0]) {
		t.Fatalf("NET-06 the pod has %v", l.IPs())
	}
	at := netip.AddrPortFrom(l.IPs()[0], 8080).String()
	var listener net.Listener
	err = l.Do(t.Context(), func() (err error) {
		listener, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		t.Fatalf("listen in the namespace: %v", err)
	}
	if other, err := net.Listen("tcp", at); err == nil {
		other.Close()
		t.Error("the pod's IP is the host's own")
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatalf("from the host: %v", err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "198.51.100.1" {
		t.Errorf("the pod sees %q, %v; want the host's end, 198.51.100.1", b, err)
	}
	c.Close()
	listener.Close()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Do(t.Context(), func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if left, err := os.ReadDir(n.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What a process that was killed has left is removed by the next.
func TestPrune(t *testing.T) {
	n := open(t)
	l, err := n.Add(t.Context(), Pod{ID: "pod-2", Namespace: "default", Name: "p", UID: "u"})
	if errors.Is(err, unix.EPERM) {
		t.Skipf("this host does not let root make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(t.Context())
	const nobody = "999999999" // beyond the highest process id
	dead := filepath.Join(n.dir, nobody+".pod-3")
	if err := os.WriteFile(dead, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := n.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(n.path("pod-2")); err != nil {
		t.Errorf("that of a process that lives: %v", err)
	}
}
