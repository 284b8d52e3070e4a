package container

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var errEnvFile = errors.New("couldn't parse env file")

// fileKey resolves a fileKeyRef (ENV-06). As in the kubelet, optional is about the key
// alone, and a key with an empty value counts as missing.
func fileKey(ref *corev1.FileKeySelector, in *Inputs) (value string, present bool, err error) {
	if in.VolumeFile == nil {
		return "", false, nil
	}
	content, err := in.VolumeFile(ref.VolumeName, ref.Path)
	if err != nil {
		return "", false, errEnvFile
	}
	value, ok := envFileValue(string(content), ref.Key)
	switch {
	case !ok:
		return "", false, errEnvFile
	case value == "" && isTrue(ref.Optional):
		return "", false, nil
	case value == "":
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", ref.Key, ref.Path)
	}
	return value, true, nil
}

// envFileValue finds the first value of a key in a file of lines KEY='value': a value
// may go over several lines, and nothing in it is special; a comment may follow it.
// Empty lines and those that begin with # are left out, and so is the value where
// blanks follow the =. The file is read up to the key; ok says that it is valid so far.
func envFileValue(text, key string) (value string, ok bool) {
	const blanks = " \t"
	line := func() string {
		l, rest, _ := strings.Cut(text, "\n")
		text = rest
		return strings.TrimSuffix(l, "\r")
	}
	for text != "" {
		l := strings.TrimLeft(line(), blanks)
		if l == "" || l[0] == '#' {
			continue
		}
		name, rest, found := strings.Cut(l, "=")
		if !found || name == "" || strings.TrimRight(name, blanks) != name {
			return "", false
		}
		switch {
		case rest == "":
			return "", false
		case strings.Contains(blanks, rest[:1]):
			if name == key {
				return "", true
			}
			continue
		case rest[0] != '\'':
			return "", false
		}
		var b strings.Builder
		part, after, closed := strings.Cut(rest[1:], "'")
		for b.WriteString(part); !closed; b.WriteString(part) {
			if text == "" {
				return "", false
			}
			b.WriteByte('\n')
			part, after, closed = strings.Cut(line(), "'")
		}
		if after = strings.TrimLeft(after, blanks); after != "" && after[0] != '#' {
			return "", false
		}
		if name == key {
			return b.String(), true
		}
	}
	return "", true
}
