#!/bin/sh
# registry-trust, second of two commands: gives this instance's container engines its certificate,
# and sees whether the registry admits it. Holds no secret: the key is here. Run again it changes nothing.
# The last line on standard output is the report: "registry-trust: RESULT REASON", where RESULT is
#   works, needs_key (there is no key here that fits; nothing was changed), refused (by the registry),
#   unreachable, not_installed
# Exit: 0 it works; 1 it does not
# shellcheck disable=SC2317,SC2329 # trap calls functions by name
set -eu
umask 077
LC_ALL=C PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin
export LC_ALL PATH

registry='@REGISTRY@'
directory=/etc/registry-trust/$registry
key=$directory/@INSTANCE@.key
certs=/etc/docker/certs.d/$registry

write_public_key() {
  cat <<'END-OF-PUBLIC-KEY'
@PUBLIC_KEY@
END-OF-PUBLIC-KEY
}

write_installer() {
  cat <<'@END_OF_INSTALLER@'
@INSTALLER@
@END_OF_INSTALLER@
}

@COMMON_FUNCTIONS@

@TRY_FUNCTIONS@

main() {
  begin
  { usable && [ "$(public_key)" = "$(write_public_key)" ]; } \
    || report needs_key 'the key that was certified is not on this instance'
  install
  try_registry
  case $answer in
    200) report works '' ;;
    000) report unreachable "${why:-could not connect}" ;;
    *) report refused "$answer $why" ;;
  esac
}

install() {
  write_installer >"$work/install.sh"
  run_installer 2>"$work/said" && return 0
  cat "$work/said" >&2
  said=$(sed -n 's/^registry-trust: //p' "$work/said" | head -n 1)
  report not_installed "${said:-the installer failed}"
}

report() {
  reason=$(one_line "$2")
  printf 'registry-trust: %s\n' "$1${reason:+ $reason}"
  [ "$1" = works ] || exit 1
  exit 0
}

fail() { complain "$*"; report not_installed "$*"; }

ask_registry() { if has curl; then ask_with_curl; else ask_with_openssl; fi; }

# The same for instances without curl. With -CAfile alone, s_client knows no other CAs.
ask_with_openssl() {
  host=${registry%:*} port=443
  case $registry in *:*) port=${registry##*:} ;; esac
  set -- -servername "$host" -verify_hostname "$host"
  case $host in *[!0-9.]*) ;; *) set -- -noservername -verify_ip "$host" ;; esac
  : >"$work/answer"
  printf 'GET /v2/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$registry" \
    | timeout 10 openssl s_client -quiet "$@" \
      -connect "$host:$port" -verify_return_error -CAfile "$certs/ca.crt" \
      -cert "$certs/client.cert" -key "$certs/client.key" 2>"$work/why" \
    | head -c 65536 >"$work/answer" || :
  answer=$(sed -n '1s/^HTTP\/1\.[01] \([0-9][0-9][0-9]\).*/\1/p' "$work/answer")
  why=$(sed -n 's/^verify error:num=[0-9]*://p' "$work/why" | head -n 1)
  if [ -n "$answer" ]; then read_reason; fi
  answer=${answer:-000}
}

{ main; }
