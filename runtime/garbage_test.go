package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/runtime/logs"
)

// The test has a pod for each case in one bubble, as each bubble compiles the guest.
func TestGarbageTIME12_LOG11_INIT10_RST20(t *testing.T) {
	named := func(name, args string) string {
		return strings.Replace(podOf("Always", args), "{name: p}", "{name: "+name+"}", 1)
	}
	rule := `restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [3]}}]`
	yaml := strings.Join([]string{
		named("loops", `"-1", "3"`),
		named("runs", `"-1", "1", "150s"`),
		strings.Replace(named("resets", `"-1", "3", "150s"`), "    image:", "    restartPolicy: Never\n    "+rule+"\n    image:", 1),
		strings.Replace(named("init", `"-1", "3"`), "  containers:\n", "  containers: [{name: main, image: GUEST}]\n  initContainers:\n", 1),
	}, "\n---\n")
	inBubble(t, yaml, func(t *testing.T, r *Runtime, _ *output) {
		expect := func(name, pod string, want ...string) {
			t.Helper()
			synctest.Wait()
			for _, p := range r.Pods() {
				if p.Name != pod {
					continue
				}
				files, err := os.ReadDir(filepath.Dir(logs.Path(r.logRoot(), p.Namespace, p.Name, string(p.UID), "c", 0)))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, f := range files {
					got = append(got, f.Name())
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
				return
			}
			t.Errorf("no pod %s", pod)
		}
		time.Sleep(59 * time.Second)
		expect("TIME-12 nothing is collected before a minute", "loops", "0.log", "1.log", "2.log", "3.log")
		time.Sleep(2 * time.Second)
		expect("TIME-12 LOG-11 then the newest dead instance is kept", "loops", "3.log")
		time.Sleep(9 * time.Minute)
		expect("TIME-12 what runs counts beside", "runs", "2.log", "3.log")
		expect("RST-20 what RestartAllContainers has removed leaves its logs", "resets", "0.log", "1.log", "2.log", "3.log")
		expect("INIT-10 of init containers the newest alone", "init", "6.log")
	})
}
