#!/bin/sh
# Unpacks the source package PACKAGE of the running Debian release into DIR,
# which must not exist:
#   debian-source.sh PACKAGE DIR
# It needs no deb-src entry in the system's apt configuration and changes
# nothing there: the entries are derived from the system's own ones, and apt's
# lists and caches live in a directory that is removed again. apt verifies the
# signatures and checksums.
#
# Exits 77 where this cannot work, and says why.
set -eu
package=$1
dir=$2

skip() {
	echo "skipped: $*" >&2
	exit 77
}

[ -r /etc/os-release ] || skip "the source of $package comes from Debian, and this is another system"
# shellcheck disable=SC1091
. /etc/os-release
[ "${ID:-}" = debian ] || skip "the source of $package comes from Debian, and this is ${PRETTY_NAME:-another system}"
for tool in apt-get dpkg-source; do
	command -v "$tool" >/dev/null || skip "$tool is missing (apt-get install dpkg-dev)"
done

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$tmp/lists/partial" "$tmp/cache/archives/partial"

# Entries in one-line style.
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
	sed -nE "s/^deb(-src)?[[:space:]]+((\[[^]]*\][[:space:]]+)?[^[:space:]]+[[:space:]]+${VERSION_CODENAME}[^[:space:]]*[[:space:]].*\bmain\b.*)/deb-src \2/p" |
	sort -u >"$tmp/sources.list"
# Entries in deb822 style: stanzas about this release's main component.
for f in /etc/apt/sources.list.d/*.sources; do
	[ -r "$f" ] || continue
	awk -v release="$VERSION_CODENAME" 'BEGIN { RS = ""; FS = "\n" }
		{
			out = ""; suites = 0; main = 0
			for (i = 1; i <= NF; i++) {
				if ($i ~ /^#/) continue
				if ($i ~ /^Types:/) $i = "Types: deb-src"
				if ($i ~ /^Suites:/ && $i ~ ("[ \t]" release)) suites = 1
				if ($i ~ /^Components:/ && $i ~ /[ \t]main/) main = 1
				out = out $i "\n"
			}
			if (suites && main) print out
		}' "$f"
done >"$tmp/more.sources"
mkdir "$tmp/parts"
if [ -s "$tmp/more.sources" ]; then mv "$tmp/more.sources" "$tmp/parts/debian.sources"; fi
[ -s "$tmp/sources.list" ] || [ -e "$tmp/parts/debian.sources" ] ||
	skip "apt has no source for $VERSION_CODENAME main"

apt() {
	apt-get -qq -o Acquire::Retries=5 \
		-o "Dir::Etc::sourcelist=$tmp/sources.list" -o "Dir::Etc::sourceparts=$tmp/parts" \
		-o "Dir::State::lists=$tmp/lists" -o "Dir::Cache=$tmp/cache" \
		-o "APT::Sandbox::User=$(id -un)" "$@"
}
# Not being able to reach a mirror is a failure, not a reason to skip.
apt update
(cd "$tmp" && apt source --download-only "$package" >/dev/null)
dpkg-source --no-check -x "$tmp/$package"_*.dsc "$dir" >/dev/null 2>"$tmp/dpkg.log" || {
	cat "$tmp/dpkg.log" >&2
	exit 1
}
