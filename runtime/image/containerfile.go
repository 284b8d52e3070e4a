package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
)

// maxContainerfile bounds what ParseContainerfile reads.
const maxContainerfile = 1 << 20

// ParseContainerfile reads a build's description in the words of a
// Containerfile (Dockerfile): FROM scratch, COPY, ENTRYPOINT, CMD, ENV,
// WORKDIR, USER, LABEL, EXPOSE and STOPSIGNAL. There is nothing to run, so
// there is no RUN. Sources of COPY lie below dir, and cannot leave it. The entry
// module is the one that ENTRYPOINT, or else CMD, names, or the only .wasm file
// that is copied by name.
func ParseContainerfile(text, dir string) (BuildSpec, error) {
	if len(text) > maxContainerfile {
		return BuildSpec{}, fmt.Errorf("%w: more than %d bytes", errTooLarge, maxContainerfile)
	}
	p := containerfile{dir: dir}
	line, start := "", 0
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimSpace(strings.TrimSuffix(l, "\r"))
		if line == "" {
			start = i + 1
		}
		if strings.HasPrefix(l, "#") || l == "" {
			continue
		}
		if head, ok := strings.CutSuffix(l, "\\"); ok {
			line += head + " "
			continue
		}
		if err := p.instruction(line + l); err != nil {
			return BuildSpec{}, fmt.Errorf("line %d: %w", start, err)
		}
		line = ""
	}
	if line != "" {
		return BuildSpec{}, fmt.Errorf("line %d: the file ends within an instruction", start)
	}
	return p.finish()
}

type containerfile struct {
	dir  string
	spec BuildSpec
	from bool
}

func (p *containerfile) instruction(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	word, rest = strings.ToUpper(word), strings.TrimSpace(rest)
	if !p.from && word != "FROM" {
		return errors.New("the first instruction has to be FROM scratch")
	}
	if rest == "" {
		return fmt.Errorf("%s of nothing", clip(word))
	}
	var err error
	switch word {
	case "FROM":
		fields := strings.Fields(rest)
		for len(fields) > 0 && strings.HasPrefix(fields[0], "--platform=") {
			p.spec.Platform = strings.TrimPrefix(fields[0], "--platform=")
			fields = fields[1:]
		}
		if p.from || len(fields) != 1 || fields[0] != "scratch" {
			return errors.New("only one stage is supported, FROM scratch")
		}
		p.from = true
	case "COPY", "ADD":
		return p.copy(rest)
	case "ENTRYPOINT":
		p.spec.Entrypoint, err = words(rest)
	case "CMD":
		p.spec.Cmd, err = words(rest)
	case "ENV":
		return p.pairs(rest, func(k, v string) { p.spec.Env = append(p.spec.Env, k+"="+v) })
	case "LABEL":
		return p.pairs(rest, func(k, v string) {
			if p.spec.Labels == nil {
				p.spec.Labels = map[string]string{}
			}
			p.spec.Labels[k] = v
		})
	case "WORKDIR":
		p.spec.WorkingDir = path.Join("/", p.spec.WorkingDir, rest)
		if path.IsAbs(rest) {
			p.spec.WorkingDir = path.Clean(rest)
		}
	case "USER":
		p.spec.User = rest
	case "STOPSIGNAL":
		p.spec.StopSignal = rest
	case "EXPOSE":
		for _, port := range strings.Fields(rest) {
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			p.spec.ExposedPorts = append(p.spec.ExposedPorts, port)
		}
	case "RUN":
		return errors.New("RUN is not supported: nothing runs while an image is built; build the module before")
	default:
		return fmt.Errorf("%s is not supported", clip(word))
	}
	return err
}

func (p *containerfile) copy(rest string) error {
	list, err := words(rest)
	if err != nil {
		return err
	}
	var mode uint32
	for len(list) > 0 && strings.HasPrefix(list[0], "--") {
		if n, serr := fmt.Sscanf(list[0], "--chmod=%o", &mode); serr != nil || n != 1 || mode > 0o777 {
			return fmt.Errorf("COPY %s is not supported", clip(list[0]))
		}
		list = list[1:]
	}
	if len(list) < 2 {
		return errors.New("COPY needs a source and a destination")
	}
	to := list[len(list)-1]
	for _, from := range list[:len(list)-1] {
		local := filepath.FromSlash(from)
		if !filepath.IsLocal(local) {
			return fmt.Errorf("COPY %s: it is not below the folder of the build", clip(from))
		}
		guest := to
		if !path.IsAbs(guest) {
			guest = path.Join("/", p.spec.WorkingDir, to)
		}
		if strings.HasSuffix(to, "/") || to == "." || len(list) > 2 {
			guest = path.Join(guest, path.Base(from))
		}
		p.spec.Files = append(p.spec.Files, File{Host: filepath.Join(p.dir, local), Guest: guest, Mode: fs.FileMode(mode)})
	}
	return nil
}

// pairs reads KEY=VALUE KEY="VALUE WITH SPACES", and the old form KEY VALUE.
func (p *containerfile) pairs(rest string, set func(k, v string)) error {
	list, err := words(rest)
	if err != nil {
		return err
	}
	if !strings.Contains(list[0], "=") {
		k, v, ok := strings.Cut(rest, " ")
		if !ok {
			return fmt.Errorf("%q: want KEY=VALUE", clip(rest))
		}
		set(k, strings.TrimSpace(v))
		return nil
	}
	for _, w := range list {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return fmt.Errorf("%q: want KEY=VALUE", clip(w))
		}
		set(k, v)
	}
	return nil
}

// words reads ["a", "b"], or words with quotes and backslashes as a shell has
// them. There is no shell in an image, so the form without brackets means the
// same words.
func words(s string) ([]string, error) {
	if strings.HasPrefix(s, "[") {
		var list []string
		if err := json.Unmarshal([]byte(s), &list); err != nil {
			return nil, fmt.Errorf("%s: want [\"word\", \"word\"]", clip(s))
		}
		return list, nil
	}
	var list []string
	var b strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, r := range s {
		switch {
		case escaped:
			b.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, in = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			b.WriteRune(r)
		case r == '"' || r == '\'':
			quote, in = r, true
		case r == ' ' || r == '\t':
			if in {
				list = append(list, b.String())
				b.Reset()
			}
			in = false
		default:
			in = true
			b.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("%s: a quote is not closed", clip(s))
	}
	if in {
		list = append(list, b.String())
	}
	if len(list) == 0 {
		return nil, errors.New("there are no words")
	}
	return list, nil
}

// finish finds the entry module among the files.
func (p *containerfile) finish() (BuildSpec, error) {
	if !p.from {
		return BuildSpec{}, errors.New("there is no FROM scratch")
	}
	spec := p.spec
	command := append(append([]string{}, spec.Entrypoint...), spec.Cmd...)
	at := -1
	for i, f := range spec.Files {
		named := len(command) > 0 && path.Join("/", spec.WorkingDir, command[0]) == path.Clean(f.Guest) ||
			len(command) > 0 && path.Clean(command[0]) == path.Clean(f.Guest)
		if named {
			at = i
			break
		}
		if strings.HasSuffix(f.Host, ".wasm") {
			if at >= 0 {
				at = -2
			} else if at == -1 {
				at = i
			}
		}
	}
	if at < 0 {
		return BuildSpec{}, errors.New("which module is started is not said: COPY it, and name it by ENTRYPOINT [\"/app.wasm\"]")
	}
	spec.Module, spec.ModuleName = spec.Files[at].Host, strings.TrimPrefix(path.Clean(spec.Files[at].Guest), "/")
	spec.Files = append(append([]File{}, spec.Files[:at]...), spec.Files[at+1:]...)
	return spec, nil
}
