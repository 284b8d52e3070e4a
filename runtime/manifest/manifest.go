package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Bounds on what Parse reads. A manifest is input from strangers: each of
// these keeps memory and time within reason, and each is far beyond what the
// Kubernetes API itself would take.
const (
	// MaxInput is the size of all sources together, in bytes.
	MaxInput = 16 << 20
	// MaxDocument is the size of one document in bytes, the limit the API
	// server puts on a request.
	MaxDocument = 3 << 20
	// MaxDocuments is how many documents all sources together may hold.
	MaxDocuments = 10000
	// MaxProblems is how many problems are reported before Parse gives up.
	MaxProblems = 200

	maxDepth    = 100     // nesting of maps and lists
	maxNodes    = 500000  // values of one document with its aliases expanded
	maxExpanded = 8 << 20 // bytes of one document with its aliases expanded
)

// Source is one file to read. Name is used in messages; "-" is standard input.
type Source struct {
	Name string
	Data []byte
}

// Objects are the objects of all sources, decoded, defaulted and valid, each
// list in the order of the manifests. Every namespaced object has its
// namespace set.
type Objects struct {
	Pods         []*corev1.Pod
	ConfigMaps   []*corev1.ConfigMap
	Secrets      []*corev1.Secret // stringData is merged into data
	Claims       []*corev1.PersistentVolumeClaim
	Namespaces   []*corev1.Namespace
	Deployments  []*appsv1.Deployment
	ReplicaSets  []*appsv1.ReplicaSet
	StatefulSets []*appsv1.StatefulSet
	DaemonSets   []*appsv1.DaemonSet
	Jobs         []*batchv1.Job
	// Services have no addresses and node ports yet but those they ask for.
	Services        []*corev1.Service
	NetworkPolicies []*networkingv1.NetworkPolicy

	// Warnings are what a user should know about input that is valid: fields
	// and objects that have no effect, and likely mistakes.
	Warnings []Problem
}

// Problem is one thing wrong with a manifest, or worth a warning.
type Problem struct {
	File string
	Line int // from 1; 0: concerns the whole file
	// Kind and Name are the object's, where they are known.
	Kind, Name string
	// Path is the field, such as spec.containers[0].image; may be empty.
	Path string
	// Message says what is wrong, in upstream's words where it has some.
	Message string
	// Hint says what to do about it; may be empty.
	Hint string
}

// String formats the problem as file:line: Kind "name": path: message (hint).
// The path is left out where the message has it.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	switch {
	case p.Kind != "" && p.Name != "":
		fmt.Fprintf(&b, "%s %q: ", p.Kind, p.Name)
	case p.Kind != "":
		b.WriteString(p.Kind + ": ")
	}
	if p.Path != "" && !strings.Contains(p.Message, strconv.Quote(p.Path)) {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Error is the error of Parse: everything wrong with the input.
type Error struct {
	Problems []Problem
	// Warnings are those of Objects, as far as the input could be read.
	Warnings []Problem
}

// Error lists all problems, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Parse decodes, defaults and validates every object of the sources (MAN-01).
// Namespaced objects without a namespace get defaultNamespace, or "default"
// if that is empty. The error is an *Error; on error no objects are returned.
// Parse is safe for concurrent use.
func Parse(defaultNamespace string, sources ...Source) (*Objects, error) {
	if defaultNamespace == "" {
		defaultNamespace = corev1.NamespaceDefault
	}
	p := &parser{namespace: defaultNamespace, objects: &Objects{}, seen: map[objectKey]string{}}
	p.parse(sources)
	if len(p.problems) > 0 {
		return nil, &Error{Problems: p.problems, Warnings: p.objects.Warnings}
	}
	p.warnMissingReferences()
	return p.objects, nil
}

// objectKey identifies an object among all that were read.
type objectKey struct{ kind, namespace, name string }

// parser collects the results of one Parse.
type parser struct {
	namespace string
	objects   *Objects
	problems  []Problem
	documents int
	pods      int32                // that the workload objects so far ask for
	seen      map[objectKey]string // where the object was declared first
	taken     map[objectKey]bool   // cluster IPs and node ports that Services ask for
	// full is set once MaxProblems is reached; the rest is not looked at.
	full bool
	// references are the ConfigMaps and Secrets that pods cannot start without.
	references []reference
}

func (p *parser) problem(pr Problem) {
	if p.full {
		return
	}
	pr.clean()
	if len(p.problems) == MaxProblems {
		p.full = true
		p.problems = append(p.problems, Problem{File: pr.File, Message: fmt.Sprintf("more than %d problems; the rest is not shown", MaxProblems)})
		return
	}
	p.problems = append(p.problems, pr)
}

func (p *parser) warn(pr Problem) {
	pr.clean()
	if len(p.objects.Warnings) < MaxProblems {
		p.objects.Warnings = append(p.objects.Warnings, pr)
	}
}

func (p *parser) parse(sources []Source) {
	total := 0
	for _, s := range sources {
		name := printable(s.Name)
		if name == "-" {
			name = "<stdin>"
		}
		total += len(s.Data)
		if total > MaxInput {
			p.problem(Problem{File: name, Message: fmt.Sprintf("manifests are too large: more than %d bytes in all", MaxInput)})
			return
		}
		f := &file{parser: p, name: name}
		f.parse(s.Data)
		if p.full {
			return
		}
	}
}

// clean makes every part of the problem fit to be shown.
func (p *Problem) clean() {
	for _, s := range []*string{&p.Kind, &p.Name, &p.Path, &p.Message, &p.Hint} {
		*s = printable(*s)
	}
}

// printable makes text from a manifest fit for one line of a terminal:
// control characters are escaped and very long text is cut in the middle.
func printable(s string) string {
	const limit = 700
	clean := true
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || (r >= 0x80 && r < 0xa0) || isBidi(r) {
			clean = false
			break
		}
	}
	if !clean {
		var b strings.Builder
		for _, r := range s {
			switch {
			case r == '\n':
				b.WriteString(`\n`)
			case r == '\t':
				b.WriteString(`\t`)
			case r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || isBidi(r):
				fmt.Fprintf(&b, `\u%04x`, r)
			default:
				b.WriteRune(r)
			}
		}
		s = b.String()
	}
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit/2], "") + "…" + strings.ToValidUTF8(s[len(s)-limit/4:], "")
	}
	return s
}

// isBidi reports whether r changes the direction of text, which would let a
// manifest show something else than it says.
func isBidi(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
