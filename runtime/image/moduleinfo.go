package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Details are what inspecting an image tells beside what it asks for.
type Details struct {
	Image
	Form     string     `json:"Form"`     // one of the Form constants; empty for a local path
	Platform string     `json:"Platform"` // OS/ARCH, where the image says it
	Info     ModuleInfo `json:"ModuleInfo"`
}

// ModuleInfo is what a module needs and offers.
type ModuleInfo struct {
	Size int64 // bytes
	// Imports are the functions that it takes from the host, module.name, sorted.
	Imports []string
	Exports []string // names, sorted
	// MemoryMin and MemoryMax are the bounds of its memory in bytes; MemoryMax is
	// zero if the module sets none.
	MemoryMin, MemoryMax int64
	Functions            int // of its own
	Data                 int // bytes that are not code
}

// Details reads an image that is present. The error is an *Error unless ctx
// ended.
func (s *Service) Details(ctx context.Context, ref string) (Details, error) {
	img, c, err := s.lookup(ctx, ref)
	if err == nil && c == nil {
		err = &Error{Reason: ReasonErrImagePull, Message: s.absent(ref)}
	}
	if err != nil {
		return Details{}, err
	}
	b, err := s.readModule(ctx, c, img.Module)
	if err != nil {
		return Details{}, inspectError(ref, err)
	}
	d := Details{Image: img}
	if d.Info, err = parseModule(b); err != nil {
		return Details{}, inspectError(ref, err)
	}
	if ins, ok := c.(*inspection); ok {
		d.Form, d.Platform = ins.form()
	}
	return d, nil
}

// form says which of the forms an image has, and for which platform it is.
func (ins *inspection) form() (form, platform string) {
	img, err := ins.asImage()
	if err != nil {
		return "", ""
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return "", ""
	}
	if cf.OS != "" {
		platform = cf.OS + "/" + cf.Architecture
	}
	switch {
	case isWasmLayer(ins.layers[ins.entry.layer]):
		return FormArtifact, platform
	case cf.OS == "wasip1" || cf.OS == "wasi" || cf.Architecture == "wasm":
		return FormWASI, platform
	}
	return FormCompat, platform
}

var errModule = errors.New("the module is malformed")

// moduleReader reads numbers and names of a module.
type moduleReader struct {
	b   []byte
	bad bool
}

func (r *moduleReader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *moduleReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *moduleReader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *moduleReader) name() string {
	b := r.take(r.number())
	if !utf8.Valid(b) {
		r.bad = true
		return ""
	}
	return string(b)
}

func (r *moduleReader) limits() (least, most uint64) {
	flags := r.byte()
	least = r.number()
	if flags&1 != 0 {
		most = r.number()
	}
	return least, most
}

// parseModule reads what concerns a module's surroundings.
func parseModule(b []byte) (ModuleInfo, error) {
	const importSection, functionSection, memorySection, exportSection, codeSection, pageSize = 2, 3, 5, 7, 10, 64 << 10
	info := ModuleInfo{Size: int64(len(b)), Imports: []string{}, Exports: []string{}, Data: len(b)}
	if err := checkModule(b); err != nil {
		return info, err
	}
	memory := func(least, most uint64) {
		if least <= 65536 && most <= 65536 {
			info.MemoryMin, info.MemoryMax = int64(least)*pageSize, int64(most)*pageSize
		}
	}
	r := moduleReader{b: b[8:]}
	for len(r.b) > 0 && !r.bad {
		id := r.byte()
		content := r.take(r.number())
		s := moduleReader{b: content, bad: r.bad}
		switch id {
		case importSection:
			for n := s.number(); n > 0 && !s.bad; n-- {
				module, name := s.name(), s.name()
				switch s.byte() {
				case 0:
					s.number()
					info.Imports = append(info.Imports, module+"."+name)
				case 1:
					s.byte()
					s.limits()
				case 2:
					memory(s.limits())
				case 3:
					s.take(2)
				case 4:
					s.byte()
					s.number()
				default:
					s.bad = true
				}
			}
		case functionSection:
			info.Functions = int(min(s.number(), uint64(len(content))))
		case memorySection:
			if s.number() > 0 {
				memory(s.limits())
			}
		case exportSection:
			for n := s.number(); n > 0 && !s.bad; n-- {
				info.Exports = append(info.Exports, s.name())
				s.byte()
				s.number()
			}
		case codeSection:
			info.Data -= len(content)
		}
		if s.bad {
			return info, fmt.Errorf("%w: section %d", errModule, id)
		}
	}
	if r.bad {
		return info, errModule
	}
	slices.Sort(info.Imports)
	info.Imports = slices.Compact(info.Imports)
	slices.Sort(info.Exports)
	return info, nil
}
