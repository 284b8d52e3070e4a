/* Debian's packaging generates this header for each of its architectures. */
#define DEB_HOST_MULTIARCH "wasm32-wasi"
