package image

import (
	"fmt"
	goruntime "runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func (p *puller) unsuitable(offered []string) error {
	return &unsuitableError{fmt.Errorf("image %q is for %s: it holds native programs, and this node runs WebAssembly modules (WASI preview 1); use an image for wasip1/wasm, or make one of a module: 'wasmpod image build -t %s FILE.wasm'",
		p.ref, clip(strings.Join(offered, ", ")), p.ref)}
}

// nativeCandidate is the image of an index that would be chosen on a node for
// native programs. Modules are often published as such.
func nativeCandidate(manifests []v1.Descriptor) (v1.Descriptor, bool) {
	var first *v1.Descriptor
	for i, d := range manifests {
		if d.Platform == nil || d.Platform.OS != "linux" || !d.MediaType.IsImage() {
			continue
		}
		if d.Platform.Architecture == goruntime.GOARCH {
			return d, true
		}
		if first == nil {
			first = &manifests[i]
		}
	}
	if first == nil {
		return v1.Descriptor{}, false
	}
	return *first, true
}

func offeredPlatforms(manifests []v1.Descriptor) []string {
	var list []string
	for _, d := range manifests {
		if d.Platform != nil && d.Platform.OS != "unknown" {
			list = append(list, d.Platform.OS+"/"+d.Platform.Architecture)
		}
	}
	if len(list) == 0 {
		return []string{"no platform at all"}
	}
	return dedupe(list)
}

// annotationVariant marks Linux images whose program is a module, for runtimes
// that choose by image ("compat", "compat-smart").
const annotationVariant = "module.wasm.image/variant"

func isComponent(cf *v1.ConfigFile) bool { return cf.OS == "wasip2" || cf.OS == "wasip3" }

// isNative says that an image is sure to hold no module that could be started:
// it is for another platform, its command names none, and nothing says that it
// holds one.
func isNative(m *v1.Manifest, cf *v1.ConfigFile) bool {
	if platformRank(v1.Descriptor{Platform: &v1.Platform{OS: cf.OS, Architecture: cf.Architecture}}) > 0 || cf.OS == "" {
		return false
	}
	for _, a := range []map[string]string{m.Annotations, cf.Config.Labels} {
		if a[annotationVariant] != "" || a[annotationEntry] != "" || a["run.oci.handler"] == "wasm" {
			return false
		}
	}
	for _, l := range m.Layers {
		if isWasmLayer(l) {
			return false
		}
	}
	command := append(append([]string{}, cf.Config.Entrypoint...), cf.Config.Cmd...)
	for _, word := range command {
		if strings.Contains(word, ".wasm") {
			return false
		}
	}
	return len(command) > 0
}
