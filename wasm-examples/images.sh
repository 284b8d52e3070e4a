#!/bin/sh
# Makes images of the guests, as images.txt lists them:
#   images.sh WASMPOD DATADIR
# puts them into the store of that data directory.
set -eu
wasmpod=$(realpath "$1")
mkdir -p "$2"
data=$(realpath "$2")
cd "$(dirname "$0")"
tab=$(printf '\t')
while IFS="$tab" read -r name module options; do
	case $name in '' | '#'*) continue ;; esac
	if [ ! -f "bin/$module" ]; then
		echo "image $name: left out, because bin/$module was not built" >&2
		continue
	fi
	# The options are words without blanks.
	# shellcheck disable=SC2086
	"$wasmpod" image build --data-dir "$data" -t "$name" $options "bin/$module"
done <images.txt
