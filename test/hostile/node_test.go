package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/sandbox/inproc"
	"github.com/wasmpod/wasmpod/runtime/volume"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// node is put together as package runtime does it, so that limits are the
// product's, but without pod workers: a bomb that ends is not started again.
type node struct {
	driver  *inproc.Driver
	images  *image.Service
	volumes *volume.Manager
	dir     string
	shared  string // host directory of the volume that bombs share
	uids    atomic.Int64
	stdio   map[string]inproc.Stdio // by pod name
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{dir: t.TempDir(), stdio: map[string]inproc.Stdio{}}
	n.shared = filepath.Join(n.dir, "shared")
	if err := os.Mkdir(n.shared, 0o777); err != nil {
		t.Fatal(err)
	}
	engine, err := wasm.New(t.Context(), wasm.Config{
		CacheDir:   filepath.Join(n.dir, "code"),
		Hosts:      []wasm.HostModule{wasip1.Instantiate},
		ImportName: wasip1.ImportName,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := engine.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	network, err := podnet.NewNetwork(podnet.Config{Prefix: netip.MustParsePrefix("127.128.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	if n.images, err = image.Open(image.Config{}); err != nil {
		t.Fatal(err)
	}
	n.volumes = volume.NewManager(volume.Config{Root: n.dir})
	n.driver = inproc.New(inproc.Config{
		Engine: engine, Images: n.images, Volumes: n.volumes, Network: network,
		Root: filepath.Join(n.dir, "pods"), LogRoot: filepath.Join(n.dir, "logs"),
		Log:   slog.New(slog.DiscardHandler),
		Stdio: func(c container.Config) inproc.Stdio { return n.stdio[c.Pod.Name] },
	})
	return n
}

func newPod(name, image string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "hostile", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image, Args: args}}},
	}
}

// running is one guest with all that was made for it.
type running struct {
	node      *node
	pod       *corev1.Pod
	sandbox   sandbox.Sandbox
	container sandbox.Container
}

// start takes a pod all the way to its first instruction. Whatever the error,
// the result is to be removed.
func (n *node) start(ctx context.Context, pod *corev1.Pod) (r *running, err error) {
	pod.UID = types.UID(fmt.Sprintf("uid-%d", n.uids.Add(1)))
	r = &running{node: n, pod: pod}
	manifest.DefaultPod(pod)
	if errs := manifest.ValidatePod(pod); len(errs) > 0 {
		return r, errs.ToAggregate()
	}
	if err := n.volumes.Mount(ctx, pod); err != nil {
		return r, err
	}
	if r.sandbox, err = n.driver.Create(ctx, pod, 0); err != nil {
		return r, err
	}
	c := &pod.Spec.Containers[0]
	img, err := n.images.Resolve(ctx, c.Image, c.ImagePullPolicy)
	if err != nil {
		return r, err
	}
	config, err := container.NewConfig(pod, c, container.Inputs{
		Image: img.Config, ImageRef: img.Ref, ImageID: img.ID, Module: img.Module, PodIP: r.sandbox.IP(),
	})
	if err != nil {
		return r, err
	}
	if r.container, err = r.sandbox.Create(ctx, config); err != nil {
		return r, err
	}
	return r, r.container.Start(ctx)
}

func (r *running) remove() error {
	var errs []error
	if r.sandbox != nil {
		errs = append(errs, r.sandbox.Remove(context.Background()))
	}
	return errors.Join(append(errs, r.node.volumes.Unmount(r.pod.UID))...)
}

// serve starts the good guest.
func (n *node) serve(t *testing.T, image string) *client {
	t.Helper()
	stdin, requests := io.Pipe()
	responses, stdout := io.Pipe()
	n.stdio["good"] = inproc.Stdio{Stdin: stdin, Stdout: stdout}
	r, err := n.start(t.Context(), newPod("good", image))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		requests.Close()
		responses.Close()
		if err := r.remove(); err != nil {
			t.Error(err)
		}
	})
	return newClient(requests, responses, r.container.Done())
}
