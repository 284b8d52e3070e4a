package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// unit runs the tests as a user of their own, to whom their group is delegated, and
// ends the machine after them.
const unit = `[Unit]
Description=Tests of wasmpod
DefaultDependencies=no
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
User=1000
Group=1000
Delegate=yes
RuntimeDirectory=tests
WorkingDirectory=/run/tests
Environment=CI=true HOME=/run/tests TMPDIR=/run/tests PATH=/ WASMPOD_TEST_VM=1 WASMPOD_TEST_SYSTEMD=1
ExecStart=/test00 -test.v -test.timeout=10m -test.run=%s
ExecStopPost=+/init
StandardOutput=file:/dev/console
StandardError=file:/dev/console
`

// addSystemd adds systemd as it is installed on this machine, with the libraries
// that it is linked with, and the unit. It returns what the kernel is to be told.
func (a *archive) addSystemd(tests []string) (args string, err error) {
	if len(tests) != 1 {
		return "", fmt.Errorf("-systemd: one package with tests, not %d", len(tests))
	}
	const systemd = "/lib/systemd/systemd"
	if !exists(systemd) {
		return "", missing("systemd is not installed")
	}
	programs := []string{systemd}
	if executor := "/usr/lib/systemd/systemd-executor"; exists(executor) { // since version 254
		programs = append(programs, executor)
	}
	files := slices.Clone(programs)
	for _, p := range programs {
		out, err := exec.Command("ldd", p).Output()
		if err != nil {
			return "", fmt.Errorf("ldd %s: %w", p, err)
		}
		for word := range strings.FieldsSeq(string(out)) { // name => path (address)
			if strings.HasPrefix(word, "/") {
				files = append(files, word)
			}
		}
	}
	slices.Sort(files)
	for _, name := range slices.Compact(files) {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		a.file(strings.TrimPrefix(name, "/"), 0o755, data)
	}
	_, chosen, _ := strings.Cut(tests[0], "=")
	a.file("etc/systemd/system/tests.service", 0o644, fmt.Appendf(nil, unit, chosen))
	a.file("etc/passwd", 0o644, []byte("root:x:0:0::/root:/bin/false\ntests:x:1000:1000::/run/tests:/bin/false\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\ntests:x:1000:\n"))
	a.file("etc/machine-id", 0o644, []byte("0123456789abcdef0123456789abcdef\n"))
	return "rdinit=" + systemd + " systemd.unit=tests.service systemd.log_target=console systemd.log_level=warning systemd.show_status=0", nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
