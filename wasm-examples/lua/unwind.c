/*
 * lua_wasi_throw and lua_wasi_try: a longjmp made of Asyncify, Binaryen's
 * transformation that lets a WebAssembly stack be unwound. See
 * https://github.com/WebAssembly/binaryen/blob/main/src/passes/Asyncify.cpp
 *
 * wasm-opt finds the two functions by the imports that they call: what calls
 * start_unwind is where unwinding begins, what calls stop_unwind is where it
 * ends, and neither is itself transformed.
 */
#include <stddef.h>

__attribute__((import_module("asyncify"), import_name("start_unwind")))
void asyncify_start_unwind(void *);
__attribute__((import_module("asyncify"), import_name("stop_unwind")))
void asyncify_stop_unwind(void);

/*
 * Frames save their locals here while they return. Lua bounds the depth of
 * the C stack at LUAI_MAXCCALLS (200) levels, each a few frames of at most a
 * few hundred bytes. An overflow would trap.
 */
static char frames[1 << 20];
static struct { char *at, *end; } buffer;
static volatile int unwinding;

/* stackptr.s */
void *lua_wasi_get_sp(void);
void lua_wasi_set_sp(void *);

__attribute__((noinline)) void lua_wasi_throw(void) {
  buffer.at = frames;
  buffer.end = frames + sizeof frames;
  unwinding = 1;
  asyncify_start_unwind(&buffer);
}

__attribute__((noinline)) void lua_wasi_try(void (*f)(void *, void *), void *L, void *ud) {
  void *sp = lua_wasi_get_sp();
  f(L, ud);
  if (unwinding) {
    unwinding = 0;
    asyncify_stop_unwind();
    lua_wasi_set_sp(sp);
  }
}
