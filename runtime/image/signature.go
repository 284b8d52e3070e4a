package image

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Signatures are those that 'cosign sign --key' makes: an image in the same
// repository, tagged sha256-DIGEST.sig, whose layers are small JSON documents
// ("simple signing") that name the digest, each with a signature of its bytes as an
// annotation. There is neither a transparency log nor a certificate in this: who
// has the private key signs.
const (
	simpleSigningLayer  = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationSignature = "dev.cosignproject.cosign/signature"
	simpleSigningType   = "cosign container image signature"

	maxSignatures     = 64
	maxSignatureBytes = 64 << 10
)

// annotationSigned is, on an image of the index, the digest of the key that its
// signature was verified with when it was pulled.
const annotationSigned = "org.wasmpod.image.signed"

// SignaturePolicy says which images have to be signed, and by whom.
type SignaturePolicy struct {
	// Prefix is a registry, or a repository or a part of its path:
	// registry.example.com/team. "*" stands for all that no other policy is for.
	Prefix string
	// Keys are public: *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey. A
	// signature by any of them will do.
	Keys []crypto.PublicKey
}

// ParseSignaturePolicies reads policies as flags and configuration files have
// them: PREFIX=FILE, where FILE holds a public key in PEM, as cosign.pub does.
func ParseSignaturePolicies(list []string) ([]SignaturePolicy, error) {
	var policies []SignaturePolicy
	for _, entry := range list {
		prefix, file, ok := strings.Cut(entry, "=")
		prefix = strings.TrimSuffix(prefix, "/")
		if !ok || prefix == "" || file == "" || strings.Contains(prefix, "://") {
			return nil, fmt.Errorf("%q: want PREFIX=FILE, as in registry.example.com/team=cosign.pub", entry)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		key, err := parsePublicKey(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		i := slices.IndexFunc(policies, func(p SignaturePolicy) bool { return p.Prefix == prefix })
		if i < 0 {
			i = len(policies)
			policies = append(policies, SignaturePolicy{Prefix: prefix})
		}
		policies[i].Keys = append(policies[i].Keys, key)
	}
	return policies, nil
}

func parsePublicKey(raw []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("it holds no public key in PEM (BEGIN PUBLIC KEY)")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return nil, fmt.Errorf("an RSA key of %d bits is too short", k.N.BitLen())
		}
	default:
		return nil, fmt.Errorf("keys of the type %T are not supported", key)
	}
	return key, nil
}

// keyDigest names a key.
func keyDigest(key crypto.PublicKey) string {
	raw, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// signers returns the keys of which one has to have signed the images of a
// repository: those of the longest prefix that it has. None: it need not be signed.
func (s *Service) signers(repository string) []crypto.PublicKey {
	var keys []crypto.PublicKey
	best := -1
	for _, p := range s.cfg.Signatures {
		n := len(p.Prefix)
		switch {
		case p.Prefix == "*":
			n = 0
		case repository != p.Prefix && !strings.HasPrefix(repository, p.Prefix+"/"):
			continue
		}
		if n > best {
			keys, best = p.Keys, n
		}
	}
	return keys
}

// signedEnough says whether an image that is present may be used under the
// policies as they are now. One that nobody pulled was put here by the operator.
func (s *Service) signedEnough(n name) bool {
	keys := s.signers(n.repository)
	if keys == nil || s.cfg.Root == "" {
		return true
	}
	desc, ok, err := s.stores[0].find(n)
	if err != nil || !ok || desc.Annotations[annotationPulled] == "" {
		return err == nil
	}
	return slices.ContainsFunc(keys, func(k crypto.PublicKey) bool { return keyDigest(k) == desc.Annotations[annotationSigned] })
}

// signatureError is why an image does not pass.
type signatureError struct{ why string }

func (e *signatureError) Error() string { return e.why }

// refused words a signatureError as the kubelet does what a CRI runtime reports
// as SignatureValidationFailed (IMG-09).
func (e *signatureError) refused(ref string) *Error {
	return &Error{
		Reason:  ReasonSignatureValidationFailed,
		Message: fmt.Sprintf("image pull failed for %s because the signature validation failed: %s", ref, e.why), Err: e,
	}
}

// verifySignature makes sure that what is pulled is signed, where it has to be. It
// returns the digest of the key that it is signed with.
func (p *puller) verifySignature(ctx context.Context) (string, error) {
	keys := p.s.signers(p.name.repository)
	if keys == nil {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
	defer cancel()
	tag := p.top.Digest.Algorithm + "-" + p.top.Digest.Hex + ".sig"
	d, err := remote.Get(p.sess.repo.Tag(tag), remote.WithContext(ctx), remote.WithTransport(p.sess.trip))
	if te := (*transport.Error)(nil); errors.As(err, &te) && te.StatusCode == http.StatusNotFound {
		return "", &signatureError{fmt.Sprintf("%s is not signed: there is no %s beside it; sign it with 'cosign sign --key', or change --signature-keys", p.top.Digest, tag)}
	}
	if err != nil {
		return "", err
	}
	var m v1.Manifest
	if err := json.Unmarshal(d.Manifest, &m); err != nil || len(m.Layers) > maxSignatures {
		return "", &signatureError{fmt.Sprintf("%s is no list of at most %d signatures", tag, maxSignatures)}
	}
	var why []string
	for _, l := range m.Layers {
		key, err := p.signature(ctx, l, keys)
		if err == nil {
			return key, nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		why = append(why, err.Error())
	}
	if len(why) == 0 {
		why = append(why, "there is none")
	}
	return "", &signatureError{fmt.Sprintf("%s has no signature by a key that is trusted for %s: %s", p.top.Digest, p.name.repository, clip(strings.Join(dedupe(why), "; ")))}
}

// signature verifies one signature.
func (p *puller) signature(ctx context.Context, l v1.Descriptor, keys []crypto.PublicKey) (string, error) {
	if l.MediaType != simpleSigningLayer {
		return "", fmt.Errorf("%q is no signature", clip(string(l.MediaType)))
	}
	if l.Digest.Algorithm != "sha256" || l.Size > maxSignatureBytes {
		return "", errors.New("what is signed is too large, or not under sha256")
	}
	sig, err := base64.StdEncoding.DecodeString(l.Annotations[annotationSignature])
	if err != nil || len(sig) == 0 {
		return "", errors.New("the signature is not base64")
	}
	raw, err := p.sess.get(ctx, p.sess.blobURL(l.Digest), maxSignatureBytes)
	if err != nil {
		return "", err
	}
	if digestOf(raw) != l.Digest.String() {
		return "", fmt.Errorf("the registry sent other content than %s", l.Digest)
	}
	i := slices.IndexFunc(keys, func(k crypto.PublicKey) bool { return signedBy(k, raw, sig) })
	if i < 0 {
		return "", errors.New("it is by another key")
	}
	// Only what is signed is believed, and only now.
	var payload struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(raw, &payload); err != nil || payload.Critical.Type != simpleSigningType {
		return "", errors.New("what is signed is no image")
	}
	if payload.Critical.Image.Digest != p.top.Digest.String() {
		return "", fmt.Errorf("it is for another image, %s", clip(payload.Critical.Image.Digest))
	}
	return keyDigest(keys[i]), nil
}

func signedBy(key crypto.PublicKey, content, sig []byte) bool {
	sum := sha256.Sum256(content)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, content, sig)
	}
	return false
}
