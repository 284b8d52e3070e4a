package image

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// ImportPolicy says what the modules of a namespace's pods may import.
type ImportPolicy map[string][]string // patterns by namespace

// ParseImportPolicy reads a policy as flags and configuration files have it:
// NAMESPACE=MODULE.FUNCTION, where the function may have the wildcards of
// path.Match, as in team-a=wasi_snapshot_preview1.fd_*. The namespace * stands for
// all that are not listed; one that is not listed, where * is not, may import
// everything.
func ParseImportPolicy(list []string) (ImportPolicy, error) {
	policy := ImportPolicy{}
	for _, entry := range list {
		namespace, pattern, ok := strings.Cut(entry, "=")
		if _, err := path.Match(pattern, ""); !ok || namespace == "" || pattern == "" || err != nil {
			return nil, fmt.Errorf("%q: want NAMESPACE=MODULE.FUNCTION, as in default=wasi_snapshot_preview1.*", entry)
		}
		policy[namespace] = append(policy[namespace], pattern)
	}
	return policy, nil
}

// denied returns which imports a namespace may not have.
func (p ImportPolicy) denied(namespace string, imports []string) []string {
	patterns, ok := p[namespace]
	if !ok {
		if patterns, ok = p["*"]; !ok {
			return nil
		}
	}
	var denied []string
next:
	for _, name := range imports {
		for _, pattern := range patterns {
			if ok, _ := path.Match(pattern, name); ok {
				continue next
			}
		}
		denied = append(denied, name)
	}
	return denied
}

// admit compares what an image's entry module imports with what the namespace
// may.
func (s *Service) admit(ctx context.Context, r Request, img Image) error {
	if len(s.cfg.Imports) == 0 {
		return nil
	}
	s.mu.Lock()
	imports, known := s.imports[img.Module]
	s.mu.Unlock()
	if !known {
		b, err := s.Module(ctx, img.Module)
		if err != nil {
			return err
		}
		info, err := parseModule(b)
		if err != nil {
			return inspectError(r.Ref, err)
		}
		imports = info.Imports
		s.mu.Lock()
		bound(s.imports)
		s.imports[img.Module] = imports
		s.mu.Unlock()
	}
	if err := s.compare(r.Namespace, imports); err != nil {
		return inspectError(r.Ref, err)
	}
	return nil
}

// Admit compares what a module imports with what the namespace may: one that a command
// is to be run from, out of whatever file of a container.
func (s *Service) Admit(namespace string, module []byte) error {
	if len(s.cfg.Imports) == 0 {
		return nil
	}
	info, err := parseModule(module)
	if err != nil {
		return err
	}
	return s.compare(namespace, info.Imports)
}

func (s *Service) compare(namespace string, imports []string) error {
	denied := s.cfg.Imports.denied(namespace, imports)
	if len(denied) == 0 {
		return nil
	}
	const most = 8
	rest := ""
	if n := len(denied) - most; n > 0 {
		denied, rest = denied[:most], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("its module imports %s%s, which the namespace %q does not allow (--allowed-imports)",
		clip(strings.ToValidUTF8(strings.Join(denied, ", "), "\ufffd")), rest, namespace)
}
