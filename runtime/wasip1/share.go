package wasip1

import (
	"context"
	"os"
	"strings"
)

// OpenFile opens a regular file of the container for the host's own use, read
// only. The path is resolved as one of the guest's: relative to the root, with
// links followed within the container. Errors are *os.PathError around an Errno,
// ErrnoACCES for what is no regular file. It may be called from any goroutine
// until Close.
func (p *Process) OpenFile(guest string) (*os.File, error) {
	f, errno := p.ns.openFile(guest)
	if errno != 0 {
		return nil, &os.PathError{Op: "open", Path: guest, Err: errno}
	}
	return f, nil
}

func (ns *namespace) openFile(guest string) (*os.File, Errno) {
	// A walk of its own, as that of the process is its guest's.
	w := walk{ns: ns, ctx: context.Background()}
	at, errno := w.resolve(ns.base(), strings.TrimLeft(guest, "/"), followAlways)
	if errno != 0 {
		return nil, errno
	}
	defer at.release()
	if at.virtual() || at.isDevice() || at.slash {
		return nil, ErrnoACCES
	}
	fd, errno := hostOpen(at.fd, at.component(), openFlags{read: true})
	if errno != 0 {
		return nil, errno
	}
	if st, errno := hostStat(fd); errno != 0 || st.filetype != filetypeRegular {
		hostClose(fd)
		return nil, ErrnoACCES
	}
	return os.NewFile(uintptr(fd), guest), 0
}
