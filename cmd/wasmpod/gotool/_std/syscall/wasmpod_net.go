//go:build wasip1

package syscall

import (
	"structs"
	"unsafe"
)

// Sockets of a pod: WasmEdge's functions, version 2 (docs/abi.md of wasmpod).

const (
	SHUT_RD   = 0x1
	SHUT_WR   = 0x2
	SHUT_RDWR = SHUT_RD | SHUT_WR
)

const (
	AF_UNSPEC = iota
	AF_UNIX
	AF_INET
	AF_INET6
)

const (
	SOCK_STREAM = 1 + iota
	SOCK_DGRAM
	SOCK_RAW
	SOCK_SEQPACKET
)

const (
	IPPROTO_IP   = 0
	IPPROTO_IPV4 = 4
	IPPROTO_IPV6 = 0x29
	IPPROTO_TCP  = 6
	IPPROTO_UDP  = 0x11
)

const SOMAXCONN = 0x80

// Levels and names of options, as the host knows them.
const (
	SOL_SOCKET = 0

	SO_REUSEADDR  = 0
	SO_TYPE       = 1
	SO_ERROR      = 2
	SO_DONTROUTE  = 3
	SO_BROADCAST  = 4
	SO_SNDBUF     = 5
	SO_RCVBUF     = 6
	SO_KEEPALIVE  = 7
	SO_OOBINLINE  = 8
	SO_LINGER     = 9
	SO_ACCEPTCONN = 13
	SO_REUSEPORT  = 15

	TCP_NODELAY   = 1
	TCP_KEEPIDLE  = 4
	TCP_KEEPINTVL = 5
	TCP_KEEPCNT   = 6

	IPV6_V6ONLY = 26
)

const (
	MSG_PEEK    = 1
	MSG_WAITALL = 2
	MSG_TRUNC   = 0x20 // never given, only returned
)

const (
	F_DUPFD_CLOEXEC = 1030
	SYS_FCNTL       = 500 // unsupported
)

// hostFamilies and hostTypes map AF_ and SOCK_ constants to the host's.
var (
	hostFamilies = [...]uint32{AF_INET: 1, AF_INET6: 2}
	hostTypes    = [...]uint32{SOCK_STREAM: 2, SOCK_DGRAM: 1}
)

type sdflags = uint32

type hostAddress struct {
	_   structs.HostLayout
	buf uintptr32
	len size
}

// A rawAddress is a host address in the form that tells its family.
type rawAddress [128]byte

//go:wasmimport wasi_snapshot_preview1 sock_accept
//go:noescape
func sock_accept(fd int32, flags fdflags, newfd *int32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_shutdown
//go:noescape
func sock_shutdown(fd int32, flags sdflags) Errno

//go:wasmimport wasi_snapshot_preview1 sock_open_v2
//go:noescape
func sock_open(family, sotype uint32, newfd *int32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_bind_v2
//go:noescape
func sock_bind(fd int32, addr *hostAddress, port uint32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_listen_v2
//go:noescape
func sock_listen(fd int32, backlog uint32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_connect_v2
//go:noescape
func sock_connect(fd int32, addr *hostAddress, port uint32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_recv_from_v2
//go:noescape
func sock_recv_from(fd int32, iovs *iovec, iovsLen size, addr *hostAddress, flags uint32, port *uint32, n *size, roFlags *uint16) Errno

//go:wasmimport wasi_snapshot_preview1 sock_send_to_v2
//go:noescape
func sock_send_to(fd int32, iovs *iovec, iovsLen size, addr *hostAddress, port uint32, flags uint32, n *size) Errno

//go:wasmimport wasi_snapshot_preview1 sock_recv
//go:noescape
func sock_recv(fd int32, iovs *iovec, iovsLen size, flags uint32, n *size, roFlags *uint16) Errno

//go:wasmimport wasi_snapshot_preview1 sock_send
//go:noescape
func sock_send(fd int32, iovs *iovec, iovsLen size, flags uint32, n *size) Errno

//go:wasmimport wasi_snapshot_preview1 sock_getlocaladdr_v2
//go:noescape
func sock_getlocaladdr(fd int32, addr *hostAddress, port *uint32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_getpeeraddr_v2
//go:noescape
func sock_getpeeraddr(fd int32, addr *hostAddress, port *uint32) Errno

//go:wasmimport wasi_snapshot_preview1 sock_getsockopt
//go:noescape
func sock_getsockopt(fd int32, level, name uint32, value unsafe.Pointer, size *size) Errno

//go:wasmimport wasi_snapshot_preview1 sock_setsockopt
//go:noescape
func sock_setsockopt(fd int32, level, name uint32, value unsafe.Pointer, size size) Errno

// A Sockaddr is an address of a socket: a *SockaddrInet4 or *SockaddrInet6. Pods
// have no sockets of other families.
type Sockaddr interface {
	// put stores the address and returns the port.
	put(*rawAddress) (port uint32, err Errno)
}

type SockaddrInet4 struct {
	Port int
	Addr [4]byte
}

type SockaddrInet6 struct {
	Port   int
	ZoneId uint32
	Addr   [16]byte
}

type SockaddrUnix struct {
	Name string
}

func (sa *SockaddrInet4) put(raw *rawAddress) (uint32, Errno) {
	if sa.Port < 0 || sa.Port > 0xFFFF {
		return 0, EINVAL
	}
	raw[0] = 1
	copy(raw[2:], sa.Addr[:])
	return uint32(sa.Port), 0
}

func (sa *SockaddrInet6) put(raw *rawAddress) (uint32, Errno) {
	if sa.Port < 0 || sa.Port > 0xFFFF {
		return 0, EINVAL
	}
	raw[0] = 2
	copy(raw[2:], sa.Addr[:])
	return uint32(sa.Port), 0
}

func (sa *SockaddrUnix) put(*rawAddress) (uint32, Errno) { return 0, EAFNOSUPPORT }

func (raw *rawAddress) sockaddr(port uint32) Sockaddr {
	switch raw[0] {
	case 1:
		sa := &SockaddrInet4{Port: int(port)}
		copy(sa.Addr[:], raw[2:])
		return sa
	case 2:
		sa := &SockaddrInet6{Port: int(port)}
		copy(sa.Addr[:], raw[2:])
		return sa
	}
	return nil
}

// inet4 stores an IPv4 address, which for a socket of IPv6 may be mapped.
func (raw *rawAddress) inet4(port uint32, sa *SockaddrInet4) {
	sa.Port = int(port)
	if raw[0] == 2 {
		copy(sa.Addr[:], raw[2+12:])
	} else {
		copy(sa.Addr[:], raw[2:])
	}
}

func (raw *rawAddress) inet6(port uint32, sa *SockaddrInet6) {
	sa.Port, sa.ZoneId = int(port), 0
	if raw[0] == 1 {
		sa.Addr = [16]byte{10: 0xff, 11: 0xff}
		copy(sa.Addr[12:], raw[2:6])
	} else {
		copy(sa.Addr[:], raw[2:])
	}
}

// Addresses within structures that the host reads are numbers: what they point
// to must not move before the call. Between these conversions and the call of a
// wasmimport function nothing can grow the stack or switch goroutines: the
// conversions are inlined, and the wrappers of imports have no frame.

func pointer32(p unsafe.Pointer) uintptr32 { return uintptr32(uintptr(p)) }

func Socket(family, sotype, proto int) (fd int, err error) {
	if family < 0 || family >= len(hostFamilies) || hostFamilies[family] == 0 {
		return -1, EAFNOSUPPORT
	}
	if sotype < 0 || sotype >= len(hostTypes) || hostTypes[sotype] == 0 {
		return -1, EPROTONOSUPPORT
	}
	var newfd int32
	if errno := sock_open(hostFamilies[family], hostTypes[sotype], &newfd); errno != 0 {
		return -1, errno
	}
	return int(newfd), nil
}

func Bind(fd int, sa Sockaddr) error {
	raw := new(rawAddress)
	port, errno := sa.put(raw)
	if errno != 0 {
		return errno
	}
	addr := hostAddress{buf: pointer32(unsafe.Pointer(raw)), len: size(len(raw))}
	return errnoErr(sock_bind(int32(fd), &addr, port))
}

func Listen(fd int, backlog int) error {
	return errnoErr(sock_listen(int32(fd), uint32(backlog)))
}

// Accept returns no address where the host does not know it.
func Accept(fd int) (int, Sockaddr, error) {
	var newfd int32
	if errno := sock_accept(int32(fd), FDFLAG_NONBLOCK, &newfd); errno != 0 {
		return -1, nil, errno
	}
	sa, _ := Getpeername(int(newfd))
	return int(newfd), sa, nil
}

func Connect(fd int, sa Sockaddr) error {
	raw := new(rawAddress)
	port, errno := sa.put(raw)
	if errno != 0 {
		return errno
	}
	addr := hostAddress{buf: pointer32(unsafe.Pointer(raw)), len: size(len(raw))}
	return errnoErr(sock_connect(int32(fd), &addr, port))
}

func Getsockname(fd int) (Sockaddr, error) {
	raw := new(rawAddress)
	var port uint32
	addr := hostAddress{buf: pointer32(unsafe.Pointer(raw)), len: size(len(raw))}
	if errno := sock_getlocaladdr(int32(fd), &addr, &port); errno != 0 {
		return nil, errno
	}
	return raw.sockaddr(port), nil
}

func Getpeername(fd int) (Sockaddr, error) {
	raw := new(rawAddress)
	var port uint32
	addr := hostAddress{buf: pointer32(unsafe.Pointer(raw)), len: size(len(raw))}
	if errno := sock_getpeeraddr(int32(fd), &addr, &port); errno != 0 {
		return nil, errno
	}
	return raw.sockaddr(port), nil
}

// recvfrom receives one message, and its sender unless raw is nil. The message
// flag MSG_TRUNC says that it was longer.
func recvfrom(fd int, p []byte, flags int, raw *rawAddress) (n int, recvflags int, port uint32, err error) {
	var got size
	var roFlags uint16
	var errno Errno
	iov := iovec{buf: pointer32(unsafe.Pointer(unsafe.SliceData(p))), bufLen: size(len(p))}
	if raw == nil {
		errno = sock_recv(int32(fd), &iov, 1, uint32(flags), &got, &roFlags)
	} else {
		addr := hostAddress{buf: pointer32(unsafe.Pointer(raw)), len: size(len(raw))}
		errno = sock_recv_from(int32(fd), &iov, 1, &addr, uint32(flags), &port, &got, &roFlags)
	}
	if errno != 0 {
		return -1, 0, 0, errno
	}
	if roFlags&1 != 0 {
		recvflags = MSG_TRUNC
	}
	return int(got), recvflags, port, nil
}

// sendto sends one message, to the peer if raw is nil.
func sendto(fd int, p []byte, flags int, raw *rawAddress, port uint32) (int, error) {
	var n size
	var errno Errno
	iov := iovec{buf: pointer32(unsafe.Pointer(unsafe.SliceData(p))), bufLen: size(len(p))}
	if raw == nil {
		errno = sock_send(int32(fd), &iov, 1, uint32(flags), &n)
	} else {
		addr := hostAddress{buf: pointer32(unsafe.Pointer(raw)), len: size(len(raw))}
		errno = sock_send_to(int32(fd), &iov, 1, &addr, port, uint32(flags), &n)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func Recvfrom(fd int, p []byte, flags int) (n int, from Sockaddr, err error) {
	raw := new(rawAddress)
	n, _, port, err := recvfrom(fd, p, flags, raw)
	if err != nil {
		return n, nil, err
	}
	return n, raw.sockaddr(port), nil
}

func Sendto(fd int, p []byte, flags int, to Sockaddr) error {
	if to == nil {
		_, err := sendto(fd, p, flags, nil, 0)
		return err
	}
	raw := new(rawAddress)
	port, errno := to.put(raw)
	if errno != 0 {
		return errno
	}
	_, err := sendto(fd, p, flags, raw, port)
	return err
}

func Recvmsg(fd int, p, oob []byte, flags int) (n, oobn, recvflags int, from Sockaddr, err error) {
	raw := new(rawAddress)
	n, recvflags, port, err := recvfrom(fd, p, flags, raw)
	if err != nil {
		return n, 0, 0, nil, err
	}
	return n, 0, recvflags, raw.sockaddr(port), nil
}

func SendmsgN(fd int, p, oob []byte, to Sockaddr, flags int) (n int, err error) {
	if len(oob) > 0 {
		return 0, ENOTSUP
	}
	if to == nil {
		return sendto(fd, p, flags, nil, 0)
	}
	raw := new(rawAddress)
	port, errno := to.put(raw)
	if errno != 0 {
		return 0, errno
	}
	return sendto(fd, p, flags, raw, port)
}

// What follows is for internal/syscall/unix, which takes addresses apart to
// save allocations.

func recvfromInet4(fd int, p []byte, flags int, from *SockaddrInet4) (int, error) {
	var raw rawAddress
	n, _, port, err := recvfrom(fd, p, flags, &raw)
	if err == nil {
		raw.inet4(port, from)
	}
	return n, err
}

func recvfromInet6(fd int, p []byte, flags int, from *SockaddrInet6) (int, error) {
	var raw rawAddress
	n, _, port, err := recvfrom(fd, p, flags, &raw)
	if err == nil {
		raw.inet6(port, from)
	}
	return n, err
}

func recvmsgInet4(fd int, p, oob []byte, flags int, from *SockaddrInet4) (n, oobn, recvflags int, err error) {
	var raw rawAddress
	n, recvflags, port, err := recvfrom(fd, p, flags, &raw)
	if err == nil {
		raw.inet4(port, from)
	}
	return n, 0, recvflags, err
}

func recvmsgInet6(fd int, p, oob []byte, flags int, from *SockaddrInet6) (n, oobn, recvflags int, err error) {
	var raw rawAddress
	n, recvflags, port, err := recvfrom(fd, p, flags, &raw)
	if err == nil {
		raw.inet6(port, from)
	}
	return n, 0, recvflags, err
}

func sendtoInet4(fd int, p []byte, flags int, to *SockaddrInet4) error {
	_, err := sendmsgNInet4(fd, p, nil, to, flags)
	return err
}

func sendtoInet6(fd int, p []byte, flags int, to *SockaddrInet6) error {
	_, err := sendmsgNInet6(fd, p, nil, to, flags)
	return err
}

func sendmsgNInet4(fd int, p, oob []byte, to *SockaddrInet4, flags int) (int, error) {
	if len(oob) > 0 {
		return 0, ENOTSUP
	}
	if to == nil {
		return sendto(fd, p, flags, nil, 0)
	}
	var raw rawAddress
	port, errno := to.put(&raw)
	if errno != 0 {
		return 0, errno
	}
	return sendto(fd, p, flags, &raw, port)
}

func sendmsgNInet6(fd int, p, oob []byte, to *SockaddrInet6, flags int) (int, error) {
	if len(oob) > 0 {
		return 0, ENOTSUP
	}
	if to == nil {
		return sendto(fd, p, flags, nil, 0)
	}
	var raw rawAddress
	port, errno := to.put(&raw)
	if errno != 0 {
		return 0, errno
	}
	return sendto(fd, p, flags, &raw, port)
}

func GetsockoptInt(fd, level, opt int) (value int, err error) {
	var v int32
	// A size on the stack is a pointer well above the sizes that the host takes
	// for a size by value.
	n := size(unsafe.Sizeof(v))
	errno := sock_getsockopt(int32(fd), uint32(level), uint32(opt), unsafe.Pointer(&v), &n)
	if errno != 0 {
		return -1, errno
	}
	if level == SOL_SOCKET && opt == SO_TYPE {
		switch v {
		case 1:
			return SOCK_DGRAM, nil
		case 2:
			return SOCK_STREAM, nil
		}
	}
	return int(v), nil
}

func SetsockoptInt(fd, level, opt int, value int) error {
	v := int32(value)
	return errnoErr(sock_setsockopt(int32(fd), uint32(level), uint32(opt), unsafe.Pointer(&v), size(unsafe.Sizeof(v))))
}

// SetsockoptInet4Addr is for options that pods do not have.
func SetsockoptInet4Addr(fd, level, opt int, value [4]byte) error { return ENOPROTOOPT }

type Linger struct {
	Onoff  int32
	Linger int32
}

func SetsockoptLinger(fd, level, opt int, l *Linger) error {
	return errnoErr(sock_setsockopt(int32(fd), uint32(level), uint32(opt), unsafe.Pointer(l), size(unsafe.Sizeof(*l))))
}

func Shutdown(fd int, how int) error {
	return errnoErr(sock_shutdown(int32(fd), sdflags(how)))
}

func StopIO(fd int) error                    { return ENOSYS }
func SetReadDeadline(fd int, t int64) error  { return ENOSYS }
func SetWriteDeadline(fd int, t int64) error { return ENOSYS }
