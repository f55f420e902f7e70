# Functions shared by tools/quickstart and tools/run-tests. Sourced; expects `set -euo pipefail` and the repository root
# as the current folder.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Installs what tools/packages.txt lists and is not there yet.
install_packages() {
  command -v apt-get > /dev/null || die "apt-get not found: these scripts are for Debian 12; install what tools/packages.txt names by hand"
  local missing=()
  while read -r package; do
    dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done < <(grep -v '^#' tools/packages.txt)
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  say "installing ${missing[*]}"
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || die "not root and no sudo: as root, run: apt-get install ${missing[*]}"
    sudo=(sudo)
  fi
  "${sudo[@]}" apt-get update -q || die "apt-get update failed: check the network and the package sources"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" \
    || die "could not install: ${missing[*]}"
}

# build PRESET [cmake arguments]: configures and builds build/PRESET with as many jobs as cores and memory allow.
build() {
  local preset=$1
  shift
  say "building preset $preset"
  cmake --preset "$preset" "$@" > "/tmp/sprun-configure.$$" 2>&1 || { cat "/tmp/sprun-configure.$$"; die "configuring preset $preset failed"; }
  rm -f "/tmp/sprun-configure.$$"
  cmake --build --preset "$preset" -j "$(jobs_count)" || die "building preset $preset failed"
}

# One compiler needs up to 1.5 GB.
jobs_count() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/MemAvailable/ {print int($2 / 1500000)}' /proc/meminfo)
  [ "$memory" -lt 1 ] && memory=1
  [ "$cores" -lt "$memory" ] && echo "$cores" || echo "$memory"
}
