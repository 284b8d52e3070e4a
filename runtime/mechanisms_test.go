package runtime

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// linesOf keeps what is in force, as the log has it.
type linesOf struct {
	slog.Handler
	lines chan<- string
}

func (h linesOf) Enabled(context.Context, slog.Level) bool { return true }

func (h linesOf) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "in force" {
		return nil
	}
	var fields []string
	r.Attrs(func(a slog.Attr) bool {
		fields = append(fields, a.Key+"="+a.Value.String())
		return true
	})
	select {
	case h.lines <- strings.Join(fields, " "):
	default:
	}
	return nil
}

// What wasmpod check says is what the log and the metrics say of a process that runs.
func TestMechanismsAreTold(t *testing.T) {
	lines := make(chan string, 100)
	cfg := Config{DataDir: t.TempDir(), Interpreter: raceEnabled, Log: slog.New(linesOf{slog.DiscardHandler, lines})}
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	could := Checks(cfg)
	could = slices.DeleteFunc(could, func(c Check) bool { return c.Name == "data directory" || c.Name == "pod IPs on the host" })
	for _, c := range could { // in the same order
		line := <-lines
		if !strings.HasPrefix(line, "what="+c.Name+" status=") || c.Mechanism == "" {
			t.Errorf("the log has %q, check has %+v", line, c)
		}
		if (c.Status == "fallback" || c.Status == "absent") && c.Hint == "" {
			t.Errorf("nothing is told to do about %+v", c)
		}
	}
	registry := prometheus.NewRegistry()
	if err := r.RegisterMetrics(registry); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, f := range families {
		if f.GetName() == "wasmpod_mechanism_info" {
			told = len(f.GetMetric())
		}
	}
	if told != len(could) {
		t.Errorf("%d mechanisms in the metrics, want %d", told, len(could))
	}
}
