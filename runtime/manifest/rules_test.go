package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

func parsed(t *testing.T, input string) *manifest.Objects {
	t.Helper()
	objects, err := manifest.Parse("", manifest.Source{Name: "test.yaml", Data: []byte(input)})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func pod(t *testing.T, lines string) *corev1.PodSpec {
	t.Helper()
	return &parsed(t, spec(lines)).Pods[0].Spec
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: %s, want %s", what, g, w)
	}
}

func TestDefaults(t *testing.T) {
	t.Run("MAN-09 of containers", func(t *testing.T) {
		digest := "@sha256:" + strings.Repeat("0", 64)
		for image, policy := range map[string]corev1.PullPolicy{
			"i": "Always", "i:latest": "Always", "i:1": "IfNotPresent", "h:5000/i": "Always", "i" + digest: "IfNotPresent", "i:latest" + digest: "Always",
		} {
			c := pod(t, "  containers: [{name: c, image: \""+image+"\", ports: [{containerPort: 80}]}]\n").Containers[0]
			want(t, image, c.ImagePullPolicy, policy)
			want(t, "path", c.TerminationMessagePath, "/dev/termination-log")
			want(t, "policy", c.TerminationMessagePolicy, "File")
			want(t, "protocol", c.Ports[0].Protocol, "TCP")
			want(t, "hostPort", c.Ports[0].HostPort, 0)
		}
		c := pod(t, "  hostNetwork: true\n  containers: [{name: c, image: i, ports: [{containerPort: 80}]}]\n").Containers[0]
		want(t, "NET-05 hostPort on the host's network", c.Ports[0].HostPort, 80)
	})
	t.Run("MAN-10 TIME-13 of handlers", func(t *testing.T) {
		c := pod(t, `  containers:
  - name: c
    image: i
    livenessProbe: {httpGet: {port: 80}}
    readinessProbe: {grpc: {port: 80}}
    env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    lifecycle: {preStop: {httpGet: {port: 80}}}
`).Containers[0]
		p := c.LivenessProbe
		want(t, "delay/timeout/period/success/failure", []int32{p.InitialDelaySeconds, p.TimeoutSeconds, p.PeriodSeconds, p.SuccessThreshold, p.FailureThreshold}, []int32{0, 1, 10, 1, 3})
		for _, h := range []*corev1.HTTPGetAction{p.HTTPGet, c.Lifecycle.PreStop.HTTPGet} {
			want(t, "httpGet", h.Path+" "+string(h.Scheme), "/ HTTP")
		}
		want(t, "service", *c.ReadinessProbe.GRPC.Service, "")
		want(t, "fieldRef", c.Env[0].ValueFrom.FieldRef.APIVersion, "v1")
	})
	t.Run("MAN-11 of resources", func(t *testing.T) {
		s := pod(t, `  initContainers: [{name: i, image: i, resources: {limits: {cpu: 1}}}]
  containers: [{name: c, image: i, resources: {limits: {memory: 1Mi, cpu: 100u}, requests: {cpu: 1u}}}]
`)
		want(t, "request of an init container", s.InitContainers[0].Resources.Requests.Cpu(), "1")
		r := s.Containers[0].Resources
		want(t, "request from the limit", r.Requests.Memory(), "1Mi")
		want(t, "rounded up", r.Limits.Cpu().String()+" "+r.Requests.Cpu().String(), "1m 1m")
		s = pod(t, `  resources: {limits: {cpu: 2, memory: 1Gi}}
  containers: [{name: c, image: i, resources: {requests: {cpu: 1}}}]
`)
		want(t, "the pod's request, from its containers", s.Resources.Requests.Cpu(), "1")
		want(t, "the pod's request, from its limit", s.Resources.Requests.Memory(), "1Gi")
		d := parsed(t, deployment("containers: [{name: c, image: i, resources: {limits: {cpu: 1}}}]")).Deployments[0]
		want(t, "a template keeps its own", len(d.Spec.Template.Spec.Containers[0].Resources.Requests), 0)
	})
	t.Run("MAN-12 of volumes", func(t *testing.T) {
		s := pod(t, one+`  volumes:
  - name: a
  - {name: b, hostPath: {path: /x}}
  - {name: c, configMap: {name: m, optional: true}}
  - {name: d, secret: {secretName: s, optional: true}}
`)
		want(t, "no source", s.Volumes[0].EmptyDir != nil, true)
		want(t, "hostPath type", *s.Volumes[1].HostPath.Type, "")
		want(t, "modes", []int32{*s.Volumes[2].ConfigMap.DefaultMode, *s.Volumes[3].Secret.DefaultMode}, "[420 420]")
	})
	t.Run("MAN-20 of the pod: a negative grace is a second", func(t *testing.T) {
		want(t, "grace", *pod(t, "  terminationGracePeriodSeconds: -5\n"+one).TerminationGracePeriodSeconds, 1)
	})
	t.Run("MAN-28 a bad image reference is no business of validation", func(t *testing.T) {
		want(t, "image", pod(t, "  containers: [{name: c, image: \"UPPER/x:1\"}]\n").Containers[0].Image, "UPPER/x:1")
	})
	t.Run("WL-20 of Deployments", func(t *testing.T) {
		d := parsed(t, deployment("containers: [{name: c, image: i}]")).Deployments[0]
		s := &d.Spec
		want(t, "replicas, history, deadline, ready", []int32{*s.Replicas, *s.RevisionHistoryLimit, *s.ProgressDeadlineSeconds, s.MinReadySeconds}, "[1 10 600 0]")
		want(t, "strategy", fmt.Sprint(s.Strategy.Type, s.Strategy.RollingUpdate.MaxSurge, s.Strategy.RollingUpdate.MaxUnavailable), "RollingUpdate25% 25%")
	})
}

func deployment(template string) string {
	return "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {" + template + "}}\n"
}

func TestValidation(t *testing.T) {
	container := func(fields string) string { return spec("  containers: [{name: c, image: i, " + fields + "}]\n") }
	sixtyFour := strings.Repeat("a", 64)
	for _, c := range []struct{ name, input, want string }{
		{"MAN-13 no name", "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: c, image: i}]}\n", "metadata.name: Required value: name or generateName is required"},
		{"MAN-13 a pod's name", strings.Replace(spec(one), "name: p", "name: A.b", 1), `metadata.name: Invalid value: "A.b": a lowercase RFC 1123 subdomain`},
		{"MAN-13 the longest name of a pod", strings.Replace(spec(one), "name: p", "name: "+strings.Repeat("a", 254), 1), "must be no more than 253"},
		{"MAN-13 a container's name", spec("  containers: [{name: a.b, image: i}]\n"), `spec.containers[0].name: Invalid value: "a.b": must not contain dots`},
		{"MAN-13 a volume's name", spec("  volumes: [{name: " + sixtyFour + "}]\n" + one), "spec.volumes[0].name: Invalid value"},
		{"MAN-13 a hostname", spec("  hostname: a.b\n" + one), `spec.hostname: Invalid value: "a.b"`},
		{"MAN-13 a subdomain", spec("  subdomain: a.b\n" + one), `spec.subdomain: Invalid value: "a.b"`},
		{"MAN-13 a name twice", spec("  initContainers: [{name: d, image: i}, {name: c, image: i}]\n" + one), `spec.initContainers[1].name: Duplicate value: "c"`},
		{"MAN-14 no containers", spec("  restartPolicy: Never\n"), "spec.containers: Required value"},
		{"MAN-14 no image", spec("  containers: [{name: c}]\n"), "spec.containers[0].image: Required value"},
		{"MAN-14 blanks around an image", spec("  containers: [{name: c, image: \" i\"}]\n"), "must not have leading or trailing whitespace"},
		{"MAN-16 no handler", container("livenessProbe: {periodSeconds: 1}"), "must specify a handler type"},
		{"MAN-16 two handlers", container("livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}"), "may not specify more than 1 handler type"},
		{"MAN-16 a negative number", container("livenessProbe: {exec: {command: [a]}, periodSeconds: -1}"), "must be greater than or equal to 0"},
		{"MAN-16 liveness successThreshold", container("livenessProbe: {exec: {command: [a]}, successThreshold: 2}"), "livenessProbe.successThreshold: Invalid value: 2: must be 1"},
		{"MAN-16 startup successThreshold", container("startupProbe: {exec: {command: [a]}, successThreshold: 2}"), "startupProbe.successThreshold: Invalid value: 2: must be 1"},
		{"MAN-16 no grace", container("livenessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 0}"), "livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0"},
		{"MAN-16 grace of a readiness probe", container("readinessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 1}"), "must not be set for readinessProbes"},
		{"MAN-16 scheme", container("livenessProbe: {httpGet: {port: 1, scheme: http}}"), `scheme: Unsupported value: "http": supported values: "HTTP", "HTTPS"`},
		{"MAN-16 header", container("livenessProbe: {httpGet: {port: 1, httpHeaders: [{name: \"a b\", value: c}]}}"), "httpHeaders"},
		{"MAN-16 command", container("livenessProbe: {exec: {command: []}}"), "livenessProbe.exec.command: Required value"},
		{"MAN-16 port", container("livenessProbe: {tcpSocket: {port: 70000}}"), "must be between 1 and 65535"},
		{"MAN-17 no handler", container("lifecycle: {preStop: {}}"), "must specify a handler type"},
		{"MAN-17 sleep past the grace", spec("  terminationGracePeriodSeconds: 5\n  containers: [{name: c, image: i, lifecycle: {preStop: {sleep: {seconds: 6}}}}]\n"), "must be non-negative and less than terminationGracePeriodSeconds (5)"},
		{"MAN-19 rules without a policy", container("restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]"), "must specify restartPolicy when restart rules are used"},
		{"MAN-19 action", container("restartPolicy: Never, restartPolicyRules: [{action: Stop, exitCodes: {operator: In, values: [1]}}]"), `action: Unsupported value: "Stop"`},
		{"MAN-19 no exit codes", container("restartPolicy: Never, restartPolicyRules: [{action: Restart}]"), "exitCodes: Required value"},
		{"MAN-19 operator", container("restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: Near, values: [1]}}]"), `operator: Unsupported value: "Near"`},
		{"MAN-19 too many rules", container("restartPolicy: Never, restartPolicyRules: [" + strings.Repeat("{action: Restart, exitCodes: {operator: In, values: [1]}},", 21) + "]"), "Too many: 21: must have at most 20 items"},
		{"MAN-19 too many values", container("restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [" + numbers(256) + "]}}]"), "must have at most 255 items"},
		{"MAN-20 policy", spec("  restartPolicy: Sometimes\n" + one), `spec.restartPolicy: Unsupported value: "Sometimes"`},
		{"MAN-20 deadline", spec("  activeDeadlineSeconds: 0\n" + one), "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"},
		{"MAN-23 two sources", spec("  volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]\n" + one), "may not specify more than 1 volume type"},
		{"MAN-23 a name twice", spec("  volumes: [{name: v}, {name: v}]\n" + one), `spec.volumes[1].name: Duplicate value: "v"`},
		{"MAN-23 a hostPath that goes up", spec("  volumes: [{name: v, hostPath: {path: /a/../b}}]\n" + one), "must not contain '..'"},
		{"ENV-06 MAN-21 fileKeyRef of no volume", spec("  containers: [{name: c, image: i, env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: K}}}]}]"), `spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: "v"`},
		{"ENV-06 MAN-21 fileKeyRef of another volume", spec("  volumes: [{name: v, hostPath: {path: /a}}]\n  containers: [{name: c, image: i, env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: K}}}]}]"), "referenced volume must be of type emptyDir"},
		{"ENV-06 MAN-21 fileKeyRef that goes up", spec("  volumes: [{name: v}]\n  containers: [{name: c, image: i, env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: ../p, key: K}}}]}]"), "must not contain '..'"},
		{"ENV-06 MAN-21 fileKeyRef without a key", spec("  volumes: [{name: v}]\n  containers: [{name: c, image: i, env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p}}}]}]"), "fileKeyRef.key: Required value"},
		{"DAPI-06 a divisor of cpu", container("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1k}}}]"), "only divisor's values 1m and 1 are supported with the cpu resource"},
		{"DAPI-06 a divisor of memory", container("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1m}}}]"), "are supported with the memory resource"},
		{"MAN-23 items", spec("  volumes: [{name: v, configMap: {name: m, items: [{key: k, path: ../x}]}}]\n" + one), "must not contain '..'"},
		{"MAN-23 items without a key", spec("  volumes: [{name: v, configMap: {name: m, items: [{path: x}]}}]\n" + one), "items[0].key: Required value"},
		{"MAN-23 mode", spec("  volumes: [{name: v, configMap: {name: m, defaultMode: 512}}]\n" + one), "must be a number between 0 and 0777 (octal), both inclusive"},
		{"MAN-23 sizeLimit", spec("  volumes: [{name: v, emptyDir: {sizeLimit: -1}}]\n" + one), "SizeLimit field must be a valid resource quantity"},
		{"MAN-25 another resource", spec("  resources: {limits: {ephemeral-storage: 1Gi}}\n" + one), "spec.resources.limits[ephemeral-storage]: Unsupported value"},
		{"MAN-25 less than its containers ask for", spec("  resources: {requests: {cpu: 1}}\n  containers: [{name: c, image: i, resources: {requests: {cpu: 2}}}]\n"), "must be greater than or equal to aggregate container requests of 2"},
		{"MAN-25 a container above the pod's limit", spec("  resources: {limits: {cpu: 1}}\n  containers: [{name: c, image: i, resources: {requests: {cpu: 1}, limits: {cpu: 2}}}]\n"), "must be less than or equal to pod limits of 1"},
		{"SEC-07 privileged", container("securityContext: {privileged: true, allowPrivilegeEscalation: false}"), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"},
		{"SEC-07 CAP_SYS_ADMIN", container("securityContext: {allowPrivilegeEscalation: false, capabilities: {add: [CAP_SYS_ADMIN]}}"), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"},
		{"WL-01 a label's key", strings.Replace(spec(one), "name: p", "name: p, labels: {\"a b\": c}", 1), "metadata.labels: Invalid value: \"a b\": name part must consist of"},
		{"WL-01 a label's prefix", strings.Replace(spec(one), "name: p", "name: p, labels: {\"A_/b\": c}", 1), "metadata.labels: Invalid value"},
		{"WL-01 a label's value", strings.Replace(spec(one), "name: p", "name: p, labels: {a: "+sixtyFour+"}", 1), "must be no more than 63"},
		{"WL-01 annotations' size", strings.Replace(spec(one), "name: p", "name: p, annotations: {a: "+strings.Repeat("x", 256<<10)+"}", 1), "metadata.annotations: Too long"},
		{"WL-32 a custom resource", "apiVersion: crdb.cockroachlabs.com/v1alpha1\nkind: CrdbCluster\nmetadata: {name: x}\n", "CrdbCluster"},
		{"WL-02 a selector's operator", strings.Replace(deployment("containers: [{name: c, image: i}]"), "{matchLabels: {a: b}}", "{matchExpressions: [{key: a, operator: Near}]}", 1), "not a valid selector operator"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := manifest.Parse("", manifest.Source{Name: "test.yaml", Data: []byte(c.input)})
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("no %s in\n%.600s", c.want, err)
			}
		})
	}
	for _, c := range []struct{ name, input string }{
		{"MAN-17 sleep for as long as the grace", spec("  terminationGracePeriodSeconds: 5\n  containers: [{name: c, image: i, lifecycle: {preStop: {sleep: {seconds: 5}}, postStart: {sleep: {seconds: 0}}}}]\n")},
		{"MAN-17 tcpSocket", container("lifecycle: {postStart: {tcpSocket: {port: 1}}}")},
		{"WL-01 an annotation's value", strings.Replace(spec(one), "name: p", "name: p, annotations: {a/b: \"{} any *text*\"}", 1)},
		{"WL-02 a selector with expressions", strings.Replace(deployment("containers: [{name: c, image: i}]"), "{matchLabels: {a: b}}",
			"{matchExpressions: [{key: a, operator: In, values: [b, c]}, {key: z, operator: DoesNotExist}, {key: w, operator: NotIn, values: [x]}, {key: a, operator: Exists}]}", 1)},
	} {
		t.Run(c.name, func(t *testing.T) { parsed(t, c.input) })
	}
}

func numbers(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return strings.Join(list, ",")
}
