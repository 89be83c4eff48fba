#!/bin/sh
# registry-trust, first of two commands: makes this instance's private key unless it has one, and
# prints a certificate request for it. The key stays here. Run again, it prints another request.
# Exit: 0 the request is on standard output; 1 there is none, and one line on stderr says why
set -eu
umask 077
LC_ALL=C PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin
export LC_ALL PATH

registry='@REGISTRY@'
instance='@INSTANCE@'
directory=/etc/registry-trust/$registry
key=$directory/$instance.key

@COMMON_FUNCTIONS@

@KEY_FUNCTIONS@

fail() { complain "$*"; exit 1; }

main() {
  begin
  forget_others
  provide_key '@NEW_KEY@'
  request=$(make_csr "CN = $instance
serialNumber = @NONCE@") || fail 'openssl could not make a certificate request'
  printf '%s\n' "$request"
}

{ main; }
