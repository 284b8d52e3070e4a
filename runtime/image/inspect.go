package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// Layer media types that go-containerregistry has no name for: the CNCF wasm
// artifact keeps the module itself as a layer.
const (
	wasmLayer       types.MediaType = "application/wasm"
	wasmLayerLegacy types.MediaType = "application/vnd.wasm.content.layer.v1+wasm"
)

// inspection is what one image manifest of a store was found to say. It
// depends on content only, so it is kept for as long as there is room.
type inspection struct {
	digest  string // of the descriptor in the index
	service *Service
	image   Image // without Ref and ID
	blobs   []v1.Descriptor
	store   *layout
	layers  []v1.Descriptor
	entry   entry
	// noModule is why nothing in it can be started: then it is of use as a volume
	// only.
	noModule error
	// volume: it is looked at as one, and entry stands for nothing; see VolumeRoot.
	volume bool
}

// entry is where an image keeps its entry module.
type entry struct {
	layer  int    // index of the layer
	path   string // slash-separated, relative to the image's root; empty if raw
	record int    // index of the tar record in the layer; -1: the first one named path
	raw    bool   // the layer is the module itself
	digest string
}

// inspectNamed inspects the image that a store has under a name; nil if it has
// none. An image that is removed or replaced meanwhile is no damaged one.
func (s *Service) inspectNamed(ctx context.Context, l *layout, n name) (*inspection, error) {
	desc, ok, err := l.find(n)
	for err == nil && ok {
		ins, ierr := s.inspect(ctx, l, desc)
		if ierr == nil || ctx.Err() != nil {
			return ins, ierr
		}
		before := desc.Digest
		if desc, ok, err = l.find(n); err == nil && ok && desc.Digest == before {
			return nil, ierr
		}
	}
	return nil, err
}

func (s *Service) inspect(ctx context.Context, l *layout, desc v1.Descriptor) (*inspection, error) {
	ins, err := s.inspectAny(ctx, l, desc)
	if err == nil && ins.noModule != nil && ctx.Value(volumeKey{}) == nil {
		err = ins.noModule
	}
	if err != nil {
		return nil, err
	}
	return ins, nil
}

// inspectAny takes an image without a module, too.
func (s *Service) inspectAny(ctx context.Context, l *layout, desc v1.Descriptor) (*inspection, error) {
	ins := s.inspection(l, desc.Digest.String())
	if ins == nil {
		var err error
		if ins, err = s.inspectManifest(ctx, l, desc); err != nil {
			return nil, err
		}
		s.mu.Lock()
		bound(s.inspected)
		s.inspected[inspectionKey(l, ins.digest)] = ins
		s.mu.Unlock()
	} else {
		for _, blob := range ins.blobs {
			if err := l.check(blob); err != nil {
				return nil, err
			}
		}
	}
	if ins.noModule == nil {
		s.remember(ins.image.Module, ins)
	}
	return ins, nil
}

func inspectionKey(l *layout, digest string) string { return l.dir + "\x00" + digest }

// inspection returns what is remembered of a manifest, or nil.
func (s *Service) inspection(l *layout, digest string) *inspection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inspected[inspectionKey(l, digest)]
}

func (s *Service) inspectManifest(ctx context.Context, l *layout, desc v1.Descriptor) (*inspection, error) {
	mdesc, err := selectManifest(l, desc, 0)
	if err != nil {
		return nil, err
	}
	raw, err := l.readBlob(mdesc)
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", mdesc.Digest, err)
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("manifest %s: %d layers; at most %d are supported", mdesc.Digest, len(m.Layers), maxLayers)
	}
	// The size of the manifest is what was read, whatever the index claims.
	mdesc.Size = int64(len(raw))
	ins := &inspection{
		digest: desc.Digest.String(), service: s,
		store:  l,
		layers: m.Layers,
		blobs:  append([]v1.Descriptor{mdesc, m.Config}, m.Layers...),
	}
	for _, blob := range ins.blobs {
		if err := l.check(blob); err != nil {
			return nil, err
		}
		ins.image.Size += blob.Size
	}
	rawConfig, err := l.readBlob(m.Config)
	if err != nil {
		return nil, err
	}
	var cf v1.ConfigFile
	if err := json.Unmarshal(rawConfig, &cf); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", m.Config.Digest, err)
	}
	cfg := cf.Config
	ins.image.Config = container.ImageConfig{
		Entrypoint: cfg.Entrypoint, Cmd: cfg.Cmd, Env: cfg.Env,
		WorkingDir: cfg.WorkingDir, User: cfg.User, StopSignal: cfg.StopSignal,
	}
	hint := m.Annotations[annotationEntry]
	if hint == "" {
		hint = cfg.Labels[annotationEntry]
	}
	ins.entry, err = s.findEntry(ctx, ins, hint)
	if no := (*noModuleError)(nil); errors.As(err, &no) {
		ins.entry, ins.noModule = entry{layer: -1, record: -1}, err
		return ins, nil
	}
	if err != nil {
		return nil, err
	}
	ins.image.Module = ins.entry.digest
	if len(cfg.Entrypoint) == 0 && len(cfg.Cmd) == 0 {
		ins.image.Config.Entrypoint = []string{"/" + entryName(ins.entry)}
	}
	return ins, nil
}

func entryName(e entry) string {
	if e.raw {
		return "entry.wasm"
	}
	return e.path
}

func isWasmLayer(desc v1.Descriptor) bool {
	return desc.MediaType == wasmLayer || desc.MediaType == wasmLayerLegacy
}

// selectManifest follows indexes down to the one manifest that this node can
// run.
func selectManifest(l *layout, desc v1.Descriptor, depth int) (v1.Descriptor, error) {
	switch {
	case desc.MediaType.IsImage():
		return desc, nil
	case !desc.MediaType.IsIndex():
		return desc, fmt.Errorf("%s is a %q, neither an image nor an index of images", desc.Digest, desc.MediaType)
	case depth >= maxIndexNesting:
		return desc, errors.New("image indexes are nested too deep")
	}
	raw, err := l.readBlob(desc)
	if err != nil {
		return desc, err
	}
	index, err := parseIndex(raw)
	if err != nil {
		return desc, fmt.Errorf("index %s: %w", desc.Digest, err)
	}
	best, err := bestForPlatform(index.Manifests)
	if err != nil {
		return desc, fmt.Errorf("index %s: %w", desc.Digest, err)
	}
	return selectManifest(l, best, depth+1)
}

// bestForPlatform chooses the manifest for a WASI preview 1 host. An index
// with a single image needs no platform: its author had no choice to offer.
func bestForPlatform(manifests []v1.Descriptor) (v1.Descriptor, error) {
	var images []v1.Descriptor
	var offered []string
	best, rank := v1.Descriptor{}, 0
	for _, d := range manifests {
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		images = append(images, d)
		if r := platformRank(d); r > rank {
			best, rank = d, r
		}
		if d.Platform != nil {
			offered = append(offered, d.Platform.OS+"/"+d.Platform.Architecture)
		}
	}
	switch {
	case rank > 0:
		return best, nil
	case len(images) == 1:
		return images[0], nil
	case len(images) == 0:
		return best, errors.New("the index holds no image")
	}
	return best, fmt.Errorf("none of the %d images is for wasip1/wasm (there is: %s)", len(images), strings.Join(offered, ", "))
}

func platformRank(d v1.Descriptor) int {
	p := d.Platform
	variant := 0
	if strings.HasPrefix(d.Annotations[annotationVariant], "compat") {
		variant = 1 // a module dressed as a program of another platform
	}
	switch {
	case p == nil:
		return variant
	case p.OS == defaultPlatformOS && p.Architecture == defaultPlatformArch:
		return 4
	case p.OS == "wasi" && strings.HasPrefix(p.Architecture, "wasm"):
		return 3
	case strings.HasPrefix(p.Architecture, "wasm") && p.OS != "wasip2" && p.OS != "wasip3":
		return 2
	}
	return variant
}

// findEntry finds the entry module: what the image's own command names, then
// what its annotation or label names, then its only module.
func (s *Service) findEntry(ctx context.Context, ins *inspection, hint string) (entry, error) {
	for i, layer := range ins.layers {
		switch {
		case isWasmLayer(layer):
			if layer.Size > s.limits.moduleBytes {
				return entry{}, fmt.Errorf("module %s: %w: %d bytes; at most %d are supported", layer.Digest, errTooLarge, layer.Size, s.limits.moduleBytes)
			}
			return entry{layer: i, raw: true, digest: layer.Digest.String()}, nil
		case layer.Annotations[annotationModule] != "" && layer.Annotations[annotationEntry] != "":
			// Written by Build: the digest is in the verified manifest, so the
			// layer need not be read here. Module verifies the content.
			path, err := cleanEntryName(layer.Annotations[annotationEntry])
			if err != nil {
				return entry{}, fmt.Errorf("annotation %s: %w", annotationEntry, err)
			}
			h, err := v1.NewHash(layer.Annotations[annotationModule])
			if err != nil || h.Algorithm != "sha256" {
				return entry{}, fmt.Errorf("annotation %s: %q is not a sha256 digest", annotationModule, layer.Annotations[annotationModule])
			}
			return entry{layer: i, path: path, record: -1, digest: h.String()}, nil
		}
	}
	t, _, err := s.readTree(ctx, ins, false)
	if err != nil {
		return entry{}, err
	}
	path, n, err := t.entry(ins.image.Config, hint)
	if err != nil {
		return entry{}, &noModuleError{err}
	}
	if n.file.size > s.limits.moduleBytes {
		return entry{}, fmt.Errorf("module /%s: %w: %d bytes; at most %d are supported", path, errTooLarge, n.file.size, s.limits.moduleBytes)
	}
	return entry{layer: n.file.layer, path: path, record: n.file.record, digest: n.file.digest}, nil
}
