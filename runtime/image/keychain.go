package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/name"
)

// What 'docker login', 'podman login' and 'skopeo login' leave is read here rather
// than by go-containerregistry, which waits for a credential helper for ever,
// holding a lock that every other pull needs, and reads whatever it writes.

const (
	maxCredentialFile = 4 << 20
	// maxHelperOutput is what a credential helper may write.
	maxHelperOutput = 64 << 10
	// dockerHub is how Docker's configuration and helpers name Docker Hub.
	dockerHub = "https://index.docker.io/v1/"
)

// dockerConfig is of config.json.
type dockerConfig struct {
	Auths       map[string]dockerEntry `json:"auths"`
	CredHelpers map[string]string      `json:"credHelpers"`
	CredsStore  string                 `json:"credsStore"`
}

// credentialFile is where the host's credentials are, in the order in which
// go-containerregistry looks; empty: there are none.
func credentialFile() string {
	home, _ := os.UserHomeDir()
	docker := os.Getenv("DOCKER_CONFIG")
	if docker == "" && home != "" {
		docker = filepath.Join(home, ".docker")
	}
	configDir := os.Getenv("XDG_CONFIG_HOME")
	if configDir == "" && home != "" {
		configDir = filepath.Join(home, ".config")
	}
	var list []string
	if docker != "" {
		list = append(list, filepath.Join(docker, "config.json"))
	}
	list = append(list, os.Getenv("REGISTRY_AUTH_FILE"))
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), configDir} {
		if dir != "" {
			list = append(list, filepath.Join(dir, "containers", "auth.json"))
		}
	}
	for _, file := range list {
		if fi, err := os.Stat(file); file != "" && err == nil && fi.Mode().IsRegular() {
			return file
		}
	}
	return ""
}

// hostCredentials returns what this host has to log in to a repository with:
// authn.Anonymous if nothing. A helper is waited for as long as timeout.
func hostCredentials(ctx context.Context, repo ggcr.Repository, timeout time.Duration) (authn.Authenticator, error) {
	file := credentialFile()
	if file == "" {
		return authn.Anonymous, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := readAtMost(f, maxCredentialFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var cfg dockerConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	registry := repo.RegistryStr()
	server := registry
	if registry == ggcr.DefaultRegistry {
		server = dockerHub
	}
	helper := cfg.CredsStore
	for _, key := range []string{repo.String(), registry, server} {
		if h, ok := cfg.CredHelpers[key]; ok {
			helper = h
			break
		}
	}
	if helper != "" {
		ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it has not answered for %v", timeout))
		defer cancel()
		auth, err := askHelper(ctx, helper, server)
		if err != nil {
			return nil, fmt.Errorf("docker-credential-%s: %w", clip(helper), err)
		}
		if auth != nil {
			return auth, nil
		}
	}
	// Of several keys the most specific one.
	repository := strings.Replace(repo.String(), ggcr.DefaultRegistry, "docker.io", 1)
	best, auth := -1, authn.Anonymous
	for pattern, e := range cfg.Auths {
		if n := len(trimRegistry(pattern)); n <= best || !registryMatches(pattern, repository) {
			continue
		}
		c, err := e.config()
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, pattern, err)
		}
		if c == (authn.AuthConfig{}) {
			continue // its credentials are a helper's
		}
		best, auth = len(trimRegistry(pattern)), authn.FromConfig(c)
	}
	return auth, nil
}

// errNoCredentials is what a helper writes that has none.
const errNoCredentials = "credentials not found"

// askHelper runs a credential helper; nil: it has none.
func askHelper(ctx context.Context, helper, server string) (authn.Authenticator, error) {
	if strings.ContainsAny(helper, "/\\") {
		return nil, errors.New("that is no name of a helper")
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	// It and what it has started end together, and nobody waits for who holds its
	// output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := &boundedOutput{kill: cmd.Cancel}
	cmd.Stdout, cmd.Stderr = out, io.Discard
	err := cmd.Run()
	switch {
	case out.exceeded:
		return nil, fmt.Errorf("it writes more than %d bytes", maxHelperOutput)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case strings.Contains(out.kept.String(), errNoCredentials):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %s", err, clip(strings.TrimSpace(strings.ToValidUTF8(out.kept.String(), "\ufffd"))))
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out.kept.Bytes(), &answer) != nil {
		return nil, errors.New("its answer is not JSON")
	}
	switch {
	case answer.Username == "" && answer.Secret == "":
		return nil, nil
	case answer.Username == "<token>":
		return authn.FromConfig(authn.AuthConfig{IdentityToken: answer.Secret}), nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: answer.Username, Password: answer.Secret}), nil
}

// boundedOutput keeps what a helper writes, and ends one that writes too much.
type boundedOutput struct {
	kept     bytes.Buffer
	kill     func() error
	exceeded bool
}

func (b *boundedOutput) Write(p []byte) (int, error) {
	if b.kept.Len()+len(p) > maxHelperOutput {
		b.exceeded = true
		_ = b.kill()
		return 0, errTooLarge
	}
	return b.kept.Write(p)
}
