#!/bin/sh
# registry-trust: makes this machine the registry host of @REGISTRY@. To be run by root, as EC2 user data
# or by hand. Run again it mends what is amiss and changes nothing else; a newer one upgrades the host.
# For Ubuntu 22.04 and 24.04, Amazon Linux 2023 and Debian 12, under the instance profile for registry hosts.
# Usage: registry-host.sh
# Exit: 0 the registry serves; 1 something is wrong: it says what, what served goes on serving, and
# another run goes on from there; 2 wrong call
# shellcheck disable=SC2317,SC2329 # `patiently` calls functions by name
set -eu
umask 077
LC_ALL=C PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin
export LC_ALL PATH

# The files of the host, under the name of what they are: this script takes no others.
RELEASE='@RELEASE@'
RELEASES=/usr/local/lib/registry-trust
CONFIG_BUCKET='@CONFIG_BUCKET@'
AWS_REGION='@REGION@'
AWS_ENDPOINT_URL='@ENDPOINT@'
METADATA_URL=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-@METADATA@}
METADATA_URL=${METADATA_URL%/}/latest
MAX_RELEASE_KIB=4096
NEWLINE='
'

@AWS_FUNCTIONS@

say() { printf 'registry-host: %s\n' "$*"; }
fail() { printf 'registry-host: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Always returns 1, so that a function can end with it.
problem() {
  why=$(printf '%s' "$1" | tr -c ' -~' ' ' | cut -c 1-400)
  return 1
}

main() {
  [ $# = 0 ] || { printf 'usage: registry-host.sh\n' >&2; exit 2; }
  need_machine
  take_lock
  install_packages
  fetch_release
  exec sh "$RELEASES/$RELEASE/install"
}

need_machine() {
  [ "$(id -u)" = 0 ] || fail 'run this as root'
  [ -d /run/systemd/system ] || fail 'this machine is not run by systemd'
  system=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID-}" "${VERSION_ID-}") || system=
  if has apt-get; then
    installer=apt
  elif has dnf; then
    installer=dnf
  else
    fail "cannot install anything on this system (${system:-unknown}): there is neither apt-get nor dnf"
  fi
  case $system in
    'ubuntu 22.04' | 'ubuntu 24.04' | 'amzn 2023' | 'debian 12') say "this is $system" ;;
    *) say "this is ${system:-an unknown system}, on which this was never tried; going on" ;;
  esac
}

take_lock() {
  exec 9>/run/registry-host.lock
  has flock || return 0 # the packages bring it
  flock -n 9 || fail 'another set-up is at work here; see what it says, or wait for its end'
}

# patiently COMMAND: again and again, for five minutes, until it succeeds
patiently() {
  for pause in 2 3 5 10 20 40 60 80 80; do
    if "$@"; then return 0; fi
    sleep "$pause"
  done
  "$@"
}

# --- packages -------------------------------------------------------------------------------------

install_packages() {
  missing=$(missing_packages)
  if [ -z "$missing" ]; then
    say 'packages: all there'
    return
  fi
  say "packages: installing$missing"
  # Debian's starts as it is installed, with a page of its own. Ours has a unit of its own.
  case $missing in *' nginx'*) systemctl mask nginx.service || fail 'systemctl cannot mask nginx.service' ;; esac
  # shellcheck disable=SC2086 # one word a package
  patiently "install_by_$installer" $missing || fail "cannot install$missing"
  missing=$(missing_packages)
  [ -z "$missing" ] || fail "still not there after they were installed:$missing"
}

# By command; what is there, from wherever, is left alone.
missing_packages() {
  docker=docker
  [ "$installer" != apt ] || docker=docker.io
  for each in "docker:$docker" nginx:nginx curl:curl openssl:openssl logrotate:logrotate tar:tar \
    gzip:gzip cmp:diffutils find:findutils awk:gawk flock:util-linux; do
    has "${each%%:*}" || printf ' %s' "${each#*:}"
  done
  [ "$installer" = apt ] || return 0
  [ -e /etc/ssl/certs/ca-certificates.crt ] || printf ' ca-certificates'
  # docker.io only recommends it, and where the kernel has AppArmor on no container starts without.
  [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ] || has apparmor_parser || printf ' apparmor'
}

install_by_apt() {
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
  export DEBIAN_FRONTEND NEEDRESTART_MODE
  # What was broken off, by a power cut or so, would stop all that follows.
  dpkg --configure -a >/dev/null 2>&1 </dev/null || :
  apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null </dev/null || return 1
  apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >/dev/null </dev/null
}

install_by_dnf() { dnf -q -y --setopt=exit_on_lock=False install "$@" >/dev/null </dev/null; }

# --- the release ----------------------------------------------------------------------------------

fetch_release() {
  if [ -x "$RELEASES/$RELEASE/install" ]; then
    say "release: $RELEASE is here"
    return
  fi
  WORK=$(mktemp -d /tmp/registry-host.XXXXXX)
  trap 'rm -rf "$WORK"' EXIT
  trap 'exit 1' HUP INT TERM
  say "release: fetching $RELEASE"
  patiently download || fail "cannot fetch the release: $why"
  [ "$(sha256 <"$WORK/release")" = "$RELEASE" ] \
    || fail 'the release that S3 gave is not the one that belongs to this script; nothing was done'
  unpack || fail 'cannot unpack the release'
  rm -rf "$WORK"
  trap - EXIT HUP INT TERM
}

download() {
  clock=$(date -u '+%Y%m%dT%H%M%SZ')
  STAMP=$clock TODAY=${clock%T*}
  read_credentials || return 1
  prepare_signing s3
  status=$(release_request | run_curl "$MAX_RELEASE_KIB") || status="$status, cut off"
  [ "$status" = 200 ] || problem "S3 answered $status $(why_curl_failed)"
}

release_request() {
  url=$(config_url "trust/registry-host-$RELEASE.tar.gz")
  bounded "$url" 120 $((MAX_RELEASE_KIB * 1024))
  option output "$WORK/release"
  option write-out '%{http_code}'
  signed GET "$url" "$EMPTY_HASH"
}

unpack() {
  aside=$RELEASES/.new
  rm -rf "$aside" && (umask 022 && mkdir -p "$aside") \
    && tar -xzf "$WORK/release" -C "$aside" --no-same-owner -p && sync -f "$aside" \
    && rm -rf "${RELEASES:?}/$RELEASE" && mv "$aside" "$RELEASES/$RELEASE"
}

{ main "$@"; }
