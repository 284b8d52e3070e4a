package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func ptr[T any](v T) *T { return &v }

const uid = types.UID("0c7f3a52-0000-4000-8000-000000000001")

// fixture is a Manager with objects that tests change.
type fixture struct {
	*Manager
	root string

	mu         sync.Mutex
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{root: filepath.Join(t.TempDir(), "data"), configMaps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}}
	f.Manager = NewManager(Config{
		Root: f.root,
		ConfigMap: func(ns, name string) (*corev1.ConfigMap, bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			cm, ok := f.configMaps[ns+"/"+name]
			return cm, ok
		},
		Secret: func(ns, name string) (*corev1.Secret, bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			s, ok := f.secrets[ns+"/"+name]
			return s, ok
		},
		NodeAllocatable: corev1.ResourceList{"cpu": resource.MustParse("4")},
	})
	return f
}

func (f *fixture) setConfigMap(name string, data map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.configMaps["ns/"+name] = &corev1.ConfigMap{Data: data}
}

func testPod(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: uid, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Volumes: volumes, Containers: []corev1.Container{{Name: "c"}}},
	}
}

func emptyDir(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

func hostPath(name, path string, kind corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}}
}

func configMap(name, object string, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: object}, Items: items, DefaultMode: ptr(int32(0o644))}}}
}

func mount(t *testing.T, f *fixture, pod *corev1.Pod) {
	t.Helper()
	if err := f.Mount(t.Context(), pod); err != nil {
		t.Fatalf("Mount: %v", err)
	}
}

func pathOf(t *testing.T, f *fixture, volume string) string {
	t.Helper()
	p, ok := f.Path(uid, volume)
	if !ok {
		t.Fatalf("volume %s is not mounted", volume)
	}
	return p
}

func messages(t *testing.T, err error) []string {
	t.Helper()
	var me *MountError
	if !errors.As(err, &me) {
		t.Fatalf("got %v, want a *MountError", err)
	}
	return me.Messages
}

// tree renders a directory: names, modes of files, targets of links, content.
// The version's directory is called V.
func tree(t *testing.T, dir string) string {
	t.Helper()
	version, _ := os.Readlink(filepath.Join(dir, "..data"))
	var out strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		show := func(s string) string {
			if version == "" {
				return s
			}
			return strings.ReplaceAll(s, version, "V")
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%s -> %s\n", show(rel), show(target))
		case info.IsDir():
			fmt.Fprintf(&out, "%s/ %o\n", show(rel), info.Mode().Perm())
		default:
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%s %o %q\n", show(rel), info.Mode().Perm(), text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func wantTree(t *testing.T, dir, want string) {
	t.Helper()
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestEmptyDirVOL01_VOL02(t *testing.T) {
	f := newFixture(t)
	pod := testPod(emptyDir("e"))
	mount(t, f, pod)
	dir := pathOf(t, f, "e")
	if want := filepath.Join(f.root, "pods", string(uid), "volumes", "empty-dir", "e"); dir != want {
		t.Errorf("path %s, want %s", dir, want)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode() != fs.ModeDir|0o777 {
		t.Errorf("VOL-02 mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(f.root, "pods", string(uid))); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("other users of the host can get in: %v %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	mount(t, f, pod)                                 // VOL-02: survives a sandbox that is made again
	again := &fixture{Manager: NewManager(f.config)} // and a new process
	if err := again.Mount(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, "x 600 \"1\"\n")
	if uids, err := again.Pods(); err != nil || !slices.Equal(uids, []types.UID{uid}) {
		t.Errorf("Pods = %v, %v", uids, err)
	}
	if err := errors.Join(f.Unmount(uid), f.Unmount(uid), again.Unmount(uid)); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Path(uid, "e"); ok {
		t.Error("VOL-01 still mounted")
	}
	wantTree(t, f.root, "pods/ 750\n")
	if uids, err := f.Pods(); err != nil || len(uids) != 0 {
		t.Errorf("Pods = %v, %v", uids, err)
	}
}

func TestEmptyDirMedium(t *testing.T) {
	medium := func(m corev1.StorageMedium) *corev1.Pod {
		v := emptyDir("e")
		v.EmptyDir.Medium = m
		return testPod(v)
	}
	t.Run("VOL-03 unknown", func(t *testing.T) {
		err := newFixture(t).Mount(t.Context(), medium("Tape"))
		want := []string{`MountVolume.SetUp failed for volume "e" : unknown storage medium "Tape"`}
		if diff := cmp.Diff(want, messages(t, err)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("VOL-03 the size in memory is the least of all", func(t *testing.T) {
		limits := func(list ...string) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				p.Spec.Containers = nil
				for _, l := range list {
					c := corev1.Container{}
					if l != "" {
						c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(l)}
					}
					p.Spec.Containers = append(p.Spec.Containers, c)
				}
			}
		}
		for _, tt := range []struct {
			node      int64
			sizeLimit string
			limits    func(*corev1.Pod)
			want      int64
		}{
			{1 << 30, "", limits(""), 1 << 30},
			{1 << 30, "1Mi", limits(""), 1 << 20},
			{1 << 30, "1Mi", limits("512Ki", "256Ki"), 768 << 10},
			{1 << 30, "1Mi", limits("512Ki", ""), 1 << 20},
			{1 << 10, "1Mi", limits("512Ki"), 1 << 10},
			{0, "", limits(""), 0},
			{0, "0", limits("1Mi"), 1 << 20},
		} {
			f := newFixture(t)
			var got int64
			made := &memory{}
			f.config.MemoryBytes = tt.node
			f.config.NewMemory = func(size int64, _ *int64) Memory {
				got = size
				return made
			}
			pod := medium(corev1.StorageMediumMemory)
			tt.limits(pod)
			if tt.sizeLimit != "" {
				q := resource.MustParse(tt.sizeLimit)
				pod.Spec.Volumes[0].EmptyDir.SizeLimit = &q
			}
			mount(t, f, pod)
			if used, inMemory, err := f.Usage(t.Context(), uid, "e"); got != tt.want || used != 7 || !inMemory || err != nil {
				t.Errorf("size %d, want %d; used %d, %v, %v", got, tt.want, used, inMemory, err)
			}
			if err := f.Unmount(uid); err != nil || !made.closed {
				t.Errorf("closed %v, %v", made.closed, err)
			}
		}
	})
	t.Run("VOL-03 without memory it lies on disk", func(t *testing.T) {
		f := newFixture(t)
		mount(t, f, medium(corev1.StorageMediumMemory))
		if dir := pathOf(t, f, "e"); !strings.HasPrefix(dir, f.root) {
			t.Errorf("path %s", dir)
		}
	})
}

func TestFSGroupVOL42(t *testing.T) {
	f := newFixture(t)
	f.setConfigMap("cm", map[string]string{"k": "v"})
	cm := configMap("cm", "cm", corev1.KeyToPath{Key: "k", Path: "d/k", Mode: ptr(int32(0o400))})
	host := filepath.Join(t.TempDir(), "host")
	if err := os.Mkdir(host, 0o700); err != nil {
		t.Fatal(err)
	}
	pod := testPod(emptyDir("e"), cm, corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}})
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(os.Getgid()))}
	mount(t, f, pod)
	for path, want := range map[string]fs.FileMode{
		host:                                   fs.ModeDir | 0o700, // the node's own
		pathOf(t, f, "e"):                      fs.ModeDir | fs.ModeSetgid | 0o777,
		filepath.Join(pathOf(t, f, "cm"), "d"): fs.ModeDir | fs.ModeSetgid | 0o755,
		filepath.Join(pathOf(t, f, "cm"), "..data/d/k"):   0o440,
		filepath.Join(pathOf(t, f, "cm"), "..data", "d/"): fs.ModeDir | fs.ModeSetgid | 0o755,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("VOL-02 VOL-42 %s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if err := f.Refresh(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	join := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(join("file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A short path: socket names are limited.
	sockets, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	socket := filepath.Join(sockets, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink(dir, join("link")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path string
		kind corev1.HostPathType
		want string // error, after the prefix
	}{
		{join("unset/deep"), "", ""},
		{join("file"), "", ""},
		{dir, corev1.HostPathDirectory, ""},
		{join("link"), corev1.HostPathDirectory, ""},
		{join("file"), corev1.HostPathDirectory, "hostPath type check failed: %s is not a directory"},
		{join("none"), corev1.HostPathDirectory, "hostPath type check failed: %s is not a directory"},
		{join("made/dir"), corev1.HostPathDirectoryOrCreate, ""},
		{join("file"), corev1.HostPathDirectoryOrCreate, "hostPath type check failed: %s is not a directory"},
		{join("file"), corev1.HostPathFile, ""},
		{dir, corev1.HostPathFile, "hostPath type check failed: %s is not a file"},
		{join("none"), corev1.HostPathFile, "hostPath type check failed: %s is not a file"},
		{join("madefile"), corev1.HostPathFileOrCreate, ""},
		{dir, corev1.HostPathFileOrCreate, "hostPath type check failed: %s is not a file"},
		{join("noparent/file"), corev1.HostPathFileOrCreate, "open %s: no such file or directory"},
		{socket, corev1.HostPathSocket, ""},
		{join("file"), corev1.HostPathSocket, "hostPath type check failed: %s is not a socket file"},
		{"/dev/null", corev1.HostPathCharDev, ""},
		{join("file"), corev1.HostPathCharDev, "hostPath type check failed: %s is not a character device"},
		{"/dev/null", corev1.HostPathBlockDev, "hostPath type check failed: %s is not a block device"},
		{dir, "Tape", "Tape is an invalid volume type"},
		{dir + "/../x", "", "invalid HostPath `%s`: must not contain '..'"},
		{"relative", "", "invalid HostPath `%s`: must be an absolute path"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("VOL-04 %s %s", tt.kind, filepath.Base(tt.path)), func(t *testing.T) {
			f := newFixture(t)
			err := f.Mount(t.Context(), testPod(hostPath("v", tt.path, tt.kind)))
			if tt.want != "" {
				reason := tt.want
				if strings.Contains(reason, "%s") {
					reason = fmt.Sprintf(reason, tt.path)
				}
				if diff := cmp.Diff([]string{`MountVolume.SetUp failed for volume "v" : ` + reason}, messages(t, err)); diff != "" {
					t.Error(diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := pathOf(t, f, "v"); got != tt.path {
				t.Errorf("path %s", got)
			}
			if err := f.Unmount(uid); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(tt.path); err != nil {
				t.Errorf("VOL-01 a host path is gone: %v", err)
			}
		})
	}
	for name, want := range map[string]fs.FileMode{"unset/deep": fs.ModeDir | 0o755, "made/dir": fs.ModeDir | 0o755, "madefile": 0o644} {
		if info, err := os.Stat(join(name)); err != nil || info.Mode() != want {
			t.Errorf("VOL-04 %s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestMountErrors(t *testing.T) {
	f := newFixture(t)
	f.setConfigMap("cm", map[string]string{"k": "v"})
	f.secrets["ns/s"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("v")}}
	secret := func(name, object string, items ...corev1.KeyToPath) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: object, Items: items}}}
	}
	pod := testPod(
		configMap("a", "x"), emptyDir("ok"), secret("b", "x"),
		configMap("c", "cm", corev1.KeyToPath{Key: "k2", Path: "p"}),
		secret("d", "s", corev1.KeyToPath{Key: "k2", Path: "p"}),
		configMap("e", "cm", corev1.KeyToPath{Key: "k", Path: "../p"}),
		corev1.Volume{Name: "f", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}},
		corev1.Volume{Name: "../g", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	)
	err := f.Mount(t.Context(), pod)
	want := []string{
		`MountVolume.SetUp failed for volume "a" : configmap "x" not found`,                          // VOL-20
		`MountVolume.SetUp failed for volume "b" : secret "x" not found`,                             // VOL-20
		`MountVolume.SetUp failed for volume "c" : configmap references non-existent config key: k2`, // VOL-12
		`MountVolume.SetUp failed for volume "d" : references non-existent secret key: k2`,           // VOL-12
		`MountVolume.SetUp failed for volume "e" : invalid path: must not contain '..': ../p`,        // VOL-11
		`MountVolume.SetUp failed for volume "f" : volume source nfs is not supported`,               //
		`MountVolume.SetUp failed for volume "../g" : "../g" cannot be the name of a directory`,      //
	}
	if diff := cmp.Diff(want, messages(t, err)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if _, ok := f.Path(uid, "ok"); !ok {
		t.Error("one failure keeps other volumes from being set up")
	}
	// VOL-20: nothing is left of what failed, and a retry succeeds.
	wantTree(t, filepath.Join(f.root, "pods", string(uid), "volumes"), "configmap/ 750\nempty-dir/ 750\nempty-dir/ok/ 777\n")
	f.setConfigMap("x", map[string]string{"k": "v"})
	pod.Spec.Volumes = pod.Spec.Volumes[:2]
	mount(t, f, pod)
	if got, err := os.ReadFile(filepath.Join(pathOf(t, f, "a"), "k")); err != nil || string(got) != "v" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, uid := range []types.UID{"", ".", "..", "../../etc", "a/b"} {
		pod := testPod(emptyDir("e"))
		pod.UID = uid
		if err := f.Mount(t.Context(), pod); err == nil {
			t.Errorf("uid %q was accepted by Mount", uid)
		}
		if err := f.Unmount(uid); err == nil {
			t.Errorf("uid %q was accepted by Unmount", uid)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	pod.UID = "other"
	if err := f.Mount(ctx, pod); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrent(t *testing.T) {
	f := newFixture(t)
	f.setConfigMap("cm", map[string]string{"k": "0"})
	var wg sync.WaitGroup
	for i := range 4 {
		pod := testPod(emptyDir("e"), configMap("cm", "cm"))
		pod.UID = types.UID(fmt.Sprint("pod-", i%2))
		wg.Go(func() {
			for j := range 20 {
				f.setConfigMap("cm", map[string]string{"k": fmt.Sprint(j)})
				if err := errors.Join(f.Mount(t.Context(), pod), f.Refresh(t.Context(), pod)); err != nil {
					t.Error(err)
				}
				f.Path(pod.UID, "e")
				if j%5 == 4 {
					if err := f.Unmount(pod.UID); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for i := range 2 {
		if err := f.Unmount(types.UID(fmt.Sprint("pod-", i))); err != nil {
			t.Error(err)
		}
	}
	if len(f.pods) != 0 {
		t.Errorf("%d pods are still remembered", len(f.pods))
	}
	wantTree(t, f.root, "pods/ 750\n")
}

func TestUmask(t *testing.T) {
	old := setUmask(0o077)
	defer setUmask(old)
	f := newFixture(t)
	f.setConfigMap("cm", map[string]string{"k": "v"})
	mount(t, f, testPod(emptyDir("e"), configMap("cm", "cm", corev1.KeyToPath{Key: "k", Path: "d/k"})))
	if info, err := os.Stat(pathOf(t, f, "e")); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("VOL-02 %v, %v", info.Mode(), err)
	}
	if _, err := f.SubPath(uid, "c", "e", "a/b"); err != nil {
		t.Fatal(err)
	}
	wantTree(t, pathOf(t, f, "e"), "a/ 777\na/b/ 777\n")
	wantTree(t, pathOf(t, f, "cm"), "V/ 755\nV/d/ 755\nV/d/k 644 \"v\"\n..data -> V\nd -> ..data/d\n")
}

func TestProjectedAndDownwardAPIVOL16(t *testing.T) {
	f := newFixture(t)
	f.setConfigMap("cm", map[string]string{"a": "1", "b": "2"})
	f.secrets["ns/s"] = &corev1.Secret{Data: map[string][]byte{"b": []byte("secret")}}
	field := func(p, path string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: p, FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	projected := corev1.Volume{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr(int32(0o440)),
		Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{field("meta/labels", "metadata.labels")}}},
		}}}}
	downward := corev1.Volume{Name: "down", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		DefaultMode: ptr(int32(0o644)),
		Items: []corev1.DownwardAPIVolumeFile{field("name", "metadata.name"),
			{Path: "cpu", Mode: ptr(int32(0o600)), ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.cpu"}}}}}}
	pod := testPod(projected, downward)
	mount(t, f, pod)
	wantTree(t, pathOf(t, f, "all"), `V/ 755
V/a 440 "1"
V/b 440 "secret"
V/meta/ 755
V/meta/labels 440 "app=\"web\""
..data -> V
a -> ..data/a
b -> ..data/b
meta -> ..data/meta
`)
	wantTree(t, pathOf(t, f, "down"), "V/ 755\nV/cpu 600 \"4\"\nV/name 644 \"p\"\n..data -> V\ncpu -> ..data/cpu\nname -> ..data/name\n")

	pod.Labels["tier"] = "x" // DAPI-02: a volume follows
	if err := f.Refresh(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(pathOf(t, f, "all"), "meta/labels")); err != nil || string(got) != "app=\"web\"\ntier=\"x\"" {
		t.Errorf("DAPI-02 got %q, %v", got, err)
	}
	projected.Projected.Sources = append(projected.Projected.Sources,
		corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}}},
		corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}})
	bad := testPod(projected)
	bad.UID = "other"
	want := []string{`MountVolume.SetUp failed for volume "all" : [secret "none" not found, projected source serviceAccountToken is not supported]`}
	if diff := cmp.Diff(want, messages(t, f.Mount(t.Context(), bad))); diff != "" {
		t.Errorf("VOL-16 (-want +got):\n%s", diff)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := mountTmpfs(dir, 64<<10); err != nil {
		t.Skipf("no small file system to fill: %v (%s, uid %d)", err, runtime.GOOS, os.Getuid())
	}
	t.Cleanup(func() { _ = unmountTmpfs(dir) })
	f := newFixture(t)
	f.config.Root = dir
	big := strings.Repeat("x", 40<<10)
	f.setConfigMap("cm", map[string]string{"a": "old", "b": "old"})
	pod := testPod(configMap("cm", "cm"))
	mount(t, f, pod)
	before := tree(t, pathOf(t, f, "cm"))

	f.setConfigMap("cm", map[string]string{"a": "new", "b": big, "c": big})
	got := messages(t, f.Refresh(t.Context(), pod))
	if len(got) != 1 || !strings.HasPrefix(got[0], `MountVolume.SetUp failed for volume "cm" : `) || !strings.Contains(got[0], "no space left") {
		t.Errorf("got %q", got)
	}
	wantTree(t, pathOf(t, f, "cm"), before) // nothing half-written

	other := testPod(configMap("cm", "cm"))
	other.UID = "other"
	if err := f.Mount(t.Context(), other); err == nil {
		t.Error("no error")
	}
	if _, err := os.Lstat(filepath.Join(dir, "pods/other/volumes/configmap/cm")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the volume that failed is still there: %v", err)
	}
	f.setConfigMap("cm", map[string]string{"a": "new"})
	if err := errors.Join(f.Refresh(t.Context(), pod), f.Mount(t.Context(), other)); err != nil {
		t.Errorf("after room was made: %v", err)
	}
}

func TestNowNamesVersions(t *testing.T) {
	f := newFixture(t)
	f.config.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("x", 3600)) }
	f.setConfigMap("cm", map[string]string{"k": "v"})
	mount(t, f, testPod(configMap("cm", "cm")))
	if target, err := os.Readlink(filepath.Join(pathOf(t, f, "cm"), "..data")); err != nil || !strings.HasPrefix(target, "..2026_01_02_02_04_05.") {
		t.Errorf("VOL-10 got %s, %v", target, err)
	}
}

type memory struct{ closed bool }

func (*memory) Used() int64                            { return 7 }
func (*memory) ReadFile(string, int64) ([]byte, error) { return []byte("in memory"), nil }
func (m *memory) Close()                               { m.closed = true }
