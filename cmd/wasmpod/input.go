package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// imageOptions are the flags of the IMAGE form of run.
type imageOptions struct {
	env     []string
	volumes []string
	publish []string
	cpu     string
	memory  string
	stdin   bool

	flags *pflag.FlagSet
}

var imageFlags = []string{"env", "volume", "publish", "cpu", "memory", "stdin"}

func (o *imageOptions) addFlags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.env, "env", "e", nil, "IMAGE form: set an environment variable, KEY=VALUE")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "IMAGE form: mount a file or directory, HOST:GUEST[:ro]")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "IMAGE form: publish a port, [IP:]HOST:GUEST[/udp]")
	f.StringVar(&o.cpu, "cpu", "", "IMAGE form: CPU limit, such as 500m")
	f.StringVar(&o.memory, "memory", "", "IMAGE form: memory limit, such as 64Mi")
	f.BoolVarP(&o.stdin, "stdin", "i", false, "IMAGE form: connect standard input")
	o.flags = f
}

// maxManifest bounds what is read of one file, so that a device or a stream
// without end is an error rather than all of memory.
const maxManifest = manifest.MaxInput + 1

// objects turns the command line into objects: of manifests, or of an image.
func (a *app) objects(o runOptions, args []string, dash int) (_ *manifest.Objects, fromImage bool, _ error) {
	names, guestArgs := args, []string(nil)
	if dash >= 0 {
		names, guestArgs = args[:dash], args[dash:]
	}
	if len(names) == 0 {
		return nil, false, invalid("run needs a manifest, an image or a .wasm file before --")
	}
	if !namesManifest(names[0]) {
		if len(names) > 1 {
			return nil, false, invalid("%q is an image: put its arguments after --", names[0])
		}
		pod, err := o.image.pod(o.namespace, names[0], guestArgs)
		if err != nil {
			return nil, true, err
		}
		objects, err := asManifest(pod)
		return objects, true, err
	}
	if dash >= 0 {
		return nil, false, invalid("arguments after -- go with an image, but %q is a manifest", names[0])
	}
	for _, name := range imageFlags {
		if o.image.flags.Changed(name) {
			return nil, false, invalid("--%s goes with an image, but %q is a manifest: set it there", name, names[0])
		}
	}
	sources, err := a.sources(names)
	if err != nil {
		return nil, false, err
	}
	objects, err := manifest.Parse(o.namespace, sources...)
	if err != nil {
		var all *manifest.Error
		if errors.As(err, &all) {
			for _, w := range all.Warnings {
				fmt.Fprintln(a.stderr, "wasmpod: warning:", w)
			}
		}
		return nil, false, &exitError{exitInvalid, fmt.Errorf("the manifest is not valid:\n%w", err)}
	}
	if len(objects.Pods)+len(objects.Deployments)+len(objects.ReplicaSets)+len(objects.StatefulSets)+len(objects.DaemonSets)+len(objects.Jobs) == 0 {
		fmt.Fprintln(a.stderr, "wasmpod: there is no pod in", strings.Join(names, ", "))
	}
	return objects, false, nil
}

func invalid(format string, args ...any) error {
	return &exitError{exitInvalid, fmt.Errorf(format, args...)}
}

var manifestExtensions = []string{".yaml", ".yml", ".json"}

// namesManifest tells a manifest from an image. What exists as a file is a
// manifest unless it is a WebAssembly module or an image directory.
func namesManifest(name string) bool {
	if name == "-" {
		return true
	}
	if slices.Contains(manifestExtensions, filepath.Ext(name)) {
		return true
	}
	if strings.HasPrefix(name, "file:") || filepath.Ext(name) == ".wasm" {
		return false
	}
	info, err := os.Stat(name)
	if err != nil {
		return false
	}
	if info.IsDir() {
		files, _ := manifestsIn(name)
		return len(files) > 0 || !isImageDir(name)
	}
	f, err := os.Open(name)
	if err != nil {
		return true // let reading it say why
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	return err != nil || !bytes.Equal(magic, []byte("\x00asm"))
}

func isImageDir(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err == nil {
		return true
	}
	modules, _ := filepath.Glob(filepath.Join(dir, "*.wasm"))
	return len(modules) > 0
}

// manifestsIn lists the manifests directly in a directory, by name, as kubectl
// apply -f does.
func manifestsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains(manifestExtensions, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

func (a *app) sources(names []string) ([]manifest.Source, error) {
	var sources []manifest.Source
	for _, name := range names {
		files := []string{name}
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			if files, err = manifestsIn(name); err != nil {
				return nil, invalid("%w", err)
			}
			if len(files) == 0 {
				return nil, invalid("no manifest in directory %s: looked for *.yaml, *.yml and *.json", name)
			}
		}
		for _, file := range files {
			data, err := a.read(file)
			if err != nil {
				return nil, invalid("%w", err)
			}
			sources = append(sources, manifest.Source{Name: file, Data: data})
		}
	}
	return sources, nil
}

func (a *app) read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(a.stdin, maxManifest))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxManifest))
}

// pod makes the pod of the IMAGE form, and says what is wrong in the words of
// the flags.
func (o *imageOptions) pod(namespace, image string, args []string) (*corev1.Pod, error) {
	if _, err := os.Stat(image); err == nil && !filepath.IsAbs(image) && !strings.HasPrefix(image, ".") {
		image = "./" + image // a path, not a name in the store
	}
	c := corev1.Container{Name: "main", Image: image, Args: args, Stdin: o.stdin, StdinOnce: o.stdin}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: podName(image)},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever},
	}
	for _, e := range o.env {
		k, v, ok := strings.Cut(e, "=")
		if !ok {
			v = os.Getenv(k)
		}
		// A flag is not a manifest: its value is meant as it stands.
		c.Env = append(c.Env, corev1.EnvVar{Name: k, Value: strings.ReplaceAll(v, "$", "$$")})
	}
	for i, v := range o.volumes {
		host, guest, readOnly, err := parseVolume(v)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("v%d", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}},
		})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: guest, ReadOnly: readOnly})
	}
	for _, p := range o.publish {
		port, err := parsePort(p)
		if err != nil {
			return nil, err
		}
		c.Ports = append(c.Ports, port)
	}
	limits := corev1.ResourceList{}
	for flag, v := range map[corev1.ResourceName]string{corev1.ResourceCPU: o.cpu, corev1.ResourceMemory: o.memory} {
		if v == "" {
			continue
		}
		q, err := resource.ParseQuantity(v)
		if err != nil || q.Sign() <= 0 {
			return nil, invalid("--%s: %q is not a quantity above zero, such as 500m for CPU or 64Mi for memory", flag, v)
		}
		limits[flag] = q
	}
	if len(limits) > 0 {
		c.Resources.Limits = limits
	}
	pod.Spec.Containers = []corev1.Container{c}
	return pod, nil
}

// asManifest has a pod that was made of flags defaulted and validated like any
// other, and warned of what is ignored.
func asManifest(pod *corev1.Pod) (*manifest.Objects, error) {
	data, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	objects, err := manifest.Parse(pod.Namespace, manifest.Source{Name: "command line", Data: data})
	if err != nil {
		return nil, &exitError{exitInvalid, err}
	}
	for i := range objects.Warnings {
		objects.Warnings[i].Line = 0
	}
	return objects, nil
}

func parseVolume(v string) (host, guest string, readOnly bool, err error) {
	parts := strings.Split(v, ":")
	if len(parts) == 3 && (parts[2] == "ro" || parts[2] == "rw") {
		readOnly = parts[2] == "ro"
		parts = parts[:2]
	}
	if len(parts) != 2 || parts[0] == "" || !path.IsAbs(parts[1]) {
		return "", "", false, invalid("--volume: %q is not HOST:GUEST[:ro] with an absolute GUEST path", v)
	}
	host, err = filepath.Abs(parts[0])
	if err == nil {
		_, err = os.Stat(host)
	}
	if err != nil {
		return "", "", false, invalid("--volume: %w", err)
	}
	return host, parts[1], readOnly, nil
}

// parsePort reads [IP:]HOST:GUEST[/PROTOCOL]; an IPv6 address is in brackets.
func parsePort(p string) (corev1.ContainerPort, error) {
	bad := invalid("--publish: %q is not [IP:]HOST:GUEST[/udp]", p)
	s, protocol, ok := strings.Cut(p, "/")
	if !ok {
		protocol = "tcp"
	}
	i := strings.LastIndex(s, ":")
	if i < 0 {
		return corev1.ContainerPort{}, bad
	}
	guest, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil {
		return corev1.ContainerPort{}, bad
	}
	ip, hostPart := "", s[:i]
	if j := strings.LastIndex(hostPart, ":"); j >= 0 {
		ip, hostPart = strings.Trim(hostPart[:j], "[]"), hostPart[j+1:]
	}
	host, err := strconv.ParseUint(hostPart, 10, 16)
	if err != nil {
		return corev1.ContainerPort{}, bad
	}
	return corev1.ContainerPort{
		HostIP: ip, HostPort: int32(host), ContainerPort: int32(guest),
		Protocol: corev1.Protocol(strings.ToUpper(protocol)),
	}, nil
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// podName makes a pod name of an image's.
func podName(image string) string {
	base := strings.TrimSuffix(path.Base(strings.TrimRight(image, "/")), ".wasm")
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, ":")
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(base), "-"), "-")
	if name == "" {
		return "main"
	}
	return name[:min(len(name), 63)]
}

// writeFileJSON writes a file whole or not at all: to a temporary one beside
// it, which takes its place.
func writeFileJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing once it has been renamed
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}
