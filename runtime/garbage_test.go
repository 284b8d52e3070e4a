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

func TestGarbage(t *testing.T) {
	kept := func(t *testing.T, r *Runtime) (names []string) {
		t.Helper()
		synctest.Wait()
		pod := r.Pods()[0]
		files, err := os.ReadDir(filepath.Dir(logs.Path(r.logRoot(), pod.Namespace, pod.Name, string(pod.UID), "c", 0)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			names = append(names, f.Name())
		}
		return names
	}
	t.Run("TIME-12 LOG-11 the newest dead instance is kept, and the one that runs", func(t *testing.T) {
		inBubble(t, podOf("Always", `"-1", "3"`), func(t *testing.T, r *Runtime, _ *output) {
			time.Sleep(59 * time.Second)
			if got := kept(t, r); !slices.Equal(got, []string{"0.log", "1.log", "2.log", "3.log"}) {
				t.Errorf("before a minute: %q", got)
			}
			time.Sleep(2 * time.Second)
			if got := kept(t, r); !slices.Equal(got, []string{"3.log"}) {
				t.Errorf("after a minute: %q", got)
			}
			time.Sleep(28 * time.Minute)
			if got := kept(t, r); !slices.Equal(got, []string{"10.log"}) {
				t.Errorf("after half an hour: %q", got)
			}
		})
	})
	t.Run("TIME-12 what runs counts beside", func(t *testing.T) {
		inBubble(t, podOf("Always", `"-1", "1", "150s"`), func(t *testing.T, r *Runtime, _ *output) {
			time.Sleep(10 * time.Minute)
			if got := kept(t, r); !slices.Equal(got, []string{"2.log", "3.log"}) {
				t.Errorf("%q", got)
			}
		})
	})
	t.Run("RST-20 what RestartAllContainers has removed leaves its logs", func(t *testing.T) {
		rule := `restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [3]}}]`
		yaml := strings.Replace(podOf("Always", `"-1", "3", "150s"`), "    image:", "    restartPolicy: Never\n    "+rule+"\n    image:", 1)
		inBubble(t, yaml, func(t *testing.T, r *Runtime, _ *output) {
			time.Sleep(10 * time.Minute)
			if got := kept(t, r); !slices.Equal(got, []string{"0.log", "1.log", "2.log", "3.log"}) {
				t.Errorf("%q", got)
			}
		})
	})
}
