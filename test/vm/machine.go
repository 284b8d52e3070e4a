package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// machine is one that can be emulated. Its architecture is called as Go and Debian
// call it.
type machine struct {
	arch     string
	release  string   // of Debian; "" is what this machine has
	emulator []string // and which board and processor
	console  string   // its serial port, as Linux calls it
}

func machineFor(arch, release string) (machine, error) {
	for _, m := range []machine{
		{"amd64", release, []string{"qemu-system-x86_64", "-cpu", "max"}, "ttyS0"},
		// A server's processor, with atomic instructions, and without what is slow when
		// emulated: signed pointers.
		{"arm64", release, []string{"qemu-system-aarch64", "-M", "virt", "-cpu", "neoverse-n1"}, "ttyAMA0"},
	} {
		if m.arch == arch {
			return m, nil
		}
	}
	return machine{}, fmt.Errorf("-arch %s: want amd64 or arm64", arch)
}

// findKernel returns the path of a kernel image, from the user's cache if it has
// been downloaded before.
func (m machine) findKernel() (string, error) {
	if k := os.Getenv("VM_KERNEL"); k != "" {
		return k, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "wasmpod-vm")
	root := filepath.Join(cache, strings.TrimSuffix(m.arch+"-"+m.release, "-"))
	pattern := filepath.Join(root, "boot/vmlinuz-*")
	if found, _ := filepath.Glob(pattern); len(found) > 0 {
		return found[0], nil
	}
	for _, tool := range []string{"apt-cache", "apt-get", "dpkg-deb", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", missing("no kernel: " + tool + " is not installed; set VM_KERNEL to the path of one")
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(cache, "new")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	apt, err := m.apt(dir)
	if err != nil {
		return "", err
	}
	meta := "linux-image-cloud-" + m.arch
	out, err := exec.Command("apt-cache", append(apt, "depends", meta)...).Output()
	if err != nil {
		return "", missing("no kernel: apt-cache does not know " + meta + "; set VM_KERNEL to the path of one")
	}
	_, name, _ := strings.Cut(string(out), "Depends: ")
	name, _, _ = strings.Cut(name, "\n")
	name = strings.TrimSpace(name)
	if err := command(dir, "apt-get", append(apt, "download", name)...); err != nil {
		return "", err
	}
	packages, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get download %s: %d files, %w", name, len(packages), err)
	}
	if err := command(dir, "dpkg-deb", "-x", packages[0], "root"); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(dir, "root"), root); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	found, _ := filepath.Glob(pattern)
	if len(found) == 0 {
		return "", fmt.Errorf("there is no kernel in package %s", name)
	}
	return found[0], nil
}

const (
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	mirror  = "http://deb.debian.org/debian"
)

// apt returns options for the tools of apt: none where packages are of the
// architecture and release of this machine; else it gets the lists of the other into
// dir, and nothing is changed for this machine.
func (m machine) apt(dir string) ([]string, error) {
	ours, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg --print-architecture: %w", err)
	}
	if string(bytes.TrimSpace(ours)) == m.arch && m.release == "" {
		return nil, nil
	}
	set := []string{
		// As root apt reads what it gets as a user of its own, that is let in nowhere here.
		"APT::Sandbox::User=root", "Acquire::Languages=none", "Dir::State::status=/dev/null",
		"APT::Architecture=" + m.arch, "APT::Architectures=" + m.arch,
	}
	if m.release != "" {
		if !exists(keyring) {
			return nil, missing("no kernel: debian-archive-keyring is not installed; set VM_KERNEL to the path of one")
		}
		sources := filepath.Join(dir, "sources.list")
		if err := os.WriteFile(sources, fmt.Appendf(nil, "deb [signed-by=%s] %s %s main\n", keyring, mirror, m.release), 0o600); err != nil {
			return nil, err
		}
		set = append(set, "Dir::Etc::SourceList="+sources, "Dir::Etc::SourceParts=/dev/null")
	}
	for _, d := range [][2]string{{"Dir::State::Lists", "lists"}, {"Dir::Cache", "cache"}} {
		sub := filepath.Join(dir, d[1])
		if err := os.MkdirAll(filepath.Join(sub, "partial"), 0o755); err != nil {
			return nil, err
		}
		set = append(set, d[0]+"="+sub)
	}
	var options []string
	for _, s := range set {
		options = append(options, "-o", s)
	}
	return options, command(dir, "apt-get", append(options, "-qq", "update")...)
}

func command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
