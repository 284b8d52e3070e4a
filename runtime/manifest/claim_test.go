package manifest

import (
	"strings"
	"testing"
)

func TestClaims(t *testing.T) {
	const head = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: "
	objects, err := Parse("ns", Source{Name: "f", Data: []byte(head + "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n")})
	if err != nil || len(objects.Claims) != 1 || objects.Claims[0].Namespace != "ns" {
		t.Fatalf("VOL-41: %+v, %v", objects, err)
	}
	set := "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i, volumeMounts: [{name: data, mountPath: /d}]}]}}\n  volumeClaimTemplates: "
	const good = "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}"
	if _, err := Parse("", Source{Name: "f", Data: []byte(set + "[{metadata: {name: data}, " + good + "}]\n")}); err != nil {
		t.Errorf("VOL-41: %v", err)
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: i}]\n  volumes:\n  - name: v\n    "
	for _, tt := range []struct{ yaml, want string }{
		{head + "{resources: {requests: {storage: 1Gi}}}", "spec.accessModes: Required value: at least 1 access mode is required"},
		{head + "{accessModes: [Sometimes], resources: {requests: {storage: 1Gi}}}", `spec.accessModes[0]: Unsupported value: "Sometimes"`},
		{head + "{accessModes: [ReadWriteOnce]}", "spec.resources[storage]: Required value"},
		{head + "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 0}}}", "must be greater than zero"},
		{head + "{accessModes: [ReadWriteOnce], volumeMode: Block, resources: {requests: {storage: 1}}}", "there are no block devices"},
		{pod + "persistentVolumeClaim: {claimName: \"\"}", "spec.volumes[0].persistentVolumeClaim.claimName: Required value"},
		{set + "[{metadata: {name: other}, " + good + "}]", `spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"`},
		{set + "[{" + good + "}]", "spec.volumeClaimTemplates[0].metadata.name: Required value"},
		{set + "[{metadata: {name: data}, " + good + "}, {metadata: {name: data}, " + good + "}]", `spec.volumeClaimTemplates[1].metadata.name: Duplicate value: "data"`},
		{set + "[{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]", "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"},
		{set + "[{metadata: {name: ../data}, " + good + "}]", "spec.volumeClaimTemplates[0].metadata.name: Invalid value"},
		{pod + "ephemeral: {}", "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"},
		{pod + "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce]}}}", "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"},
		{pod + "emptyDir: {}\n    persistentVolumeClaim: {claimName: x}", "may not specify more than 1 volume type"},
	} {
		if _, err := Parse("", Source{Name: "f", Data: []byte(tt.yaml + "\n")}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("VOL-41: %s\ngot  %v\nwant %s", tt.yaml, err, tt.want)
		}
	}
}
