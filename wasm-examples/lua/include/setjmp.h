/* wasi-libc has none; see ../wasi.h. */
