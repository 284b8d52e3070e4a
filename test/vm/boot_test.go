package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		name, said string
		begun      bool
		err        string // a part of it; empty: none
	}{
		{"passed", "\x1b[2Jvm: Linux 6.1\r\nvm: test p \r\nPASS\r\nvm: all passed\r\n[    3.9] reboot: Power down\r\n", true, ""},
		{"the kernel cuts in", "vm: Linux 6.1\nok vm: all passed[    3.9] reboot: Power down\n", true, ""},
		{"systemd's", "=== RUN   TestX\n--- PASS: TestX\nvm: all passed\n", true, ""},
		{"a package failed", "vm: Linux 6.1\nvm: test p \nFAIL\nvm: p: exit status 1\nvm: 1 of 2 packages failed\n", true, "p: exit status 1; 1 of 2 packages failed"},
		{"a panic of the kernel", "vm: Linux 6.1\nvm: test p \n=== RUN   TestX\nKernel panic - not syncing\n", true, "the last that it said: Kernel panic"},
		{"nothing", "SeaBIOS\nBooting from ROM...\n", false, "Booting from ROM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o outcome
			told := 0
			if err := o.read(strings.NewReader(c.said), io.Discard, func() { told++ }); err != nil {
				t.Fatal(err)
			}
			if o.begun != c.begun || (told == 1) != c.begun {
				t.Errorf("begun %v, told %d times", o.begun, told)
			}
			if err := o.err(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
	t.Run("a line without end", func(t *testing.T) {
		var o outcome
		if err := o.read(strings.NewReader(strings.Repeat("x", longestLine+1)), io.Discard, nil); err == nil {
			t.Error("no error")
		}
	})
}

// What hangs before it runs anything is started again, and what has begun is not.
func TestBootHangs(t *testing.T) {
	for _, c := range []struct {
		name, script, err string
		timeout, patience time.Duration
	}{
		{"silent", "echo SeaBIOS; exec sleep 1000", "3 times it did not come to run anything: nothing for", time.Hour, 10 * time.Millisecond},
		{"begun", "echo vm: Linux; exec sleep 1000", "not finished after", 100 * time.Millisecond, time.Hour},
		{"no end of it", "echo vm: Linux; head -c 2000000 /dev/zero | tr '\\0' x; echo; echo vm: all passed", "token too long", time.Hour, time.Hour},
		{"passed", "echo vm: Linux; echo vm: all passed", "", time.Hour, time.Hour},
		{"not started", "exit 7", "exit status 7", time.Hour, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := run([]string{"sh", "-c", c.script}, c.timeout, c.patience)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

func TestWatchNothing(t *testing.T) {
	if _, err := watch(context.Background(), []string{"/nonexistent"}, time.Second); err == nil {
		t.Error("no error")
	}
}

func TestClockArgs(t *testing.T) {
	if got := (machine{arch: "arm64"}).clockArgs(); got != "" {
		t.Errorf("arm64 has no such counter, yet its kernel is told of one: %q", got)
	}
	got := (machine{arch: runtime.GOARCH}).clockArgs()
	if got == "" {
		t.Skip("this machine's processors have no counter that runs evenly")
	}
	var kHz int
	if _, err := fmt.Sscanf(got, "tsc=reliable tsc_early_khz=%d clocksource=tsc", &kHz); err != nil || kHz < 100_000 || kHz > 100_000_000 {
		t.Errorf("%q: %d kHz (%v)", got, kHz, err)
	}
}
