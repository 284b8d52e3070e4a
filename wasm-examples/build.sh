#!/bin/sh
# Builds the guests into bin/:
#   build.sh [NAME…]
# all of them without a NAME. Guests in Go need only Go; a guest that needs more
# brings a build.sh of its own, which exits 77 where something is missing: then
# that guest is left out, and what it needs is said. What is newer than its
# source is not built again. Exits 1 if a guest could not be built for any other
# reason.
set -u
cd "$(dirname "$0")" || exit 1
mkdir -p bin
status=0

# fresh OUT SOURCE…: OUT exists and nothing in the sources is newer.
fresh() {
	out=$1
	shift
	[ -f "$out" ] && [ -z "$(find "$@" -newer "$out" ! -name '*_test.go' ! -path '*/testdata/*' ! -type d -print | head -n 1)" ]
}

built() { echo "built   bin/$1.wasm ($(wc -c <"bin/$1.wasm" | tr -d ' ') bytes)"; }

# wasmpod ARG…: the binary of this tree, where there is one.
wasmpod() {
	if [ -x ../bin/wasmpod ]; then
		../bin/wasmpod "$@"
	else
		(cd .. && go run ./cmd/wasmpod "$@")
	fi
}

# pod_guest NAME: an ordinary Go program, with the pod's network.
pod_guest() {
	fresh "bin/$1.wasm" "$1" go.mod go.sum ../cmd/wasmpod/gotool && return
	if wasmpod go build -C "$(pwd)" -trimpath -buildvcs=false -ldflags='-s -w' -o "bin/$1.wasm" "./$1"; then
		touch "bin/$1.wasm"
		built "$1"
	else
		status=1
	fi
}

# tiny_guest NAME: a Go program that writes the module.
tiny_guest() {
	fresh "bin/$1.wasm" "$1" internal/wasmenc && return
	if go run "./$1" "bin/$1.wasm"; then
		built "$1"
	else
		status=1
	fi
}

# war: the web application of the sidecar example, which is no guest.
war() {
	fresh bin/xxx.war tomcat/war tomcat/pack && return
	if go run ./tomcat/pack bin/xxx.war tomcat/war; then
		echo "built   bin/xxx.war"
	else
		status=1
	fi
}

# other_guest NAME OUT: a folder with a build.sh.
other_guest() {
	fresh "bin/$2.wasm" "$1" debian-source.sh && return
	"$1/build.sh" "$(pwd)/bin/$2.wasm"
	case $? in
	0) touch "bin/$2.wasm" && built "$2" ;;
	77) echo "left out $1: see above" >&2 ;;
	*)
		echo "$1 could not be built" >&2
		status=1
		;;
	esac
}

[ $# -gt 0 ] || set -- busybox exit spin hello-c lua sqlite esbuild \
	httpecho liveness kubia fileserver configmap-reload \
	ambassador adapter logshipper respserver httpecho-c pingpong
for name in "$@"; do
	case $name in
	busybox)
		pod_guest busybox
		war # beside it in an image
		;;
	httpecho | liveness | kubia | fileserver | configmap-reload | \
		ambassador | adapter | logshipper | respserver) pod_guest "$name" ;;
	exit | spin) tiny_guest "$name" ;;
	sqlite) other_guest sqlite sqlite3 ;;
	hello-c | lua | esbuild | httpecho-c | pingpong) other_guest "$name" "$name" ;;
	*)
		echo "build.sh: there is no guest $name" >&2
		status=1
		;;
	esac
done
exit $status
