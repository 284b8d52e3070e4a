package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// helper puts a credential helper, a script, first on the PATH, and a
// configuration of Docker that names it.
func helper(t *testing.T, config, script string) {
	t.Helper()
	bin, docker := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("DOCKER_CONFIG", docker)
	write(t, filepath.Join(docker, "config.json"), []byte(config))
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-fake"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestCredentialHelpers(t *testing.T) {
	srv := startRegistry(t)
	srv.push(t, "private/app:v1", wasmImage(t, "secret"))
	ref := srv.host + "/private/app:v1"
	srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "ann" && password == "pass" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	byStore := `{"credsStore":"fake"}`
	byRegistry := fmt.Sprintf(`{"credHelpers":{%q:"fake"},"credsStore":"nowhere"}`, srv.host)
	good := fmt.Sprintf(`[ "$1" = get ] && [ "$(cat)" = %q ] && echo '{"ServerURL":"x","Username":"ann","Secret":"pass"}'`, srv.host)
	for name, c := range map[string]struct{ config, script, want string }{
		"for everything":                      {byStore, good, ""},
		"for the registry":                    {byRegistry, good, ""},
		"it has none":                         {byStore, "echo credentials not found in native keychain; exit 1", "denies access"},
		"it has none, but the file has":       {fmt.Sprintf(`{"credsStore":"fake","auths":{%q:{"auth":"YW5uOnBhc3M="}}}`, srv.host), "echo credentials not found in native keychain; exit 1", ""},
		"an entry that says it is a helper's": {fmt.Sprintf(`{"credsStore":"fake","auths":{%q:{}}}`, srv.host), good, ""},
		"it answers with nothing":             {byStore, "echo '{}'", "denies access"},
		"wrong ones":                          {byStore, `echo '{"Username":"ann","Secret":"x"}'`, "denies access"},
		"garbage":                             {byStore, "echo '{{{{'", "docker-credential-fake: its answer is not JSON"},
		"binary garbage":                      {byStore, "head -c 1000 /dev/urandom; exit 3", "docker-credential-fake: exit status 3"},
		"silence":                             {byStore, "exit 0", "docker-credential-fake: its answer is not JSON"},
		"it fails":                            {byStore, "echo the vault is sealed; exit 1", "exit status 1: the vault is sealed"},
		"it writes without end":               {byStore, "yes", "docker-credential-fake: it writes more than 65536 bytes"},
		"it is not there":                     {`{"credsStore":"nowhere"}`, "", "docker-credential-nowhere"},
		"it is a path":                        {`{"credsStore":"../../bin/sh"}`, "", "no name of a helper"},
		"the configuration is none":           {`{"auths":[]}`, "", "config.json"},
		"the configuration is torn":           {`{"auths":`, "", "config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			helper(t, c.config, c.script)
			_, err := open(t, quick(t)).Pull(t.Context(), ref, PullOptions{})
			if c.want == "" && err != nil {
				t.Error(err)
			}
			if c.want != "" {
				wantError(t, err, ReasonErrImagePull, c.want)
			}
		})
	}
	t.Run("it hangs, and so does what it has started", func(t *testing.T) {
		helper(t, byStore, "sleep 1000 & wait")
		cfg := quick(t)
		cfg.Registries.Stall = 100 * time.Millisecond
		_, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{})
		wantError(t, err, ReasonErrImagePull, "docker-credential-fake: it has not answered for 100ms")
	})
	t.Run("it hangs, and nobody waits any more; others go on", func(t *testing.T) {
		dir := t.TempDir()
		helper(t, byStore, "echo > "+filepath.Join(dir, "runs")+"; exec sleep 1000")
		cfg := quick(t)
		cfg.Registries.Stall = time.Hour // it is not the time that ends the helper
		s := open(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := s.Pull(ctx, ref, PullOptions{})
			done <- err
		}()
		for {
			if _, err := os.Stat(filepath.Join(dir, "runs")); err == nil {
				break
			}
		}
		other := s.cfg
		other.Root = filepath.Join(t.TempDir(), "images")
		other.Registries.NoHostCredentials = true
		_, err := open(t, other).Pull(t.Context(), ref, PullOptions{})
		wantError(t, err, ReasonErrImagePull, "denies access")
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("which entry of a file", func(t *testing.T) {
		helper(t, fmt.Sprintf(`{"auths":{%q:{"auth":"eDp5"},%q:{"auth":"YW5uOnBhc3M="},%q:{"auth":"!"}}}`, srv.host, "http://"+srv.host+"/private/", "elsewhere"), "")
		if _, err := open(t, quick(t)).Pull(t.Context(), ref, PullOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("podman's file", func(t *testing.T) {
		helper(t, "{}", "")
		if err := os.Remove(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json")); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		t.Setenv("XDG_RUNTIME_DIR", dir)
		t.Setenv("REGISTRY_AUTH_FILE", "")
		write(t, filepath.Join(dir, "containers", "auth.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":"YW5uOnBhc3M="}}}`, srv.host+"/private"))
		if _, err := open(t, quick(t)).Pull(t.Context(), ref, PullOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("Docker Hub has another name", func(t *testing.T) {
		helper(t, byStore, `[ "$(cat)" = https://index.docker.io/v1/ ] && echo '{"Username":"ann","Secret":"pass"}'`)
		repo, err := (&Registries{}).repository("docker.io/library/x")
		if err != nil {
			t.Fatal(err)
		}
		auth, err := hostCredentials(t.Context(), repo, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := auth.Authorization(); err != nil || c.Username != "ann" {
			t.Errorf("%+v, %v", c, err)
		}
		helper(t, `{"auths":{"https://index.docker.io/v1/":{"auth":"YW5uOnBhc3M="}}}`, "")
		if auth, err = hostCredentials(t.Context(), repo, time.Minute); err != nil {
			t.Fatal(err)
		}
		if c, err := auth.Authorization(); err != nil || c.Username != "ann" || !strings.HasPrefix(c.Password, "pass") {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
