package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/name"

	corev1 "k8s.io/api/core/v1"
)

// credential is one way to log in to a registry.
type credential struct {
	auth authn.Authenticator
	// secret is whose it is: namespace/name of an imagePullSecret; empty: the
	// node's own, or nobody's.
	secret string
	hash   string // of user and password, for the record of who may use an image
}

// credentials returns what to log in with, in the order of trying: the pod's
// secrets, the longest match first, then the node's own configuration. Without
// any, the pull is anonymous (IMG-10).
func (s *Service) credentials(ctx context.Context, repo ggcr.Repository, repository string, secrets []*corev1.Secret) ([]credential, error) {
	list, err := secretCredentials(repository, secrets)
	if err != nil {
		return nil, err
	}
	auth := authn.Anonymous
	if !s.cfg.Registries.NoHostCredentials {
		if auth, err = hostCredentials(ctx, repo, s.cfg.Registries.Stall); err != nil {
			return nil, fmt.Errorf("credentials of this host for %s: %w", repo.RegistryStr(), err)
		}
	}
	if auth != authn.Anonymous || len(list) == 0 {
		list = append(list, credential{auth: auth})
	}
	return list, nil
}

// secretCredentials finds what the secrets of types
// kubernetes.io/dockerconfigjson and kubernetes.io/dockercfg say about a
// repository. A secret that cannot be read is an error, as in the kubelet.
func secretCredentials(repository string, secrets []*corev1.Secret) ([]credential, error) {
	type match struct {
		credential
		specific int
	}
	var found []match
	for _, secret := range secrets {
		entries, err := secretEntries(secret)
		if err != nil {
			return nil, fmt.Errorf("imagePullSecret %s/%s: %w", secret.Namespace, secret.Name, err)
		}
		for pattern, e := range entries {
			if !registryMatches(pattern, repository) {
				continue
			}
			cfg, err := e.config()
			if err != nil {
				return nil, fmt.Errorf("imagePullSecret %s/%s: %q: %w", secret.Namespace, secret.Name, pattern, err)
			}
			sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", cfg.Username, cfg.Password, cfg.IdentityToken, cfg.RegistryToken))
			found = append(found, match{credential{
				auth: authn.FromConfig(cfg), secret: secret.Namespace + "/" + secret.Name, hash: hex.EncodeToString(sum[:]),
			}, len(trimRegistry(pattern))})
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return b.specific - a.specific })
	list := make([]credential, 0, len(found))
	for _, m := range found {
		list = append(list, m.credential)
	}
	return list, nil
}

type dockerEntry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

func (e dockerEntry) config() (authn.AuthConfig, error) {
	cfg := authn.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(e.Auth))
		if err != nil {
			b, err = base64.RawStdEncoding.DecodeString(strings.TrimSpace(e.Auth))
		}
		user, password, ok := strings.Cut(string(bytes.TrimRight(b, "\x00")), ":")
		if err != nil || !ok {
			return cfg, fmt.Errorf("auth is not the base64 of USER:PASSWORD")
		}
		cfg.Username, cfg.Password = user, password
	}
	return cfg, nil
}

func secretEntries(secret *corev1.Secret) (map[string]dockerEntry, error) {
	var entries map[string]dockerEntry
	switch {
	case secret.Type == corev1.SecretTypeDockerConfigJson && len(secret.Data[corev1.DockerConfigJsonKey]) > 0:
		var file struct {
			Auths map[string]dockerEntry `json:"auths"`
		}
		if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &file); err != nil {
			return nil, fmt.Errorf("%s: %w", corev1.DockerConfigJsonKey, err)
		}
		entries = file.Auths
	case secret.Type == corev1.SecretTypeDockercfg && len(secret.Data[corev1.DockerConfigKey]) > 0:
		if err := json.Unmarshal(secret.Data[corev1.DockerConfigKey], &entries); err != nil {
			return nil, fmt.Errorf("%s: %w", corev1.DockerConfigKey, err)
		}
	}
	return entries, nil
}

// trimRegistry removes what Docker's configuration has around a registry.
func trimRegistry(pattern string) string {
	_, after, ok := strings.Cut(pattern, "://")
	if ok {
		pattern = after
	}
	for _, suffix := range []string{"/", "/v1", "/v2"} {
		pattern = strings.TrimSuffix(pattern, suffix)
	}
	return strings.TrimSuffix(pattern, "/")
}

// registryMatches says whether the key of a credential is for a repository:
// its host, part by part with globs, its port, and a prefix of its path.
func registryMatches(pattern, repository string) bool {
	host, prefix := registryOf(trimRegistry(pattern))
	registry, repo := registryOf(repository)
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if prefix != "" && repo != prefix && !strings.HasPrefix(repo, prefix+"/") {
		return false
	}
	patternHost, patternPort := splitPort(host)
	actualHost, actualPort := splitPort(registry)
	if patternPort != actualPort {
		return false
	}
	want, got := strings.Split(patternHost, "."), strings.Split(actualHost, ".")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], got[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(hostport string) (host, port string) {
	if h, p, err := net.SplitHostPort(hostport); err == nil {
		return h, p
	}
	return hostport, ""
}
