package runtime

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// words are a node's conditions in short.
func words(conditions []corev1.NodeCondition) string {
	var out []string
	for _, c := range conditions {
		out = append(out, fmt.Sprintf("%s=%s:%s", c.Type, c.Status, c.Reason))
	}
	return strings.Join(out, " ")
}

const healthy = "MemoryPressure=False:KubeletHasSufficientMemory DiskPressure=False:KubeletHasNoDiskPressure " +
	"PIDPressure=False:KubeletHasSufficientPID Ready=True:KubeletReady"

func TestNodeConditions(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	full := []Check{{Name: cpuCheckName, Status: "measured", Mechanism: "tp_btf"}, {Name: "data directory", Status: "ok"}, {Name: "new", Status: "absent"}}

	t.Run("RES-31 a node that lacks nothing", func(t *testing.T) {
		if got := words(nodeConditions(nodeState{Checks: full}, nil, begin)); got != healthy {
			t.Error(got)
		}
	})
	t.Run("RES-31 pressure lasts for five minutes after it was seen", func(t *testing.T) {
		s := nodeState{MemoryShort: at(time.Minute)}
		var last []corev1.NodeCondition
		for _, c := range []struct {
			now, since time.Duration
			want       string
		}{
			{time.Minute, time.Minute, "MemoryPressure=True:KubeletHasInsufficientMemory"},
			{6*time.Minute - 1, time.Minute, "MemoryPressure=True:KubeletHasInsufficientMemory"},
			{6 * time.Minute, 6 * time.Minute, "MemoryPressure=False:KubeletHasSufficientMemory"},
			{time.Hour, 6 * time.Minute, "MemoryPressure=False:KubeletHasSufficientMemory"},
		} {
			last = nodeConditions(s, last, at(c.now))
			if got := words(last[:1]); got != c.want || !last[0].LastTransitionTime.Time.Equal(at(c.since)) || !last[0].LastHeartbeatTime.Time.Equal(at(c.now)) {
				t.Errorf("after %v: %s, %+v", c.now, got, last[0])
			}
		}
		last = nodeConditions(nodeState{DiskShort: begin}, nil, begin)
		if got := words(last[1:2]); got != "DiskPressure=True:KubeletHasDiskPressure" {
			t.Error(got)
		}
	})
	t.Run("a mechanism that is not the best", func(t *testing.T) {
		poor := []Check{{Name: cpuCheckName, Status: "fallback", Mechanism: "thread CPU clock", Why: "EPERM", Hint: "grant CAP_BPF"}}
		last := nodeConditions(nodeState{Checks: poor}, nil, begin)
		if got := words(last); got != healthy+" CPUAccountingDegraded=True:MechanismIsFallback" {
			t.Error(got)
		}
		if got := last[4].Message; got != "cpu accounting: thread CPU clock; not better because: EPERM; to do: grant CAP_BPF" {
			t.Error(got)
		}
		poor[0].Status = "absent"
		if got := words(nodeConditions(nodeState{Checks: poor}, last, begin)[4:]); got != "CPUAccountingDegraded=True:MechanismIsAbsent" {
			t.Error(got)
		}
		last = nodeConditions(nodeState{Checks: full}, last, at(time.Minute))
		if got := words(last); got != healthy+" CPUAccountingDegraded=False:MechanismInForce" || !last[4].LastTransitionTime.Time.Equal(at(time.Minute)) {
			t.Error(got, last[4])
		}
	})
	t.Run("a node that is not ready", func(t *testing.T) {
		s := nodeState{Closing: true, Checks: []Check{{Name: "data directory", Status: "absent", Mechanism: "read-only file system", Hint: "set --data-dir"}}}
		got := nodeConditions(s, nil, begin)
		if words(got[3:]) != "Ready=False:KubeletNotReady" || got[3].Message != "node is shutting down, data directory: read-only file system; to do: set --data-dir" {
			t.Errorf("%+v", got[3])
		}
	})
}

// Whatever is checked has a condition, or the node is not ready without it.
func TestMechanismsHaveConditions(t *testing.T) {
	seen := map[corev1.NodeConditionType]bool{}
	for _, kind := range mechanismConditions {
		if seen[kind] {
			t.Errorf("%s is of two mechanisms", kind)
		}
		seen[kind] = true
	}
	for _, parent := range []string{"", "auto"} {
		for _, c := range Checks(Config{DataDir: t.TempDir(), CgroupParent: parent, EgressWall: WallAuto}) {
			if mechanismConditions[c.Name] == "" && c.Name != "data directory" && c.Name != "egress" {
				t.Errorf("there is no condition for %+v", c)
			}
		}
	}
}

// What is in force is told of when it is found, at some moment of the first second, and
// that a node ends when somebody wants it to is nothing to warn of.
func TestNodeConditionsOfNoConcern(t *testing.T) {
	poor := []Check{{Name: cpuCheckName, Status: "fallback", Mechanism: "thread CPU clock"}}
	for name, looks := range map[string][][]Check{
		"found after the first look":  {nil, poor, poor},
		"found before the first look": {poor, poor},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			r := &Runtime{cfg: Config{DataDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))}}
			for _, checks := range looks {
				r.observe(func(s *nodeState, _ time.Time) { s.Checks = checks })
			}
			r.closed = true
			if got := words(r.observe(func(*nodeState, time.Time) {})); !strings.Contains(got, "Ready=False:KubeletNotReady CPUAccountingDegraded=True") {
				t.Error(got)
			}
			lines := strings.Split(log.String(), "\n")
			lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" || strings.Contains(l, "type=DiskPressure") }) // of this machine
			if len(lines) > 0 {
				t.Errorf("%q", lines)
			}
			r.closed = false
			r.observe(func(s *nodeState, _ time.Time) {
				s.Checks = append(poor, Check{Name: "run queue and page faults", Status: "absent"})
			})
			if !strings.Contains(log.String(), "SchedulerAccountingDegraded") {
				t.Errorf("a mechanism that is lost is not told of: %s", &log)
			}
		})
	}
}

// The conditions of a Runtime follow what its evictor sees, and changes are logged once.
func TestRuntimeTellsNodeConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r, err := Open(t.Context(), Config{
			DataDir: dataDir(t), Interpreter: raceEnabled,
			EvictBelow: 1 << 60, // nobody has that much
			Log:        slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		const line = `level=WARN msg="node condition" type=MemoryPressure status=True reason=KubeletHasInsufficientMemory message="kubelet has insufficient memory available"`
		if n := strings.Count(log.String(), line); n != 1 {
			t.Errorf("RES-31 logged %d times: %s", n, &log)
		}
		got := words(r.NodeConditions())
		if !strings.HasPrefix(got, "MemoryPressure=True:KubeletHasInsufficientMemory ") || !strings.Contains(got, "Ready=True") ||
			!strings.Contains(got, "CPUAccountingDegraded=True:MechanismIsAbsent") { // time is not real
			t.Errorf("RES-31 %s", got)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if got := words(r.NodeConditions()); !strings.Contains(got, "Ready=False:KubeletNotReady") {
			t.Error(got)
		}
	})
}
