package image

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
)

// name is a parsed reference to an image of a store.
type name struct {
	full       string // normalised: docker.io/library/busybox:latest, or repository@digest
	repository string // docker.io/library/busybox
	digest     string // sha256:… if the reference is pinned; a tag beside it says nothing
}

// maxReference is more than the longest parts of a reference come to.
const maxReference = 1024

// parseReference normalises ref as docker and the kubelet do (IMG-03): a
// missing registry is docker.io, a missing namespace library, a missing tag
// and digest latest. The error is an *Error with the texts of IMG-02.
func parseReference(ref string) (name, error) {
	named, err := reference.Named(nil), reference.ErrReferenceInvalidFormat
	if len(ref) <= maxReference { // to match a megabyte takes a second
		named, err = reference.ParseNormalizedNamed(ref)
	}
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", clip(ref), clip(ref), err)
		return name{}, &Error{Reason: ReasonInvalidImageName, Message: message, Err: err}
	}
	n := name{repository: named.Name()}
	if d, ok := named.(reference.Digested); ok {
		n.digest = d.Digest().String()
		n.full = n.repository + "@" + n.digest
		return n, nil
	}
	n.full = reference.TagNameOnly(named).String()
	return n, nil
}

// clip bounds what an error quotes of a hostile reference.
func clip(s string) string {
	const most = 512
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// localPath tells whether ref names a file or directory of the host, and
// which, as an absolute path. Everything else is a name in a store: a bare
// "app.wasm" too, since it is a legal image name.
func (s *Service) localPath(ref string) (path string, local bool, err error) {
	switch {
	case strings.HasPrefix(ref, "file:"):
		path, err = fileURLPath(ref)
		if err != nil {
			return "", true, invalidLocal(ref, err)
		}
	case ref == "." || ref == "..", strings.HasPrefix(ref, "/"), strings.HasPrefix(ref, "./"), strings.HasPrefix(ref, "../"):
		path = ref
	default:
		return "", false, nil
	}
	if strings.ContainsRune(path, 0) {
		return "", true, invalidLocal(ref, errors.New("a path cannot hold a NUL byte"))
	}
	if s.cfg.NoLocalPaths {
		return "", true, invalidLocal(ref, errors.New("images by path are not allowed on this node"))
	}
	path = filepath.FromSlash(path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.cfg.BaseDir, path)
	}
	return filepath.Clean(path), true, nil
}

func invalidLocal(ref string, err error) *Error {
	return &Error{
		Reason:  ReasonInvalidImageName,
		Message: fmt.Sprintf("couldn't parse image name %q: %v", clip(ref), err),
		Err:     err,
	}
}

// fileURLPath accepts file:///abs, file://localhost/abs, file:/abs and
// file:relative.
func fileURLPath(ref string) (string, error) {
	u, err := url.Parse(ref)
	if err != nil {
		return "", err
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", fmt.Errorf("a file: URL names a file of this machine, not of %q", u.Host)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", errors.New("a file: URL for an image is a path and nothing else")
	}
	path := u.Path
	if u.Opaque != "" {
		if path, err = url.PathUnescape(u.Opaque); err != nil {
			return "", err
		}
	}
	if path == "" {
		return "", errors.New("the file: URL has no path")
	}
	return path, nil
}
