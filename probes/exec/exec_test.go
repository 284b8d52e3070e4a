package exec

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/probes"
)

func TestProbe(t *testing.T) {
	says := func(code int32, stdout, stderr string) Run {
		return func(_ context.Context, _ []string, out, err io.Writer) (int32, error) {
			io.WriteString(err, stderr)
			io.WriteString(out, stdout)
			return code, nil
		}
	}
	for name, tt := range map[string]struct {
		run    Run
		want   probes.Result
		output string
		err    string
	}{
		"PROBE-21 success":        {says(0, "fine", ""), probes.Success, "fine", ""},
		"PROBE-21 failure":        {says(3, "out,", "err"), probes.Failure, "out,err", ""},
		"PROBE-21 TIME-20 10 KiB": {says(1, strings.Repeat("x", 9<<10), strings.Repeat("y", 9<<10)), probes.Failure, strings.Repeat("x", 9<<10) + strings.Repeat("y", 1<<10), ""},
		"output that is no text":  {says(1, "\xff", ""), probes.Failure, "\ufffd", ""},
		"PROBE-09 no such command": {func(context.Context, []string, io.Writer, io.Writer) (int32, error) {
			return 0, errors.New("not found")
		}, probes.Unknown, "", "not found"},
		"PROBE-22 timeout": {func(ctx context.Context, _ []string, _, _ io.Writer) (int32, error) {
			<-ctx.Done()
			return 137, ctx.Err()
		}, probes.Failure, `command timed out: "cat /x" timed out after 1s`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				result, output, err := Probe(ctx, tt.run, []string{"cat", "/x"})
				if result != tt.want || output != tt.output || (err == nil) != (tt.err == "") {
					t.Errorf("%v %.100q %v", result, output, err)
				}
			})
		})
	}
	t.Run("HOOK-02 error of a hook", func(t *testing.T) {
		output, err := Command(t.Context(), says(1, "out", "err"), []string{"sh", "-c", "exit 1"})
		if want := "command 'sh -c exit 1' exited with 1: err"; err == nil || err.Error() != want || output != "outerr" {
			t.Errorf("%q %v", output, err)
		}
	})
}
