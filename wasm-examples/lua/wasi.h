/*
 * What wasi-libc lacks and Lua 5.4 asks for. Included before every source
 * file (clang -include); Lua's own sources stay as Debian ships them.
 */
#ifndef WASMPOD_LUA_WASI_H
#define WASMPOD_LUA_WASI_H

/* First, so that the macros below do not meet the declarations. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * Errors. Lua unwinds the C stack with setjmp and longjmp, which WebAssembly
 * does not have. LUAI_THROW starts an Asyncify unwinding instead: every frame
 * returns to its caller until luaD_rawrunprotected, which stops it there.
 * Nothing is ever rewound, so the saved frames are simply forgotten.
 */
void lua_wasi_throw(void);
void lua_wasi_try(void (*f)(void *, void *), void *L, void *ud);

#define LUAI_THROW(L, c) lua_wasi_throw()
#define LUAI_TRY(L, c, a) lua_wasi_try((void (*)(void *, void *))f, L, ud);
#define luai_jmpbuf int

/* A guest has no processes to start. */
#define system(cmd) ((cmd) ? (errno = ENOSYS, -1) : 0)

/* os.tmpname and io.tmpfile fail, as Lua documents that they may. */
#define tmpfile() (errno = ENOSYS, (FILE *)NULL)
#define LUA_TMPNAMBUFSIZE 32
#define lua_tmpnam(b, e) { (void)(b); e = 1; }

#endif
