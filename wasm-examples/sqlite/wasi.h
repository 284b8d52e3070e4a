/*
 * What wasi-libc (2022) lacks and SQLite 3.40 asks for. Included before every
 * source file (clang -include); SQLite's own sources stay as Debian ships them.
 */
#ifndef WASMPOD_SQLITE_WASI_H
#define WASMPOD_SQLITE_WASI_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/*
 * Locks. WASI preview 1 has no fcntl locks, so the VFS in use is unix-none
 * (see build.sh); the others compile against these and would fail with
 * ENOSYS. Two containers must not write to one database at the same time.
 */
#define F_RDLCK 0
#define F_WRLCK 1
#define F_UNLCK 2
#define F_GETLK 5
#define F_SETLK 6

/* Owners and modes cannot be changed; SQLite does so only for root, to hand
 * its journals to the owner of the database. */
static inline int fchmod(int fd, mode_t m) { (void)fd; (void)m; return 0; }
static inline int fchown(int fd, uid_t u, gid_t g) { (void)fd; (void)u; (void)g; return 0; }
static inline uid_t geteuid(void) { return 1; }
static inline uid_t getuid(void) { return 1; }
static inline int chmod(const char *p, mode_t m) { (void)p; (void)m; return 0; }

#endif
