package image

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	corev1 "k8s.io/api/core/v1"
)

// signer signs as cosign does.
type signer struct {
	key  crypto.Signer
	file string // of the public key
}

func newSigner(t testing.TB, key crypto.Signer) signer {
	t.Helper()
	raw, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(t.TempDir(), "cosign.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw}))
	return signer{key, file}
}

func (s signer) sign(t testing.TB, content []byte) string {
	t.Helper()
	sum := sha256.Sum256(content)
	digest, opts := sum[:], crypto.SignerOpts(crypto.SHA256)
	if _, ok := s.key.(ed25519.PrivateKey); ok {
		digest, opts = content, crypto.Hash(0)
	}
	sig, err := s.key.Sign(rand.Reader, digest, opts)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// payload is what cosign signs.
func payload(digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"x"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
}

// signature is one layer of an image of signatures.
type signature struct {
	content []byte
	sig     string
	media   types.MediaType
}

// pushSignatures puts signatures where cosign puts those of digest.
func (s *server) pushSignatures(t testing.TB, repo, digest string, list ...signature) {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for _, l := range list {
		if l.media == "" {
			l.media = simpleSigningLayer
		}
		var err error
		img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(l.content, l.media), MediaType: l.media, Annotations: map[string]string{annotationSignature: l.sig}})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.push(t, repo+":"+strings.Replace(digest, ":", "-", 1)+".sig", img)
}

func TestSignatures(t *testing.T) {
	srv := startRegistry(t)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strange, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ours, others := newSigner(t, p256), newSigner(t, strange)
	policies := func(t *testing.T, entries ...string) []SignaturePolicy {
		t.Helper()
		list, err := ParseSignaturePolicies(entries)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	requiring := func(t *testing.T, keys ...signer) Config {
		cfg := quick(t)
		for _, k := range keys {
			cfg.Signatures = append(cfg.Signatures, policies(t, srv.host+"/signed="+k.file)...)
		}
		return cfg
	}
	kinds := []signer{ours, newSigner(t, ed)}
	if !testing.Short() { // to make a key of this kind takes long
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, newSigner(t, key))
	}
	for _, k := range kinds {
		t.Run(fmt.Sprintf("a signature by %T", k.key), func(t *testing.T) {
			digest := srv.push(t, "signed/app:v1", wasmImage(t, fmt.Sprintf("%T", k.key)))
			srv.pushSignatures(t, "signed/app", digest, signature{content: payload(digest), sig: others.sign(t, payload(digest))}, signature{content: payload(digest), sig: k.sign(t, payload(digest))})
			s := open(t, requiring(t, k))
			img, err := s.Pull(t.Context(), srv.host+"/signed/app:v1", PullOptions{})
			if err != nil || !strings.HasSuffix(img.ID, digest) {
				t.Errorf("%+v, %v", img, err)
			}
			checkStore(t, s.cfg.Root)
		})
	}
	another := srv.push(t, "signed/another:v1", wasmImage(t, "another"))
	for i, c := range []struct {
		name string
		sigs func(digest string) []signature
		want string
	}{
		{"no signature", nil, "is not signed"},
		{"a list of none", func(string) []signature { return []signature{} }, "there is none"},
		{"by another key", func(d string) []signature {
			return []signature{{content: payload(d), sig: others.sign(t, payload(d))}}
		}, "by another key"},
		{"of another image", func(string) []signature {
			return []signature{{content: payload(another), sig: ours.sign(t, payload(another))}}
		}, "for another image"},
		{"of another content", func(d string) []signature {
			return []signature{{content: payload(d), sig: ours.sign(t, payload(another))}}
		}, "by another key"},
		{"of what is no image", func(string) []signature {
			return []signature{{content: []byte("{}"), sig: ours.sign(t, []byte("{}"))}}
		}, "no image"},
		{"of what is no JSON", func(string) []signature {
			return []signature{{content: []byte("x"), sig: ours.sign(t, []byte("x"))}}
		}, "no image"},
		{"no base64", func(d string) []signature { return []signature{{content: payload(d), sig: "%"}} }, "not base64"},
		{"an empty one", func(d string) []signature { return []signature{{content: payload(d)}} }, "not base64"},
		{"of another type", func(d string) []signature {
			return []signature{{content: payload(d), sig: ours.sign(t, payload(d)), media: types.OCILayer}}
		}, "is no signature"},
		{"far too large", func(d string) []signature {
			b := append(payload(d), make([]byte, maxSignatureBytes)...)
			return []signature{{content: b, sig: ours.sign(t, b)}}
		}, "too large"},
		{"far too many", func(d string) []signature {
			list := make([]signature, maxSignatures+1)
			for i := range list {
				list[i] = signature{content: []byte("x"), sig: "eA=="}
			}
			return list
		}, "at most"},
	} {
		t.Run("IMG-09 "+c.name, func(t *testing.T) {
			repo := fmt.Sprintf("signed/bad%d", i)
			digest := srv.push(t, repo+":v1", wasmImage(t, c.name))
			if c.sigs != nil {
				srv.pushSignatures(t, repo, digest, c.sigs(digest)...)
			}
			s := open(t, requiring(t, ours))
			before := srv.blobs.Load()
			_, _, err := s.Ensure(t.Context(), Request{Ref: srv.host + "/" + repo + ":v1"})
			wantError(t, err, ReasonSignatureValidationFailed, "image pull failed for "+srv.host+"/"+repo+":v1 because the signature validation failed: ")
			wantError(t, err, ReasonSignatureValidationFailed, c.want)
			if n := srv.blobs.Load() - before; n > 2 {
				t.Errorf("%d blobs were downloaded", n)
			}
			if _, ok, _ := s.Present(srv.host + "/" + repo + ":v1"); ok {
				t.Error("it is there")
			}
		})
	}
	t.Run("an image that need not be signed", func(t *testing.T) {
		srv.push(t, "signedness/app:v1", wasmImage(t, "free"))
		if _, err := open(t, requiring(t, ours)).Pull(t.Context(), srv.host+"/signedness/app:v1", PullOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("an image that was pulled before it had to be signed", func(t *testing.T) {
		digest := srv.push(t, "signed/late:v1", wasmImage(t, "late"))
		ref := srv.host + "/signed/late:v1"
		cfg := requiring(t, ours)
		free := cfg
		free.Signatures = nil
		if _, err := open(t, free).Pull(t.Context(), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
		s := open(t, cfg)
		_, _, err := s.Ensure(t.Context(), Request{Ref: ref})
		wantError(t, err, ReasonSignatureValidationFailed, "is not signed")
		_, _, err = s.Ensure(t.Context(), Request{Ref: ref, Policy: corev1.PullNever})
		wantError(t, err, ReasonSignatureValidationFailed, "before it had to be signed")
		srv.pushSignatures(t, "signed/late", digest, signature{content: payload(digest), sig: ours.sign(t, payload(digest))})
		if _, pulled, err := s.Ensure(t.Context(), Request{Ref: ref}); err != nil || !pulled {
			t.Errorf("pulled %v, %v", pulled, err)
		}
		for _, policy := range []corev1.PullPolicy{corev1.PullIfNotPresent, corev1.PullNever} {
			if _, pulled, err := s.Ensure(t.Context(), Request{Ref: ref, Policy: policy}); err != nil || pulled {
				t.Errorf("%s: pulled %v, %v", policy, pulled, err)
			}
		}
		cfg.Signatures = policies(t, "*="+others.file)
		_, _, err = open(t, cfg).Ensure(t.Context(), Request{Ref: ref})
		wantError(t, err, ReasonSignatureValidationFailed, "by another key")
	})
	t.Run("an image that was built here", func(t *testing.T) {
		cfg := quick(t)
		cfg.Signatures = policies(t, "*="+ours.file)
		s := open(t, cfg)
		build(t, s, BuildSpec{Module: write(t, filepath.Join(t.TempDir(), "m.wasm"), wasm("built")), Refs: []string{"built"}})
		if _, _, err := s.Ensure(t.Context(), Request{Ref: "built"}); err != nil {
			t.Error(err)
		}
	})
	t.Run("which policy is for which image", func(t *testing.T) {
		s := open(t, Config{Signatures: policies(t, "*="+ours.file, "a.io="+others.file, "a.io/team/="+ours.file, "a.io/team="+others.file)})
		for repository, want := range map[string]int{"b.io/x": 1, "a.io/x": 1, "a.io/team": 2, "a.io/team/x": 2, "a.io/teams": 1} {
			if got := s.signers(repository); len(got) != want {
				t.Errorf("%s: %d keys", repository, len(got))
			}
		}
	})
	t.Run("keys that are none", func(t *testing.T) {
		short := write(t, filepath.Join(t.TempDir(), "x"), []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
		for _, entry := range []string{"", "x", "=" + ours.file, "a.io=", "a.io=/nowhere", "https://a.io=" + ours.file, "a.io=" + short, "a.io=" + write(t, filepath.Join(t.TempDir(), "y"), []byte("no key"))} {
			if _, err := ParseSignaturePolicies([]string{entry}); err == nil {
				t.Errorf("%q: no error", entry)
			}
		}
	})
}

// importing is a module that imports functions.
func importing(names ...string) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00")
	section := []byte{byte(len(names))}
	for _, n := range names {
		module, name, _ := strings.Cut(n, ".")
		section = append(append(section, byte(len(module))), module...)
		section = append(append(section, byte(len(name))), name...)
		section = append(section, 0, 0)
	}
	return append(append(b, 2, byte(len(section))), section...)
}

func TestImportPolicy(t *testing.T) {
	policy, err := ParseImportPolicy([]string{"strict=wasi.fd_*", "strict=wasi.proc_exit", "none=-", "*=wasi.*"})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{BaseDir: t.TempDir(), Imports: policy})
	file := write(t, filepath.Join(t.TempDir(), "m.wasm"), importing("wasi.fd_read", "wasi.proc_exit", "wasi.sock_open"))
	plain := write(t, filepath.Join(t.TempDir(), "m.wasm"), importing("wasi.fd_read"))
	other := write(t, filepath.Join(t.TempDir(), "m.wasm"), importing("env.fork", "wasi.fd_read"))
	for _, c := range []struct{ namespace, file, want string }{
		{"strict", plain, ""},
		{"strict", file, `its module imports wasi.sock_open, which the namespace "strict" does not allow`},
		{"none", plain, "imports wasi.fd_read,"},
		{"default", file, ""},
		{"default", other, "imports env.fork,"},
	} {
		for range 2 { // the second time it is known
			_, _, err := s.Ensure(t.Context(), Request{Ref: c.file, Namespace: c.namespace})
			if c.want == "" && err != nil {
				t.Errorf("%s %s: %v", c.namespace, c.file, err)
			}
			if c.want != "" {
				wantError(t, err, ReasonImageInspectError, c.want)
			}
		}
	}
	if _, _, err := open(t, Config{Imports: ImportPolicy{"strict": nil}}).Ensure(t.Context(), Request{Ref: other, Namespace: "free"}); err != nil {
		t.Error(err)
	}
	for _, entry := range []string{"", "x", "=wasi.*", "x=", "x=["} {
		if _, err := ParseImportPolicy([]string{entry}); err == nil {
			t.Errorf("%q: no error", entry)
		}
	}
}
