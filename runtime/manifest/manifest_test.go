package manifest_test

import (
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// spec puts lines into the spec of a pod, indented by two.
func spec(lines string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n" + lines
}

const one = "  containers: [{name: c, image: i}]\n"

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		name, input string
		want        []string // each is in the text of the error
	}{
		{"MAN-02 YAML 1.1 booleans", spec("  containers: [{name: c, image: i, env: [{name: y, value: no}]}]\n"), []string{
			"json: cannot unmarshal bool into Go struct field EnvVar.spec.containers.env.name of type string (`y` is a boolean in YAML 1.1: quote it, \"y\")",
			"EnvVar.spec.containers.env.value of type string (`no` is"}},
		{"MAN-02 a number as text", spec("  containers: [{name: c, image: i, env: [{name: a, value: 0644}]}]\n"), []string{`quote it, "0644"`}},
		{"MAN-03 kind", "apiVersion: v1\nkind: Deploymnt\nmetadata: {name: d}\nspec: {}\n", []string{`no kind "Deploymnt" is registered for version "v1" (did you mean ` + "`Deployment`?"}},
		{"MAN-03 apiVersion", "apiVersion: v1\nkind: Deployment\nmetadata: {name: d}\n", []string{`no kind "Deployment" is registered for version "v1" (write ` + "`apiVersion: apps/v1`)"}},
		{"MAN-04 duplicate keys", spec(one + "  restartPolicy: Never\n  restartPolicy: Always\n"), []string{`test.yaml:7: duplicate field "spec.restartPolicy" (it is set on line 6 already`}},
		{"MAN-04 case", spec("  Containers: [{name: c, image: i}]\n"), []string{`unknown field "spec.Containers" (field names are case-sensitive: did you mean ` + "`containers`?)"}},
		{"MAN-04 several unknown fields", spec("  containers:\n  - name: c\n    image: i\n    comand: [a]\n    volumemounts: []\n"), []string{"did you mean `command`?", "did you mean `volumeMounts`?"}},
		{"MAN-05 a list forgotten", spec("  containers: {name: c, image: i}\n"), []string{"cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container (this takes a list"}},
		{"MAN-05 a command as text", spec("  containers: [{name: c, image: i, command: ls -l}]\n"), []string{`this takes a list: write ` + "`[\"ls -l\"]`"}},
		{"MAN-05 a port in quotes", spec("  containers: [{name: c, image: i, livenessProbe: {tcpSocket: {port: \"8080\"}}}]\n"), []string{"must contain at least one letter (a-z) (in quotes this is the name of a port: write 8080 without quotes)"}},
		{"MAN-06 smart quotes", spec("  containers:\n  - name: “c”\n    image: i\n"), []string{"test.yaml:6: Pod \"p\": spec.containers[0].name: Invalid value", "left double quotation mark U+201C"}},
		{"MAN-06 no-break space", "apiVersion: v1\nkind: Pod\nmetadata:\n\u00a0 name: p\nspec: {containers: [{name: c, image: i}]}\n", []string{"test.yaml:4: Pod: unknown field", "the key contains a no-break space U+00A0"}},
		{"tabs", "apiVersion: v1\nkind: Pod\nmetadata:\n\tname: p\nspec: {}\n", []string{"test.yaml:4: tab in the indentation (YAML is indented with spaces only)", "spec.containers: Required value"}},
		{"templates", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n", []string{"test.yaml:4: template expression", "render it first"}},
		{"a placeholder for a number", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: ${N}\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}\n", []string{"looks like a placeholder of a template"}},
		{"MAN-07 all at once, by line", spec("  restartPolicy: never\n  containers:\n  - name: A\n  - image: i\n"), []string{
			"test.yaml:5: Pod \"p\": spec.restartPolicy: Unsupported value: \"never\": supported values: \"Always\", \"OnFailure\", \"Never\" (did you mean `Never`?)",
			"test.yaml:7: Pod \"p\": spec.containers[0].name: Invalid value: \"A\"", "test.yaml:7: Pod \"p\": spec.containers[0].image: Required value", "test.yaml:8: Pod \"p\": spec.containers[1].name: Required value"}},
		{"MAN-18", spec("  initContainers: [{name: i, image: i, lifecycle: {}}]\n" + one), []string{"spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always"}},
		{"MAN-22", spec("  containers: [{name: c, image: i, volumeMounts: [{name: nope, mountPath: /a}]}]\n"), []string{`spec.containers[0].volumeMounts[0].name: Not found: "nope"`}},
		{"MAN-26 ephemeral containers", spec("  ephemeralContainers: [{name: e, image: i}]\n" + one), []string{"spec.ephemeralContainers: Forbidden: cannot be set on create"}},
		{"RES-01 quantities", spec("  containers: [{name: c, image: i, resources: {limits: {memory: 64MB, cpu: 1core}}}]\n"), []string{"did you mean `64M`?", "did you mean `1`?"}},
		{"WL-21", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: c}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}\n", []string{
			"spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`", `spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
		{"RST-30 jobs", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {template: {spec: {containers: [{name: c, image: i}]}}}\n", []string{`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`}},
		{"WL-26 a wrong nesting", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, containers: [{name: c, image: i}]}\n", []string{`unknown field "spec.containers" (belongs in ` + "`spec.template.spec`)"}},
		{"volumes that are not supported", spec("  volumes: [{name: v, csi: {driver: x}}, {name: w, projected: {sources: [{serviceAccountToken: {path: token}}]}}]\n" + one), []string{"spec.volumes[0].csi: Forbidden: not supported: there are no storage drivers", "spec.volumes[1].projected.sources[0].serviceAccountToken: Forbidden: not supported: there is no API server"}},
		{"VOL-16 projected and downwardAPI volumes", spec(`  volumes:
  - {name: a, projected: {defaultMode: 1000, sources: [{configMap: {name: c, items: [{key: k, path: p}]}}, {secret: {items: [{key: k, path: p}]}}, {secret: {name: s}, configMap: {name: c}}]}}
  - {name: b, downwardAPI: {items: [{path: ../x, fieldRef: {fieldPath: metadata.name}}, {path: y}, {path: z, fieldRef: {fieldPath: status.podIP}}, {path: r, resourceFieldRef: {resource: limits.cpu}}]}}
` + one), []string{
			"spec.volumes[0].projected.defaultMode: Invalid value: 1000", "spec.volumes[0].projected: Invalid value: \"\": conflicting duplicate paths",
			"spec.volumes[0].projected.sources[1].secret.name: Required value", "spec.volumes[0].projected.sources[2]: Forbidden: may not specify more than 1 volume type",
			"spec.volumes[1].downwardAPI.path: Invalid value: \"../x\": must not contain '..'", "spec.volumes[1].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
			"spec.volumes[1].downwardAPI.fieldRef.fieldPath: Unsupported value: \"status.podIP\"", "spec.volumes[1].downwardAPI.resourceFieldRef.containerName: Required value",
		}},
		{"the same object twice", spec(one) + "---\n" + spec(one), []string{`pods "p" already exists (declared at test.yaml:1 already)`}},
		{"base64", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: plain text}\n", []string{"data[a]: illegal base64 data", "plain text goes into stringData"}},
		{"lists", "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: p}\n  spec: {}\n- kind: pod\n", []string{`test.yaml:5: Pod "p": spec.containers: Required value`, "did you mean `Pod`?"}},
		{"line numbers count from the top of the file", spec(one) + "---\n" + "# a comment\n---\na:\n  b: c\n d: e\n", []string{"test.yaml:9: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := manifest.Parse("", manifest.Source{Name: "test.yaml", Data: []byte(c.input)})
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %s in\n%s", w, err)
				}
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	for _, c := range []struct {
		name, input string
		warnings    []string
	}{
		{"RST-20 RestartAllContainers", spec("  containers: [{name: c, image: i, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [1]}}]}]\n"), nil},
		{"MAN-01 comments and empty documents", "# c\n---\n---\nnull\n---\n" + spec(one) + "...\n", nil},
		{"MAN-01 JSON after JSON", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","annotations":{"x":"\ud83d\ude00"}}} {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}`, nil},
		{"MAN-01 carriage returns and a byte order mark", "\ufeff" + strings.ReplaceAll(spec(one), "\n", "\r\n"), nil},
		{"MAN-02 octal modes", spec("  volumes: [{name: v, configMap: {name: m, defaultMode: 0644, optional: true}}]\n" + one), nil},
		{"MAN-15 one port in two containers", spec("  containers: [{name: a, image: i, ports: [{containerPort: 80}]}, {name: b, image: i, ports: [{containerPort: 80}]}]\n"), []string{"spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]"}},
		{"MAN-21 a variable twice", spec("  containers: [{name: c, image: i, env: [{name: A}, {name: A}]}]\n"), []string{`spec.containers[0].env[1]: hides previous definition of "A"`}},
		{"MAN-24 milli-bytes", spec("  containers: [{name: c, image: i, resources: {limits: {memory: 100m}}}]\n"), []string{`fractional byte value "100m" is invalid`}},
		{"MAN-29 an impossible name", spec("  volumes: [{name: v, secret: {secretName: A}}]\n" + one), []string{`spec.volumes[0].secret.secretName: "A" can never exist`}},
		{"NET-07", spec("  shareProcessNamespace: true\n  hostIPC: true\n  hostPID: false\n" + one), []string{"spec.hostIPC: ignored", "spec.shareProcessNamespace: ignored"}},
		{"SEC-06 once, however many containers", spec("  containers: [{name: a, image: i, securityContext: {privileged: true}}, {name: b, image: i, securityContext: {privileged: true}}]\n"), []string{"spec.containers[0].securityContext.privileged: ignored"}},
		{"what an API server fills in needs no warning", spec("  schedulerName: default-scheduler\n  serviceAccountName: default\n  enableServiceLinks: true\n  preemptionPolicy: PreemptLowerPriority\n  priority: 0\n  securityContext: {}\n" + one), nil},
		{"ENV-05 an object nobody declares", spec("  containers: [{name: c, image: i, envFrom: [{configMapRef: {name: m}}]}]\n"), []string{`ConfigMap "m" is in none of the manifests`}},
		{"kinds without effect", "apiVersion: v1\nkind: Endpoints\nmetadata: {name: s}\n", []string{`Endpoints "s": has no effect in wasmpod run`}},
		{"WL-30 a load balancer", service("type: LoadBalancer, selector: {a: b}, ports: [{port: 80}]"), []string{"spec.type: treated as NodePort"}},
		{"WL-30 nobody behind it", service("ports: [{port: 80, appProtocol: http}]"), []string{"spec.ports[0].appProtocol: ignored", "spec.selector: a Service without a selector has no endpoints"}},
		{"WL-30 one node port for both protocols", service("type: NodePort, selector: {a: b}, ports: [{name: t, port: 53, nodePort: 30053}, {name: u, port: 53, nodePort: 30053, protocol: UDP}]"), []string{}},
		{"SIDE sidecars and rules", spec("  initContainers: [{name: s, image: i, restartPolicy: Always, restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [3]}}]}]\n" + one), nil},
		{"merge keys and anchors", spec("  containers:\n  - &c {name: c, image: i}\n  - {<<: *c, name: d}\n"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			objs, err := manifest.Parse("", manifest.Source{Name: "test.yaml", Data: []byte(c.input)})
			if err != nil {
				t.Fatal(err)
			}
			if len(objs.Warnings) != len(c.warnings) {
				t.Fatalf("warnings %v, want %v", objs.Warnings, c.warnings)
			}
			for i, w := range c.warnings {
				if got := objs.Warnings[i].String(); !strings.Contains(got, w) {
					t.Errorf("warning %q, want %q", got, w)
				}
			}
		})
	}
}

func TestSecretStringData(t *testing.T) {
	objs, err := manifest.Parse("ns", manifest.Source{Name: "s", Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==}\nstringData: {b: text}\n")})
	if err != nil {
		t.Fatal(err)
	}
	s := objs.Secrets[0]
	if string(s.Data["a"]) != "a" || string(s.Data["b"]) != "text" || s.StringData != nil || s.Type != "Opaque" || s.Namespace != "ns" {
		t.Errorf("%+v", s)
	}
}

func service(spec string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {" + spec + "}\n"
}

func TestServicesAndPolicies(t *testing.T) {
	objs, err := manifest.Parse("ns", manifest.Source{Name: "s", Data: []byte(service("selector: {a: b}, ports: [{port: 80}]") +
		"---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {egress: [{ports: [{port: 53}]}]}\n")})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("WL-30 defaults of a Service", func(t *testing.T) {
		s := objs.Services[0].Spec
		if p := s.Ports[0]; s.Type != "ClusterIP" || s.SessionAffinity != "None" || p.Protocol != "TCP" || p.TargetPort.IntVal != 80 {
			t.Errorf("defaulted to %+v", s)
		}
	})
	t.Run("a policy with egress rules is about both directions", func(t *testing.T) {
		s := objs.NetworkPolicies[0].Spec
		if len(s.PolicyTypes) != 2 || *s.Egress[0].Ports[0].Protocol != "TCP" {
			t.Errorf("defaulted to %+v", s)
		}
	})
	other := strings.ReplaceAll(service("type: NodePort, clusterIP: 10.0.0.1, selector: {a: b}, ports: [{port: 80, nodePort: 30080}]"), "name: s}", "name: o}")
	_, err = manifest.Parse("ns", manifest.Source{Name: "s", Data: []byte(
		service("type: NodePort, clusterIP: 10.0.0.1, selector: {a: b}, ports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 81, nodePort: 80}]") + "---\n" + other)})
	for _, want := range []string{
		`Service "s": spec.ports[1].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767`,
		`Service "o": spec.clusterIPs: Invalid value: ["10.0.0.1"]: failed to allocate IP 10.0.0.1: provided IP is already allocated`,
		`Service "o": spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("WL-30 no %s in\n%v", want, err)
		}
	}
}
