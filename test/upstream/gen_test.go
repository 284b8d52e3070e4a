package upstream

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// gen draws the parts of a pod. Most values are good ones, so that pods get
// past the first check; in one pod of two each draw has a small chance of a
// bad one, and parts need not fit together.
type gen struct {
	t    *rapid.T
	tidy bool
	used *int // for names that differ
}

// one draws from good values and, in an untidy pod, one time in twenty from
// bad ones.
func one[T any](g gen, what string, good, bad []T) T {
	if !g.tidy && len(bad) > 0 && rapid.IntRange(0, 19).Draw(g.t, what+"?") == 19 {
		return rapid.SampledFrom(bad).Draw(g.t, what)
	}
	return rapid.SampledFrom(good).Draw(g.t, what)
}

func (g gen) chance(what string, percent int) bool {
	return rapid.IntRange(0, 99).Draw(g.t, what) < percent
}

func maybe[T any](g gen, what string, percent int, draw func() T) *T {
	if !g.chance(what, percent) {
		return nil
	}
	v := draw()
	return &v
}

func many[T any](g gen, what string, most int, draw func() T) []T {
	var out []T
	for range rapid.IntRange(0, most).Draw(g.t, what) {
		out = append(out, draw())
	}
	return out
}

// fresh makes a name or path that is unique in the pod, if that is tidy.
func (g gen) fresh(name string) string {
	if !g.tidy || name == "" {
		return name
	}
	*g.used++
	return name + strconv.Itoa(*g.used)
}

func (g gen) name() string {
	return one(g, "name", []string{"a", "b", "web", "x-1", "c0"}, []string{"", "A", "a_b", "-a", "a.b", strings.Repeat("a", 64), "ä"})
}

func (g gen) text() string {
	return rapid.SampledFrom([]string{"", "a", "A=b", "$(X)", "ü", " ", "/x", "…"}).Draw(g.t, "text")
}

func (g gen) qty() resource.Quantity {
	return resource.MustParse(one(g, "quantity", []string{"0", "1", "100m", "1Mi", "64Mi", "1500m", "1G", "1u"}, []string{"-1", "-100m", "100k"}))
}

func (g gen) resources() corev1.ResourceRequirements {
	list := func() corev1.ResourceList {
		if g.chance("no list", 50) {
			return nil
		}
		l := corev1.ResourceList{}
		for range rapid.IntRange(0, 3).Draw(g.t, "resources") {
			name := one(g, "resource", []string{"cpu", "memory", "ephemeral-storage"}, []string{"hugepages-2Mi", "example.com/gpu", "gpu", "a b", "pods", "kubernetes.io/x", "requests.cpu", "hugepages-x"})
			l[corev1.ResourceName(name)] = g.qty()
		}
		return l
	}
	r := corev1.ResourceRequirements{Limits: list(), Requests: list()}
	if g.tidy && r.Limits != nil {
		r.Requests = nil
	}
	return r
}

func (g gen) path() string {
	return one(g, "path", []string{"/a", "/b", "/data/x", "rel"}, []string{"", "/a/../b", "..", "../x", "..x", "/"})
}

func (g gen) env() corev1.EnvVar {
	e := corev1.EnvVar{Name: one(g, "env name", []string{"A", "B", "a.b", "1"}, []string{"", "A=B", "ü"})}
	if g.chance("value", 60) {
		e.Value = g.text()
	}
	if !g.chance("valueFrom", 40) {
		return e
	}
	if g.tidy || !g.chance("both", 10) {
		e.Value = ""
	}
	e.ValueFrom = &corev1.EnvVarSource{}
	key := func() string { return one(g, "key", []string{"k", "a.b"}, []string{"", "a/b", "..", ".."}) }
	object := func() corev1.LocalObjectReference {
		return corev1.LocalObjectReference{Name: one(g, "object", []string{"o", "a.b"}, []string{"", "A"})}
	}
	switch rapid.IntRange(0, 4).Draw(g.t, "source") {
	case 0:
		e.ValueFrom.FieldRef = &corev1.ObjectFieldSelector{APIVersion: one(g, "version", []string{"", "v1"}, []string{"v2"}),
			FieldPath: one(g, "fieldPath", []string{"metadata.name", "status.podIP", "metadata.labels['a']", "metadata.annotations['A/b']", "spec.host", "spec.nodeName"},
				[]string{"", "metadata.labels", "spec.foo", "status.phase", "metadata.labels['a b']", "spec.x['a']", "metadata.labels[a]", "['a']", "metadata.annotations['']"})}
	case 1:
		e.ValueFrom.ResourceFieldRef = &corev1.ResourceFieldSelector{ContainerName: one(g, "container", []string{"", "a"}, nil),
			Resource: one(g, "resource", []string{"limits.cpu", "requests.memory", "limits.ephemeral-storage"}, []string{"", "cpu", "limits.hugepages-2Mi", "limits.gpu"}),
			Divisor:  resource.MustParse(one(g, "divisor", []string{"0", "1"}, []string{"1m", "1Mi", "2", "1k"}))}
	case 2:
		e.ValueFrom.ConfigMapKeyRef = &corev1.ConfigMapKeySelector{LocalObjectReference: object(), Key: key()}
	case 3:
		e.ValueFrom.SecretKeyRef = &corev1.SecretKeySelector{LocalObjectReference: object(), Key: key()}
	case 4:
		e.ValueFrom.FileKeyRef = &corev1.FileKeySelector{VolumeName: one(g, "file volume", []string{"v0", "v1"}, []string{"", "V", "none"}),
			Path: one(g, "file", []string{"env", "a/b", "/a"}, []string{"", "../a", "a/.."}), Key: one(g, "file key", []string{"A", "a.b"}, []string{"", "A=B", "ü"}),
			Optional: maybe(g, "optional", 30, func() bool { return true })}
	}
	if !g.tidy && g.chance("second source", 5) {
		e.ValueFrom.SecretKeyRef = &corev1.SecretKeySelector{LocalObjectReference: object(), Key: key()}
	}
	return e
}

func (g gen) port() intstr.IntOrString {
	return one(g, "port", []intstr.IntOrString{intstr.FromInt32(80), intstr.FromString("http")},
		[]intstr.IntOrString{intstr.FromInt32(0), intstr.FromInt32(70000), intstr.FromString("8080"), intstr.FromString(""), intstr.FromString("UPPER")})
}

// untidy is a chance that tidy pods do not take.
func (g gen) untidy(percent int) int {
	if g.tidy {
		return 0
	}
	return percent
}

func (g gen) hostPort(good, bad []int32) int32 {
	if g.tidy {
		return 0
	}
	return one(g, "hostPort", good, bad)
}

func (g gen) number() int32 {
	return one(g, "number", []int32{0, 1, 3}, []int32{-1, 2})
}

func (g gen) httpGet() *corev1.HTTPGetAction {
	h := &corev1.HTTPGetAction{Path: one(g, "http path", []string{"", "/x"}, nil), Port: g.port(), Scheme: one(g, "scheme", []corev1.URIScheme{"", "HTTP", "HTTPS"}, []corev1.URIScheme{"http", "ftp"})}
	if g.chance("headers", 20) {
		h.HTTPHeaders = []corev1.HTTPHeader{{Name: one(g, "header", []string{"X-A"}, []string{"", "a b"}), Value: "v"}}
	}
	return h
}

func (g gen) exec() *corev1.ExecAction {
	return &corev1.ExecAction{Command: one(g, "command", [][]string{{"a", "b"}}, [][]string{nil})}
}

func (g gen) probe() corev1.Probe {
	p := corev1.Probe{InitialDelaySeconds: g.number(), TimeoutSeconds: g.number(), PeriodSeconds: g.number(), FailureThreshold: g.number(), SuccessThreshold: one(g, "success", []int32{0, 1}, []int32{-1, 2}),
		TerminationGracePeriodSeconds: maybe(g, "grace", g.untidy(10), func() int64 { return one(g, "grace", []int64{1, 30}, []int64{0, -1}) })}
	handlers := one(g, "handlers", []int{1}, []int{0, 2})
	for range handlers {
		switch rapid.IntRange(0, 3).Draw(g.t, "handler") {
		case 0:
			p.Exec = g.exec()
		case 1:
			p.HTTPGet = g.httpGet()
		case 2:
			p.TCPSocket = &corev1.TCPSocketAction{Port: g.port()}
		case 3:
			p.GRPC = &corev1.GRPCAction{Port: one(g, "grpc", []int32{50051}, []int32{0})}
		}
	}
	return p
}

func (g gen) hook() corev1.LifecycleHandler {
	var h corev1.LifecycleHandler
	handlers := one(g, "handlers", []int{1}, []int{0, 2})
	for range handlers {
		switch rapid.IntRange(0, 3).Draw(g.t, "handler") {
		case 0:
			h.Exec = g.exec()
		case 1:
			h.HTTPGet = g.httpGet()
		case 2:
			h.TCPSocket = &corev1.TCPSocketAction{Port: g.port()}
		case 3:
			h.Sleep = &corev1.SleepAction{Seconds: one(g, "sleep", []int64{0, 1, 30}, []int64{-1, 31})}
		}
	}
	return h
}

func (g gen) container(init bool, volumes int) corev1.Container {
	c := corev1.Container{
		Name:                     g.fresh(g.name()),
		Image:                    one(g, "image", []string{"a", "a:latest", "a:1", "h:5000/a", "h:5000/a:1", "a@sha256:" + strings.Repeat("0", 64), "a:latest@sha256:" + strings.Repeat("0", 64), "a@sha256:0", "UPPER/x", "x/UPPER", "a__b/c:1", "[::1]:80/a", "a:b:c", "a:", strings.Repeat("a", 64)}, []string{"", " a", "a "}),
		Command:                  one(g, "command", [][]string{nil, {"a"}}, nil),
		Args:                     one(g, "args", [][]string{nil, {"$(A)"}}, nil),
		WorkingDir:               one(g, "workingDir", []string{"", "/w"}, nil),
		TerminationMessagePath:   one(g, "message path", []string{"", "/t"}, nil),
		TerminationMessagePolicy: one(g, "message policy", []corev1.TerminationMessagePolicy{"", "File", "FallbackToLogsOnError"}, []corev1.TerminationMessagePolicy{"file"}),
		ImagePullPolicy:          one(g, "pull policy", []corev1.PullPolicy{"", "Always", "Never", "IfNotPresent"}, []corev1.PullPolicy{"always"}),
		Stdin:                    g.chance("stdin", 20),
		Resources:                g.resources(),
		Env:                      many(g, "env", 3, g.env),
	}
	c.Ports = many(g, "ports", 2, func() corev1.ContainerPort {
		return corev1.ContainerPort{Name: g.fresh(one(g, "port name", []string{"", "http", "p2"}, []string{"UPPER", "a--b", "1", strings.Repeat("a", 16)})),
			ContainerPort: one(g, "containerPort", []int32{80, 81}, []int32{0, -1, 65536}), HostPort: g.hostPort([]int32{0, 0, 80}, []int32{-1, 65536}),
			Protocol: one(g, "protocol", []corev1.Protocol{"", "TCP", "UDP", "SCTP"}, []corev1.Protocol{"tcp"}), HostIP: one(g, "hostIP", []string{"", "127.0.0.1"}, nil)}
	})
	c.EnvFrom = many(g, "envFrom", 2, func() corev1.EnvFromSource {
		e := corev1.EnvFromSource{Prefix: one(g, "prefix", []string{"", "P_"}, []string{"A=B"})}
		name := corev1.LocalObjectReference{Name: one(g, "object", []string{"o"}, []string{"", "A", "a-"})}
		kind := one(g, "kind", []int{1, 2}, []int{0, 3})
		if kind&1 != 0 {
			e.ConfigMapRef = &corev1.ConfigMapEnvSource{LocalObjectReference: name}
		}
		if kind&2 != 0 {
			e.SecretRef = &corev1.SecretEnvSource{LocalObjectReference: name}
		}
		return e
	})
	mounts := 2
	if g.tidy {
		mounts = volumes
	}
	c.VolumeMounts = many(g, "mounts", mounts, func() corev1.VolumeMount {
		m := corev1.VolumeMount{Name: one(g, "volume", []string{"v0", "v1"}[:max(1, mounts)], []string{"", "nope"}), MountPath: g.fresh(g.path()), ReadOnly: g.chance("readOnly", 50)}
		if g.chance("subPath", 20) {
			m.SubPath = one(g, "subPath", []string{"s", "a/b"}, []string{"/a", "../a", "a/.."})
		}
		if g.chance("subPathExpr", 10) {
			m.SubPathExpr = one(g, "subPathExpr", []string{"$(A)", "a/$(B)"}, []string{"/a", "a/../b"})
		}
		m.RecursiveReadOnly = maybe(g, "rro", g.untidy(10), func() corev1.RecursiveReadOnlyMode {
			return one(g, "rro", []corev1.RecursiveReadOnlyMode{"Disabled", "Enabled", "IfPossible"}, []corev1.RecursiveReadOnlyMode{"x"})
		})
		m.MountPropagation = maybe(g, "propagation", 10, func() corev1.MountPropagationMode {
			return one(g, "propagation", []corev1.MountPropagationMode{"None", "HostToContainer"}, []corev1.MountPropagationMode{"Bidirectional", "x"})
		})
		return m
	})
	hooks := 15
	if init {
		hooks = 3
		if g.tidy {
			hooks = 0
		}
	}
	c.LivenessProbe = maybe(g, "liveness", hooks, g.probe)
	c.ReadinessProbe = maybe(g, "readiness", hooks, g.probe)
	c.StartupProbe = maybe(g, "startup", hooks, g.probe)
	c.Lifecycle = maybe(g, "lifecycle", hooks, func() corev1.Lifecycle {
		return corev1.Lifecycle{PostStart: maybe(g, "postStart", 50, g.hook), PreStop: maybe(g, "preStop", 50, g.hook)}
	})
	c.RestartPolicy = maybe(g, "restartPolicy", 20, func() corev1.ContainerRestartPolicy {
		return one(g, "restartPolicy", []corev1.ContainerRestartPolicy{"Always", "Never", "OnFailure"}, []corev1.ContainerRestartPolicy{"always"})
	})
	if c.RestartPolicy != nil && g.chance("rules", 30) || !g.tidy && g.chance("rules without policy", 2) {
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: one(g, "action", []corev1.ContainerRestartRuleAction{"Restart"}, []corev1.ContainerRestartRuleAction{"", "x"}),
			ExitCodes: maybe(g, "exitCodes", 90, func() corev1.ContainerRestartRuleOnExitCodes {
				return corev1.ContainerRestartRuleOnExitCodes{Operator: one(g, "operator", []corev1.ContainerRestartRuleOnExitCodesOperator{"In", "NotIn"}, []corev1.ContainerRestartRuleOnExitCodesOperator{"", "in"}), Values: []int32{1}}
			})}}
	}
	c.ResizePolicy = many(g, "resize", 1, func() corev1.ContainerResizePolicy {
		return corev1.ContainerResizePolicy{ResourceName: one(g, "resource", []corev1.ResourceName{"cpu", "memory"}, []corev1.ResourceName{"", "x"}),
			RestartPolicy: one(g, "resize", []corev1.ResourceResizeRestartPolicy{"NotRequired"}, []corev1.ResourceResizeRestartPolicy{"", "RestartContainer", "x"})}
	})
	id := func() int64 { return one(g, "id", []int64{0, 1000}, []int64{-1, 1 << 32}) }
	c.SecurityContext = maybe(g, "securityContext", 20, func() corev1.SecurityContext {
		s := corev1.SecurityContext{RunAsUser: maybe(g, "user", 30, id), RunAsGroup: maybe(g, "group", 30, id), Privileged: maybe(g, "privileged", 20, func() bool { return true }),
			AllowPrivilegeEscalation: maybe(g, "escalation", g.untidy(20), func() bool { return g.chance("escalation", 50) })}
		if g.chance("capabilities", 20) {
			s.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{one(g, "capability", []corev1.Capability{"NET_ADMIN"}, []corev1.Capability{"CAP_SYS_ADMIN"})}}
		}
		if g.chance("seccomp", 20) {
			s.SeccompProfile = g.seccomp()
		}
		s.ProcMount = maybe(g, "procMount", 10, func() corev1.ProcMountType {
			return one(g, "procMount", []corev1.ProcMountType{"Default"}, []corev1.ProcMountType{"Unmasked", "x"})
		})
		return s
	})
	return c
}

func (g gen) seccomp() *corev1.SeccompProfile {
	return &corev1.SeccompProfile{Type: one(g, "seccomp", []corev1.SeccompProfileType{"RuntimeDefault", "Unconfined"}, []corev1.SeccompProfileType{"Localhost", "", "x"}),
		LocalhostProfile: maybe(g, "profile", g.untidy(30), func() string { return one(g, "profile", []string{"a/b"}, []string{"/a", "../a"}) })}
}

func (g gen) volume(name string) corev1.Volume {
	mode := func() *int32 {
		return maybe(g, "mode", 30, func() int32 { return one(g, "mode", []int32{0, 0o644, 0o777}, []int32{-1, 0o1000}) })
	}
	items := func() []corev1.KeyToPath {
		return many(g, "items", 1, func() corev1.KeyToPath {
			return corev1.KeyToPath{Key: one(g, "key", []string{"k"}, []string{""}), Path: one(g, "path", []string{"p", "a/b"}, []string{"", "/a", "..", "../a", "..a"}), Mode: mode()}
		})
	}
	v := corev1.Volume{Name: name}
	for range one(g, "sources", []int{1}, []int{0, 2}) {
		switch rapid.IntRange(0, 3).Draw(g.t, "source") {
		case 0:
			v.EmptyDir = &corev1.EmptyDirVolumeSource{Medium: one(g, "medium", []corev1.StorageMedium{"", "Memory"}, []corev1.StorageMedium{"x"}), SizeLimit: maybe(g, "sizeLimit", 20, g.qty)}
		case 1:
			v.HostPath = &corev1.HostPathVolumeSource{Path: g.path(), Type: maybe(g, "type", 40, func() corev1.HostPathType {
				return one(g, "type", []corev1.HostPathType{"", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", "CharDevice", "BlockDevice"}, []corev1.HostPathType{"x"})
			})}
		case 2:
			v.ConfigMap = &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: one(g, "object", []string{"o", "UPPER"}, []string{""})}, DefaultMode: mode(), Items: items()}
		case 3:
			v.Secret = &corev1.SecretVolumeSource{SecretName: one(g, "object", []string{"o", "UPPER"}, []string{""}), DefaultMode: mode(), Items: items()}
		}
	}
	return v
}

func genPod(t *rapid.T) *corev1.Pod {
	g := gen{t, rapid.Bool().Draw(t, "tidy"), new(int)}
	label := func() map[string]string {
		if g.chance("labels", 70) {
			return nil
		}
		return map[string]string{one(g, "label", []string{"a", "x.y/b"}, []string{"", "a b", "/a", "a/b/c"}): one(g, "label value", []string{"", "v"}, []string{"a b", strings.Repeat("a", 64)})}
	}
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	p.Name = one(g, "pod", []string{"p", "a.b"}, []string{"", "P", strings.Repeat("a", 254)})
	p.Namespace = one(g, "namespace", []string{"", "ns"}, []string{"N", "a.b"})
	p.Labels, p.Annotations = label(), label()
	s := &p.Spec
	for i := range one(g, "volumes", []int{0, 1, 2}, nil) {
		s.Volumes = append(s.Volumes, g.volume(one(g, "volume name", []string{"v" + string(rune('0'+i))}, []string{"", "v0", "A"})))
	}
	if g.tidy {
		s.Containers = append(s.Containers, g.container(false, len(s.Volumes)))
	}
	s.Containers = append(s.Containers, many(g, "containers", 2, func() corev1.Container { return g.container(false, len(s.Volumes)) })...)
	s.InitContainers = many(g, "init containers", 2, func() corev1.Container { return g.container(true, len(s.Volumes)) })
	s.RestartPolicy = one(g, "restartPolicy", []corev1.RestartPolicy{"", "Always", "Never", "OnFailure"}, []corev1.RestartPolicy{"always"})
	s.DNSPolicy = one(g, "dnsPolicy", []corev1.DNSPolicy{"", "Default", "ClusterFirst", "ClusterFirstWithHostNet"}, []corev1.DNSPolicy{"None", "x"})
	s.DNSConfig = maybe(g, "dnsConfig", 10, func() corev1.PodDNSConfig {
		return corev1.PodDNSConfig{Nameservers: one(g, "nameservers", [][]string{nil, {"1.1.1.1", "::1"}}, [][]string{{"x"}, {"1.1.1.1", "1.1.1.1", "1.1.1.1", "1.1.1.1"}, {"01.1.1.1"}}),
			Searches: one(g, "searches", [][]string{nil, {"a.b", "a_b.c.", "."}}, [][]string{{"A B"}, {""}}), Options: one(g, "options", [][]corev1.PodDNSConfigOption{nil, {{Name: "ndots"}}}, [][]corev1.PodDNSConfigOption{{{}}})}
	})
	s.TerminationGracePeriodSeconds = maybe(g, "grace", 30, func() int64 { return one(g, "grace", []int64{0, 30, 1}, []int64{-1}) })
	s.ActiveDeadlineSeconds = maybe(g, "deadline", 20, func() int64 { return one(g, "deadline", []int64{1, 600}, []int64{0, -1, 1 << 31}) })
	s.Hostname = one(g, "hostname", []string{"", "h"}, []string{"H", "a.b"})
	s.Subdomain = one(g, "subdomain", []string{"", "s"}, []string{"S", "a.b"})
	s.HostnameOverride = maybe(g, "hostnameOverride", 5, func() string {
		return one(g, "override", []string{"h", "a.b"}, []string{"", "H", "a_b", strings.Repeat("a.", 32) + "a"})
	})
	s.SetHostnameAsFQDN = maybe(g, "fqdn", 20, func() bool { return true })
	s.HostNetwork = g.chance("hostNetwork", 10)
	s.HostPID = g.chance("hostPID", 5)
	s.ShareProcessNamespace = maybe(g, "share", g.untidy(10), func() bool { return true })
	s.HostUsers = maybe(g, "hostUsers", g.untidy(5), func() bool { return g.chance("hostUsers", 50) })
	s.ServiceAccountName = one(g, "account", []string{"", "sa"}, []string{"SA"})
	s.NodeName = one(g, "node", []string{"", "", "n"}, []string{"N"})
	s.NodeSelector = label()
	s.PriorityClassName = one(g, "priority", []string{"", "high"}, []string{"H"})
	s.HostAliases = many(g, "aliases", 1, func() corev1.HostAlias {
		return corev1.HostAlias{IP: one(g, "ip", []string{"1.2.3.4", "::1"}, []string{"", "x", "01.2.3.4"}), Hostnames: []string{one(g, "host", []string{"a", "a.b"}, []string{"", "A", "a_b"})}}
	})
	s.ReadinessGates = many(g, "gates", 1, func() corev1.PodReadinessGate {
		return corev1.PodReadinessGate{ConditionType: corev1.PodConditionType(one(g, "gate", []string{"a/b", "x"}, []string{"", "a b"}))}
	})
	s.Tolerations = many(g, "tolerations", 1-boolInt(g.tidy), func() corev1.Toleration {
		return corev1.Toleration{Key: one(g, "key", []string{"a", ""}, []string{"a b"}), Operator: one(g, "operator", []corev1.TolerationOperator{"Exists", "Equal", ""}, []corev1.TolerationOperator{"x"}),
			Value: one(g, "value", []string{"", "v"}, []string{"a b"}), Effect: one(g, "effect", []corev1.TaintEffect{"", "NoSchedule", "NoExecute"}, []corev1.TaintEffect{"x"}), TolerationSeconds: maybe(g, "seconds", g.untidy(10), func() int64 { return 1 })}
	})
	id := func() int64 { return one(g, "id", []int64{0, 1000}, []int64{-1, 1 << 32}) }
	s.SecurityContext = maybe(g, "securityContext", 20, func() corev1.PodSecurityContext {
		c := corev1.PodSecurityContext{RunAsUser: maybe(g, "user", 30, id), RunAsGroup: maybe(g, "group", 30, id), FSGroup: maybe(g, "fsGroup", 30, id), SupplementalGroups: many(g, "groups", 2, id)}
		c.FSGroupChangePolicy = maybe(g, "change", 10, func() corev1.PodFSGroupChangePolicy {
			return one(g, "change", []corev1.PodFSGroupChangePolicy{"Always", "OnRootMismatch"}, []corev1.PodFSGroupChangePolicy{"x"})
		})
		if g.chance("seccomp", 20) {
			c.SeccompProfile = g.seccomp()
		}
		return c
	})
	s.Resources = maybe(g, "pod resources", g.untidy(15), g.resources)
	s.SchedulingGates = many(g, "scheduling gates", 1-boolInt(g.tidy), func() corev1.PodSchedulingGate {
		return corev1.PodSchedulingGate{Name: one(g, "gate", []string{"a/b"}, []string{"a b"})}
	})
	return p
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
