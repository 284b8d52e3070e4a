//go:build wasip1

package net

import (
	"internal/poll"
	"os"
	"syscall"
	"time"
)

const _SO_TYPE = syscall.SO_TYPE

// sysSocket returns a new socket in non-blocking mode.
func sysSocket(family, sotype, proto int) (int, error) {
	s, err := socketFunc(family, sotype, proto)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = syscall.SetNonblock(s, true); err != nil {
		poll.CloseFunc(s)
		return -1, os.NewSyscallError("setnonblock", err)
	}
	return s, nil
}

func setDefaultSockopts(s, family, sotype int, ipv6only bool) error {
	if family == syscall.AF_INET6 && sotype != syscall.SOCK_RAW {
		// Some hosts have no such option, as is usual for systems.
		syscall.SetsockoptInt(s, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, boolint(ipv6only))
	}
	return nil
}

func setDefaultListenerSockopts(s int) error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(s, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
}

func setDefaultMulticastSockopts(s int) error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(s, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
}

// Connections within a pod do not go stale unnoticed, so there is nothing to
// keep alive.

func setKeepAliveIdle(fd *netFD, d time.Duration) error     { return nil }
func setKeepAliveInterval(fd *netFD, d time.Duration) error { return nil }
func setKeepAliveCount(fd *netFD, n int) error              { return nil }

// dupFileSocket is for FileConn and its like.
func dupFileSocket(f *os.File) (int, error) {
	s, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	if err := syscall.SetNonblock(s, true); err != nil {
		poll.CloseFunc(s)
		return -1, os.NewSyscallError("setnonblock", err)
	}
	return s, nil
}

// A pod has two interfaces. The address of the second stands in /etc/hosts,
// beside the host's name.
var interfaces = []Interface{
	{Index: 1, MTU: 65536, Name: "lo", Flags: FlagUp | FlagLoopback | FlagRunning},
	{Index: 2, MTU: 1500, Name: "eth0", Flags: FlagUp | FlagRunning},
}

func podAddrs() (addrs []Addr) {
	name, err := os.Hostname()
	if err != nil {
		return nil
	}
	static, _ := lookupStaticHost(name)
	for _, s := range static {
		ip := ParseIP(s)
		// A rootless pod has an address of 127.0.0.0/8 too.
		if ip == nil || ip.Equal(IP{127, 0, 0, 1}) || ip.Equal(IPv6loopback) {
			continue
		}
		bits := 128
		if ip.To4() != nil { // in its 16-byte form, as elsewhere
			bits = 32
		}
		addrs = append(addrs, &IPNet{IP: ip, Mask: CIDRMask(bits, bits)})
	}
	return addrs
}

func interfaceTable(ifindex int) ([]Interface, error) {
	var table []Interface
	for _, i := range interfaces {
		if ifindex == 0 || i.Index == ifindex {
			table = append(table, i)
		}
	}
	return table, nil
}

func interfaceAddrTable(ifi *Interface) ([]Addr, error) {
	var addrs []Addr
	if ifi == nil || ifi.Index == 1 {
		addrs = append(addrs,
			&IPNet{IP: IPv4(127, 0, 0, 1), Mask: CIDRMask(8, 32)},
			&IPNet{IP: IPv6loopback, Mask: CIDRMask(128, 128)})
	}
	if ifi == nil || ifi.Index == 2 {
		addrs = append(addrs, podAddrs()...)
	}
	return addrs, nil
}

func interfaceMulticastAddrTable(ifi *Interface) ([]Addr, error) { return nil, nil }
