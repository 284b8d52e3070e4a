package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	corev1 "k8s.io/api/core/v1"
)

// Who may use a pulled image without pulling it again (the kubelet's
// KubeletEnsureSecretPulledImages): every pod, if it was pulled anonymously or
// with the node's own credentials or by the operator, else pods with a secret
// that it has been pulled with. Images that nobody pulled (built here, loaded,
// shipped) are everybody's. The record lies beside the index and is written
// under the store's lock.
const accessFile = "pulled.json"

// annotationPulled is when an image of the index was pulled last. An image
// without it was put here by hand.
const annotationPulled = "org.wasmpod.image.pulled"

// maxAccessHashes bounds how many credentials are remembered for one image.
const maxAccessHashes = 100

type accessRecords map[string]map[string]access // digest -> repository

type access struct {
	Everyone bool `json:"everyone,omitempty"`
	// Credentials are digests of user and password.
	Credentials []string `json:"credentials,omitempty"`
	// Secrets are where they came from: a secret that was changed stays good.
	Secrets []string `json:"secrets,omitempty"`
}

func (l *layout) readAccess() (accessRecords, error) {
	b, err := os.ReadFile(filepath.Join(l.dir, accessFile))
	if isAbsent(err) {
		return accessRecords{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	records := accessRecords{}
	if err := json.Unmarshal(b, &records); err != nil {
		return nil, fmt.Errorf("image store: %s: %w", accessFile, err)
	}
	return records, nil
}

// recordAccess notes what an image was pulled with. The lock is held.
func (s *Service) recordAccess(digest, repository string, c credential, everyone bool) error {
	l := s.stores[0]
	records, err := l.readAccess()
	if err != nil {
		records = accessRecords{} // then whoever cannot prove it has to pull again
	}
	if records[digest] == nil {
		records[digest] = map[string]access{}
	}
	a := records[digest][repository]
	before := a
	if everyone || c.secret == "" {
		a.Everyone = true
	} else {
		a.Credentials = remembered(a.Credentials, c.hash)
		a.Secrets = remembered(a.Secrets, c.secret)
	}
	if before.Everyone == a.Everyone && slices.Equal(before.Credentials, a.Credentials) && slices.Equal(before.Secrets, a.Secrets) {
		return nil
	}
	records[digest][repository] = a
	// What images that are not here any more were pulled with is forgotten.
	if index, err := l.readIndex(); err == nil {
		have := map[string]bool{digest: true}
		for _, d := range index.Manifests {
			have[d.Digest.String()] = true
		}
		maps.DeleteFunc(records, func(d string, _ map[string]access) bool { return !have[d] })
	}
	raw, err := json.Marshal(records)
	if err != nil {
		return err
	}
	return writeFileAtomic(filepath.Join(l.dir, accessFile), append(raw, '\n'))
}

func remembered(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	list = append(slices.Clone(list), s)
	return list[max(0, len(list)-maxAccessHashes):]
}

// mayUse says whether a pod with these secrets may use an image that is
// present without pulling it.
func (s *Service) mayUse(n name, img Image, secrets []*corev1.Secret) (bool, error) {
	if s.cfg.Root == "" {
		return true, nil
	}
	_, digest, ok := cutLast(img.ID, '@')
	if !ok {
		return true, nil
	}
	desc, found, err := s.stores[0].find(n)
	if err != nil || !found || desc.Annotations[annotationPulled] == "" {
		return err == nil, err
	}
	records, err := s.stores[0].readAccess()
	if err != nil {
		return false, nil // as the kubelet: verified again
	}
	a := records[digest][n.repository]
	if a.Everyone {
		return true, nil
	}
	creds, err := secretCredentials(n.repository, secrets)
	if err != nil {
		return false, err
	}
	for _, c := range creds {
		if slices.Contains(a.Credentials, c.hash) || slices.Contains(a.Secrets, c.secret) {
			return true, nil
		}
	}
	return false, nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func markPulled(index *v1.IndexManifest, ref string, now time.Time, signed string) {
	for i, d := range index.Manifests {
		if d.Annotations[annotationRefName] == ref {
			index.Manifests[i].Annotations[annotationPulled] = now.UTC().Format(time.RFC3339)
			if signed != "" {
				index.Manifests[i].Annotations[annotationSigned] = signed
			}
		}
	}
}

// Request is what a container needs an image for.
type Request struct {
	Ref string
	// Namespace is the pod's, for Config.Imports.
	Namespace string

	Policy  corev1.PullPolicy // empty stands for IfNotPresent
	Secrets []*corev1.Secret  // imagePullSecrets of the pod
	// Volume says that the image is to be mounted, not started (VOL-40): it need not
	// hold a module.
	Volume bool
	// OnPull, if not nil, is called when a pull begins (IMG-06).
	OnPull func()
	// OnTurn, if not nil, is called after OnPull, when the pull's turn has come
	// (TIME-24).
	OnTurn func()
}

// Ensure has an image present under the pull policy, which is looked at anew
// for each start of a container (IMG-01): Never does without a registry,
// IfNotPresent asks one if the image is not there or if the pod has no right to
// it yet, Always asks every time, though only what is missing is downloaded. A
// local path, or an image that was built or loaded here rather than pulled, has
// no registry to be asked. pulled says whether there was a pull. The error is
// an *Error unless ctx ended.
func (s *Service) Ensure(ctx context.Context, r Request) (img Image, pulled bool, err error) {
	if r.Volume {
		ctx = forVolume(ctx)
	}
	img, pulled, err = s.ensure(ctx, r)
	if err == nil && !r.Volume {
		err = s.admit(ctx, r, img)
	}
	if err != nil {
		return Image{}, false, err
	}
	return img, pulled, nil
}

func (s *Service) ensure(ctx context.Context, r Request) (img Image, pulled bool, err error) {
	img, c, err := s.lookup(ctx, r.Ref)
	if e := (*Error)(nil); err != nil && !(errors.As(err, &e) && e.Reason == ReasonImageInspectError && s.pullable(r)) {
		return Image{}, false, err
	}
	damaged := err
	present := c != nil
	never := func() error {
		return &Error{
			Reason:  ReasonErrImageNeverPull,
			Message: fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Ref),
		}
	}
	_, local, _ := s.localPath(r.Ref)
	if local {
		switch {
		case present:
			return img, false, nil
		case r.Policy == corev1.PullNever:
			return Image{}, false, never()
		}
		return Image{}, false, &Error{Reason: ReasonErrImagePull, Message: s.absent(r.Ref)}
	}
	n, err := parseReference(r.Ref)
	if err != nil {
		return Image{}, false, err
	}
	if present {
		fresh := r.Policy != corev1.PullAlways || !s.cameByPull(n)
		if fresh {
			may, err := s.mayUse(n, img, r.Secrets)
			if err != nil {
				return Image{}, false, &Error{Reason: ReasonErrImagePull, Message: err.Error(), Err: err}
			}
			if may && s.signedEnough(n) {
				s.touch(n)
				return img, false, nil
			}
		}
	}
	if present && (r.Policy == corev1.PullNever || s.cfg.Registries.Offline) && !s.signedEnough(n) {
		return Image{}, false, (&signatureError{"it was pulled before it had to be signed, and is not to be pulled again"}).refused(r.Ref)
	}
	if r.Policy == corev1.PullNever {
		return Image{}, false, never()
	}
	if r.OnPull != nil {
		r.OnPull()
	}
	if !s.cfg.Registries.Offline {
		done, err := s.turns.take(ctx)
		if err != nil {
			return Image{}, false, err
		}
		defer done()
	}
	if r.OnTurn != nil {
		r.OnTurn()
	}
	img, err = s.Pull(ctx, r.Ref, PullOptions{Secrets: r.Secrets, Verify: damaged != nil})
	if err == nil {
		s.touch(n)
	}
	return img, true, err
}

// pullable: what is damaged here may be whole in a registry.
func (s *Service) pullable(r Request) bool {
	_, local, _ := s.localPath(r.Ref)
	return !local && r.Policy != corev1.PullNever && !s.cfg.Registries.Offline
}

// cameByPull says whether an image of the store was pulled, rather than put
// here by hand.
func (s *Service) cameByPull(n name) bool {
	if s.cfg.Root == "" {
		return false
	}
	desc, ok, err := s.stores[0].find(n)
	return err == nil && ok && desc.Annotations[annotationPulled] != ""
}
