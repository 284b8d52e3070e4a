package wasip1

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// Errno is the result of a WASI function; zero is success. It is an error so
// that the system half can return it through Go interfaces.
type Errno uint16

// The errors of WASI preview 1, in the order of the specification.
const (
	ErrnoSuccess Errno = iota
	Errno2BIG
	ErrnoACCES
	ErrnoADDRINUSE
	ErrnoADDRNOTAVAIL
	ErrnoAFNOSUPPORT
	ErrnoAGAIN
	ErrnoALREADY
	ErrnoBADF
	ErrnoBADMSG
	ErrnoBUSY
	ErrnoCANCELED
	ErrnoCHILD
	ErrnoCONNABORTED
	ErrnoCONNREFUSED
	ErrnoCONNRESET
	ErrnoDEADLK
	ErrnoDESTADDRREQ
	ErrnoDOM
	ErrnoDQUOT
	ErrnoEXIST
	ErrnoFAULT
	ErrnoFBIG
	ErrnoHOSTUNREACH
	ErrnoIDRM
	ErrnoILSEQ
	ErrnoINPROGRESS
	ErrnoINTR
	ErrnoINVAL
	ErrnoIO
	ErrnoISCONN
	ErrnoISDIR
	ErrnoLOOP
	ErrnoMFILE
	ErrnoMLINK
	ErrnoMSGSIZE
	ErrnoMULTIHOP
	ErrnoNAMETOOLONG
	ErrnoNETDOWN
	ErrnoNETRESET
	ErrnoNETUNREACH
	ErrnoNFILE
	ErrnoNOBUFS
	ErrnoNODEV
	ErrnoNOENT
	ErrnoNOEXEC
	ErrnoNOLCK
	ErrnoNOLINK
	ErrnoNOMEM
	ErrnoNOMSG
	ErrnoNOPROTOOPT
	ErrnoNOSPC
	ErrnoNOSYS
	ErrnoNOTCONN
	ErrnoNOTDIR
	ErrnoNOTEMPTY
	ErrnoNOTRECOVERABLE
	ErrnoNOTSOCK
	ErrnoNOTSUP
	ErrnoNOTTY
	ErrnoNXIO
	ErrnoOVERFLOW
	ErrnoOWNERDEAD
	ErrnoPERM
	ErrnoPIPE
	ErrnoPROTO
	ErrnoPROTONOSUPPORT
	ErrnoPROTOTYPE
	ErrnoRANGE
	ErrnoROFS
	ErrnoSPIPE
	ErrnoSRCH
	ErrnoSTALE
	ErrnoTIMEDOUT
	ErrnoTXTBSY
	ErrnoXDEV
	ErrnoNOTCAPABLE
)

// The errors of sock_getaddrinfo, which WasmEdge appends to those of preview 1.
const (
	errnoAIADDRFAMILY Errno = iota + ErrnoNOTCAPABLE + 1
	errnoAIAGAIN
	errnoAIBADFLAG
	errnoAIFAIL
	errnoAIFAMILY
	errnoAIMEMORY
	errnoAINODATA
	errnoAINONAME
	errnoAISERVICE
	errnoAISOCKTYPE
	errnoAISYSTEM
)

var errnoNames = [...]string{
	"ESUCCESS", "E2BIG", "EACCES", "EADDRINUSE", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EAGAIN", "EALREADY",
	"EBADF", "EBADMSG", "EBUSY", "ECANCELED", "ECHILD", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET",
	"EDEADLK", "EDESTADDRREQ", "EDOM", "EDQUOT", "EEXIST", "EFAULT", "EFBIG", "EHOSTUNREACH", "EIDRM",
	"EILSEQ", "EINPROGRESS", "EINTR", "EINVAL", "EIO", "EISCONN", "EISDIR", "ELOOP", "EMFILE", "EMLINK",
	"EMSGSIZE", "EMULTIHOP", "ENAMETOOLONG", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENFILE", "ENOBUFS",
	"ENODEV", "ENOENT", "ENOEXEC", "ENOLCK", "ENOLINK", "ENOMEM", "ENOMSG", "ENOPROTOOPT", "ENOSPC",
	"ENOSYS", "ENOTCONN", "ENOTDIR", "ENOTEMPTY", "ENOTRECOVERABLE", "ENOTSOCK", "ENOTSUP", "ENOTTY",
	"ENXIO", "EOVERFLOW", "EOWNERDEAD", "EPERM", "EPIPE", "EPROTO", "EPROTONOSUPPORT", "EPROTOTYPE",
	"ERANGE", "EROFS", "ESPIPE", "ESRCH", "ESTALE", "ETIMEDOUT", "ETXTBSY", "EXDEV", "ENOTCAPABLE",
	"EAI_ADDRFAMILY", "EAI_AGAIN", "EAI_BADFLAGS", "EAI_FAIL", "EAI_FAMILY", "EAI_MEMORY", "EAI_NODATA", "EAI_NONAME",
	"EAI_SERVICE", "EAI_SOCKTYPE", "EAI_SYSTEM",
}

// Error is the POSIX name, for traces and tests.
func (e Errno) Error() string {
	if int(e) < len(errnoNames) {
		return errnoNames[e]
	}
	return "errno " + strconv.Itoa(int(e))
}

// hostErrnos has the host errors that have the same meaning for a guest.
// Anything else, 0 here, is EIO: a host's private trouble.
var hostErrnos = [256]Errno{
	syscall.EADDRINUSE:      ErrnoADDRINUSE,
	syscall.EADDRNOTAVAIL:   ErrnoADDRNOTAVAIL,
	syscall.EAFNOSUPPORT:    ErrnoAFNOSUPPORT,
	syscall.EALREADY:        ErrnoALREADY,
	syscall.EDESTADDRREQ:    ErrnoDESTADDRREQ,
	syscall.EHOSTUNREACH:    ErrnoHOSTUNREACH,
	syscall.EINPROGRESS:     ErrnoINPROGRESS,
	syscall.EISCONN:         ErrnoISCONN,
	syscall.EMSGSIZE:        ErrnoMSGSIZE,
	syscall.ENETDOWN:        ErrnoNETDOWN,
	syscall.ENETRESET:       ErrnoNETRESET,
	syscall.ENETUNREACH:     ErrnoNETUNREACH,
	syscall.ENOBUFS:         ErrnoNOBUFS,
	syscall.ENOPROTOOPT:     ErrnoNOPROTOOPT,
	syscall.ENOTCONN:        ErrnoNOTCONN,
	syscall.ENOTSOCK:        ErrnoNOTSOCK,
	syscall.EPROTONOSUPPORT: ErrnoPROTONOSUPPORT,
	syscall.EPROTOTYPE:      ErrnoPROTOTYPE,
	syscall.E2BIG:           Errno2BIG,
	syscall.EACCES:          ErrnoACCES,
	syscall.EAGAIN:          ErrnoAGAIN,
	syscall.EBADF:           ErrnoBADF,
	syscall.EBUSY:           ErrnoBUSY,
	syscall.ECONNABORTED:    ErrnoCONNABORTED,
	syscall.ECONNREFUSED:    ErrnoCONNREFUSED,
	syscall.ECONNRESET:      ErrnoCONNRESET,
	syscall.EDEADLK:         ErrnoDEADLK,
	syscall.EDQUOT:          ErrnoDQUOT,
	syscall.EEXIST:          ErrnoEXIST,
	syscall.EFAULT:          ErrnoFAULT,
	syscall.EFBIG:           ErrnoFBIG,
	syscall.EILSEQ:          ErrnoILSEQ,
	syscall.EINTR:           ErrnoINTR,
	syscall.EINVAL:          ErrnoINVAL,
	syscall.EIO:             ErrnoIO,
	syscall.EISDIR:          ErrnoISDIR,
	syscall.ELOOP:           ErrnoLOOP,
	syscall.EMFILE:          ErrnoNFILE, // the host's table is full, not the guest's
	syscall.EMLINK:          ErrnoMLINK,
	syscall.ENAMETOOLONG:    ErrnoNAMETOOLONG,
	syscall.ENFILE:          ErrnoNFILE,
	syscall.ENODEV:          ErrnoNODEV,
	syscall.ENOENT:          ErrnoNOENT,
	syscall.ENOLCK:          ErrnoNOLCK,
	syscall.ENOMEM:          ErrnoNOMEM,
	syscall.ENOSPC:          ErrnoNOSPC,
	syscall.ENOSYS:          ErrnoNOSYS,
	syscall.ENOTDIR:         ErrnoNOTDIR,
	syscall.ENOTEMPTY:       ErrnoNOTEMPTY,
	syscall.ENOTSUP:         ErrnoNOTSUP,
	syscall.ENOTTY:          ErrnoNOTTY,
	syscall.ENXIO:           ErrnoNXIO,
	syscall.EOVERFLOW:       ErrnoOVERFLOW,
	syscall.EPERM:           ErrnoPERM,
	syscall.EPIPE:           ErrnoPIPE,
	syscall.ERANGE:          ErrnoRANGE,
	syscall.EROFS:           ErrnoROFS,
	syscall.ESPIPE:          ErrnoSPIPE,
	syscall.ESTALE:          ErrnoSTALE,
	syscall.ETIMEDOUT:       ErrnoTIMEDOUT,
	syscall.ETXTBSY:         ErrnoTXTBSY,
	syscall.EXDEV:           ErrnoXDEV,
}

// toErrno is the only place where errors of the host become errors of a guest.
func toErrno(err error) Errno {
	if err == nil {
		return ErrnoSuccess
	}
	switch e := err.(type) { // the two common cases without the cost of errors.As
	case Errno:
		return e
	case syscall.Errno:
		if e < syscall.Errno(len(hostErrnos)) && hostErrnos[e] != 0 {
			return hostErrnos[e]
		}
		return ErrnoIO
	}
	var guest Errno
	var host syscall.Errno
	switch {
	case errors.As(err, &guest):
		return guest
	case errors.As(err, &host):
		return toErrno(host)
	case errors.Is(err, os.ErrClosed):
		return ErrnoBADF
	case errors.Is(err, io.ErrClosedPipe):
		return ErrnoPIPE
	case errors.Is(err, fs.ErrNotExist):
		return ErrnoNOENT
	case errors.Is(err, fs.ErrExist):
		return ErrnoEXIST
	case errors.Is(err, fs.ErrPermission):
		return ErrnoACCES
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return ErrnoTIMEDOUT
	}
	return ErrnoIO
}
