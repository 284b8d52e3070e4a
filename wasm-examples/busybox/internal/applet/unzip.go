package applet

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// unzip unpacks or lists an archive. What would lie outside the directory is an
// error.
func unzip(p *proc.Proc) int {
	f, rest, ok := parse(p, "lnoqpd:", nil)
	if !ok || len(rest) == 0 {
		return p.Usage("[-lnopq] FILE[.zip] [MEMBER]... [-d DIR]")
	}
	name := p.Path(rest[0])
	z, err := zip.OpenReader(name)
	if errors.Is(err, os.ErrNotExist) {
		z, err = zip.OpenReader(name + ".zip")
	}
	if err != nil {
		p.Errorf("can't open %s: %s", rest[0], proc.Reason(err))
		return 1
	}
	defer z.Close()
	dir := p.Dir
	if d, ok := f.value('d'); ok {
		dir = p.Path(d)
	}
	wanted := make(map[string]bool)
	for _, member := range rest[1:] {
		wanted[member] = true
	}
	status := 0
	for _, member := range z.File {
		if len(wanted) > 0 && !wanted[member.Name] {
			continue
		}
		switch {
		case f.has('l'):
			fmt.Fprintf(p.Stdout, "%9d  %s   %s\n", member.UncompressedSize64, member.Modified.UTC().Format("2006-01-02 15:04"), member.Name)
			continue
		case f.has('p'):
			err = copyMember(p.Stdout, member)
		default:
			if !f.has('q') {
				fmt.Fprintf(p.Stdout, "  inflating: %s\n", member.Name)
			}
			err = extract(dir, member, f.has('o'), f.has('n'))
		}
		if err != nil {
			p.Errorf("%s: %s", member.Name, proc.Reason(err))
			status = 1
		}
	}
	return status
}

func extract(dir string, member *zip.File, overwrite, keep bool) error {
	if !filepath.IsLocal(strings.TrimSuffix(member.Name, "/")) {
		return errors.New("it would lie outside the directory")
	}
	to := path.Join(dir, member.Name)
	if strings.HasSuffix(member.Name, "/") {
		return os.MkdirAll(to, 0o755)
	}
	if _, err := os.Lstat(to); err == nil {
		switch {
		case keep:
			return nil
		case !overwrite:
			return os.ErrExist
		}
		if err := os.Remove(to); err != nil { // a link there must not lead elsewhere
			return err
		}
	}
	if err := os.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, member.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyMember(out, member), out.Close())
}

func copyMember(to io.Writer, member *zip.File) error {
	r, err := member.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(to, r)
	return err
}
