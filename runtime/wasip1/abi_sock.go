package wasip1

import "context"

// notSocket is what the socket functions answer: none of the kinds of files is
// a socket yet.
func (p *Process) notSocket(fd uint64) Errno {
	if _, errno := p.fds.get(uint32(fd)); errno != 0 {
		return errno
	}
	return ErrnoNOTSOCK
}

// sock_accept(fd, flags, new *u32)
func sockAccept(_ context.Context, p *Process, _ memory, a []uint64) Errno { return p.notSocket(a[0]) }

// sock_recv(fd, ri_data, ri_data_len, ri_flags, ro_datalen *u32, ro_flags *u16)
func sockRecv(_ context.Context, p *Process, _ memory, a []uint64) Errno { return p.notSocket(a[0]) }

// sock_send(fd, si_data, si_data_len, si_flags, so_datalen *u32)
func sockSend(_ context.Context, p *Process, _ memory, a []uint64) Errno { return p.notSocket(a[0]) }

// sock_shutdown(fd, how)
func sockShutdown(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	return p.notSocket(a[0])
}
