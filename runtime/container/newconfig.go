package container

import (
	"errors"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// NewConfig makes the blueprint of one attempt of c, which is a container or
// an init container of pod. The Pod must have been defaulted and validated.
// The same arguments always give the same Config.
//
// An error is always a *ConfigError.
func NewConfig(pod *corev1.Pod, c *corev1.Container, in Inputs) (Config, error) {
	cfg := Config{
		Pod:      PodRef{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)},
		Name:     c.Name,
		Attempt:  in.Attempt,
		Image:    c.Image,
		ImageRef: in.ImageRef,
		ImageID:  in.ImageID,
		Module:   in.Module,

		WorkingDir: workingDir(c, in.Image),
		Hostname:   in.hostname(pod),

		TerminationMessagePath:   absolute(c.TerminationMessagePath, DefaultTerminationMessagePath),
		TerminationMessagePolicy: string(c.TerminationMessagePolicy),

		Stdin:     c.Stdin,
		StdinOnce: c.StdinOnce,
		TTY:       c.TTY,

		Resources: ContainerLimits(pod, c),
	}
	if len(in.Image.Entrypoint) > 0 {
		cfg.Program = in.Image.Entrypoint[0]
	}
	if cfg.TerminationMessagePolicy == "" {
		cfg.TerminationMessagePolicy = string(corev1.TerminationMessageReadFile)
	}
	if sc := c.SecurityContext; sc != nil && sc.ReadOnlyRootFilesystem != nil {
		cfg.ReadOnlyRootFS = *sc.ReadOnlyRootFilesystem
	}

	// The order of the checks is the kubelet's: it decides which of several
	// mistakes a user sees first.
	env, err := podEnv(pod, c, &in)
	if err != nil {
		return Config{}, asConfigError(err)
	}
	if cfg.Mounts, err = mounts(pod, c, env); err != nil {
		return Config{}, asConfigError(err)
	}
	if err := verifyRunAsNonRoot(pod, c, in.Image.User); err != nil {
		return Config{}, asConfigError(err)
	}
	cfg.UID, cfg.GID = effectiveUser(pod, c, in.Image.User)
	if cfg.Args, err = args(c, in.Image, env); err != nil {
		return Config{}, asConfigError(err)
	}
	cfg.Env = environ(cfg.Hostname, in.Image.Env, env)
	if err := checkArgEnv(cfg.Args, cfg.Env); err != nil {
		return Config{}, asConfigError(err)
	}
	return cfg, nil
}

func asConfigError(err error) error {
	var ce *ConfigError
	if errors.As(err, &ce) {
		return ce
	}
	return configError(err.Error())
}

// args is the guest's argument vector (ENV-11, ENV-12). As upstream does it,
// references are resolved from the pod's variables only: those of the image
// and HOSTNAME are not known to the one who expands.
func args(c *corev1.Container, image ImageConfig, env *envList) ([]string, error) {
	expandAll := func(in []string) ([]string, error) {
		out := make([]string, 0, len(in))
		left := maxArgEnvBytes
		for _, s := range in {
			v, ok := expand(s, env.lookup, left)
			if !ok {
				return nil, errTooLong
			}
			left -= len(v)
			out = append(out, v)
		}
		return out, nil
	}
	command, err := expandAll(c.Command)
	if err != nil {
		return nil, err
	}
	rest, err := expandAll(c.Args)
	if err != nil {
		return nil, err
	}
	var argv []string
	switch {
	case len(command) > 0:
		argv = append(command, rest...)
	case len(rest) > 0:
		argv = append(append(argv, image.Entrypoint...), rest...)
	default:
		argv = append(append(argv, image.Entrypoint...), image.Cmd...)
	}
	if len(argv) == 0 {
		return nil, &ConfigError{Reason: ReasonCreateError, Message: "no command specified"}
	}
	return argv, nil
}

var errTooLong = &ConfigError{Reason: ReasonCreateError, Message: "argument list too long: arguments and environment together exceed 2 MiB"}

// checkArgEnv refuses what cannot be handed to a guest: WASI passes arguments
// and environment as NUL-terminated strings, so a NUL inside would silently cut
// a value short.
func checkArgEnv(args, env []string) error {
	total := 0
	for _, s := range args {
		if strings.ContainsRune(s, 0) {
			return &ConfigError{Reason: ReasonCreateError, Message: "a command or argument contains a NUL byte"}
		}
		total += len(s) + 1
	}
	for _, s := range env {
		if strings.ContainsRune(s, 0) {
			name, _, _ := strings.Cut(s, "=")
			return &ConfigError{Reason: ReasonCreateError, Message: "environment variable " + strings.ReplaceAll(name, "\x00", "") + " contains a NUL byte"}
		}
		total += len(s) + 1
	}
	if total > maxArgEnvBytes {
		return errTooLong
	}
	return nil
}

// workingDir implements ENV-13. It is not expanded.
func workingDir(c *corev1.Container, image ImageConfig) string {
	dir := c.WorkingDir
	if dir == "" {
		dir = image.WorkingDir
	}
	return absolute(dir, "/")
}

// absolute cleans p, a path in the guest, and makes it absolute.
func absolute(p, fallback string) string {
	if p == "" {
		p = fallback
	}
	return path.Clean("/" + p)
}
