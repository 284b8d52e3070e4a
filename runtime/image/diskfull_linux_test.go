package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestDiskFull: the disk becomes full while an image is pulled. The store is in a
// file system of 600 KiB, mounted by a child process in namespaces of its own.
func TestDiskFull(t *testing.T) {
	srv := startRegistry(t)
	srv.push(t, "big:v1", foreign{
		layers:   [][]byte{tarOf(t, record{name: "app.wasm", body: string(wasm("x"))}, record{name: "big", body: strings.Repeat("0123456789abcdef", 1<<16)})},
		config:   v1.Config{Entrypoint: []string{"/app.wasm"}},
		platform: &v1.Platform{OS: "wasi", Architecture: "wasm"}, mediaType: types.OCIUncompressedLayer,
	}.image(t))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "WASMPOD_TEST_FULL_DISK="+t.TempDir(), "WASMPOD_TEST_REF="+srv.host+"/big:v1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "no mount: "+syscall.EPERM.Error()) {
		t.Skipf("skipped: this host does not let a process mount a file system in a namespace of its own: %v %s", err, out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// fullDiskProcess is the child of TestDiskFull.
func fullDiskProcess(dir, ref string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=600k"); err != nil {
		return fmt.Errorf("no mount: %w", err)
	}
	s, err := Open(Config{Root: filepath.Join(dir, "images")})
	if err != nil {
		return err
	}
	_, err = s.Pull(context.Background(), ref, PullOptions{})
	var e *Error
	if !errors.As(err, &e) || e.Reason != ReasonErrImagePull || !strings.Contains(e.Message, "there is no space left where the image store is") {
		return fmt.Errorf("on a full disk: %v", err)
	}
	if _, ok, err := s.Present(ref); ok || err != nil {
		return fmt.Errorf("present on a full disk: %v, %v", ok, err)
	}
	if err := s.Verify(context.Background()); err != nil {
		return fmt.Errorf("the store after a full disk: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		return err
	}
	if _, err := s.Pull(context.Background(), ref, PullOptions{}); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	return s.Verify(context.Background())
}

func init() {
	if dir := os.Getenv("WASMPOD_TEST_FULL_DISK"); dir != "" {
		if err := fullDiskProcess(dir, os.Getenv("WASMPOD_TEST_REF")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}
