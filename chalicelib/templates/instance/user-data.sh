#!/bin/sh
# registry-trust: EC2 user data for instances without an SSM agent. Makes this instance a key, has it
# certified by the power of the instance's role, sets up its container engines, and renews in time.
# Usage: registry-trust-enrol-NAME [--renew [--jitter]]  (--renew: the certificate alone; quiet if it is good)
# Environment, or write other values here:
# shellcheck disable=SC2317,SC2329 # `patiently` and `trap` call functions by name
: "${REGISTRY_TRUST_DOCKER:=install}"  # install: Docker, where there is no container engine; leave
: "${REGISTRY_TRUST_NOFILE:=1048576}"  # open files that engines and logins may have, at least; leave
: "${AWS_EC2_METADATA_SERVICE_ENDPOINT:=@METADATA@}"
# Exit: 0 the registry admits this instance; 1 not, or not all was set up: it says why, everything that
# works is kept, and the next run tries again; 2 wrong call
set -eu
umask 077
LC_ALL=C PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin
export LC_ALL PATH

api_url='@API_URL@'
region='@REGION@'
registry='@REGISTRY@'
directory=/etc/registry-trust/$registry
certs=/etc/docker/certs.d/$registry
name='registry-trust-enrol-@NAME@'

@COMMON_FUNCTIONS@

@KEY_FUNCTIONS@

@TRY_FUNCTIONS@

fail() { complain "$*"; exit 1; }
say() { printf 'registry-trust: %s\n' "$*"; }

main() {
  read_options "$@"
  need_tools
  [ "$renew" = yes ] || set_up_machine
  begin
  patiently read_instance_id || fail "no instance id from the metadata service: $(one_line "$(cat "$work/why")")"
  key=$directory/$instance.key request=$directory/$instance.csr
  forget_others
  if is_good; then
    [ "$renew" = yes ] || say "$registry admits this instance already"
  else
    enrol
  fi
  exit "$result"
}

read_options() {
  renew=no result=0 pauses='5 10 20 40 80 145'
  for option; do
    case $option in
      --renew) renew=yes pauses='' ;; # the next run is the next try
      --jitter) sleep "$(($(od -An -N 2 -t u2 /dev/urandom) % 3600))" ;;
      *) complain "usage: $name [--renew [--jitter]]" && exit 2 ;;
    esac
  done
}

need_tools() {
  missing=
  has openssl || missing=' openssl'
  curl_is_new || missing="$missing curl (7.75 or later, which signs requests)"
  [ -z "$missing" ] || fail "please install:$missing"
}

curl_is_new() {
  has curl || return 1
  version=$(curl --version | sed -n '1s/^curl \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  [ "${version% *}" -gt 7 ] || { [ "${version% *}" = 7 ] && [ "${version#* }" -ge 75 ]; }
}

ask_registry() { ask_with_curl; }

# patiently COMMAND: again and again, for five minutes, until it succeeds
patiently() {
  for pause in $pauses; do
    if "$@"; then return 0; fi
    sleep "$pause"
  done
  "$@"
}

# --- the machine ----------------------------------------------------------------------------------

set_up_machine() {
  [ "$(id -u)" = 0 ] || fail 'run this as root'
  set_up_renewal || trouble 'renewal is not set up'
  [ "$REGISTRY_TRUST_NOFILE" = leave ] || raise_nofile || trouble 'the limit on open files is as it was'
  [ "$REGISTRY_TRUST_DOCKER" != install ] || provide_engine || trouble 'Docker is not installed'
}

trouble() { complain "$*" && result=1; }

# put FILE MODE TEXT: FILE becomes TEXT, in one step; $changed says whether it was not so already
put() {
  aside=${1%/*}/.${1##*/}.new changed=no
  if [ -f "$1" ] && [ "$(cat "$1")" = "$3" ]; then return 0; fi
  (umask 022 && mkdir -p "${1%/*}") && rm -rf "$aside" && printf '%s\n' "$3" >"$aside" \
    && chmod "$2" "$aside" && mv -f "$aside" "$1" || return 1
  changed=yes
}

set_up_renewal() {
  if ! grep -qs '^# registry-trust: EC2 user data' "$0"; then
    complain 'this script was not run from a file, so it cannot stay here'
    return 1
  fi
  self=/usr/local/sbin/$name
  text=$(cat "$0")
  if ! put "$self" 0755 "$text" 2>/dev/null; then
    self=$directory/$name
    make_directory && put "$self" 0700 "$text" || return 1
  fi
  if [ -d /run/systemd/system ]; then
    set_up_timer
  elif [ -d /etc/cron.d ]; then
    put "/etc/cron.d/$name" 0644 "#written by $self
0 * * * * root /bin/sh $self --renew --jitter"
  else
    complain 'there is neither systemd nor cron here'
    return 1
  fi
}

set_up_timer() {
  units=/etc/systemd/system
  put "$units/$name.service" 0644 "[Unit]
Description=Keep this instance's certificate for $registry
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
ExecStart=/bin/sh $self --renew" || return 1
  before=$changed
  put "$units/$name.timer" 0644 "[Unit]
Description=Keep this instance's certificate for $registry
[Timer]
OnCalendar=hourly
RandomizedDelaySec=3600
Persistent=true
[Install]
WantedBy=timers.target" || return 1
  [ "$before$changed" = nono ] || systemctl daemon-reload || return 1
  systemctl enable --now "$name.timer"
}

# Engines that run already take it up when they are started again, which is left to their owner.
raise_nofile() {
  limit=$REGISTRY_TRUST_NOFILE any=no
  case $limit in '' | 0* | *[!0-9]*) complain "REGISTRY_TRUST_NOFILE=$limit is no number" && return 1 ;; esac
  # Logins, root's too, fail where pam_limits is told of more than the kernel allows.
  most=$(cat /proc/sys/fs/nr_open) || return 1
  [ "$limit" -le "$most" ] 2>/dev/null || limit=$most
  put "/etc/security/limits.d/$name.conf" 0644 "* - nofile $limit
root - nofile $limit" || return 1
  [ -d /run/systemd/system ] || return 0
  for engine in docker containerd; do
    current=$(systemctl show -p LimitNOFILE "$engine.service" 2>/dev/null) || current=
    case ${current#*=} in
      infinity) continue ;;
      '' | *[!0-9]*) ;;
      *) [ "${current#*=}" -lt "$limit" ] || continue ;;
    esac
    put "/etc/systemd/system/$engine.service.d/$name.conf" 0644 "[Service]
LimitNOFILE=$limit" || return 1
    [ "$changed" = no ] || any=yes
  done
  [ "$any" = no ] || systemctl daemon-reload
}

provide_engine() {
  for engine in docker podman containerd nerdctl crictl; do
    ! has "$engine" || return 0
  done
  say 'no container engine here: installing Docker'
  if has apt-get; then
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    patiently apt-get -q -o DPkg::Lock::Timeout=300 update || return 1
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends docker.io || return 1
  elif has dnf; then
    dnf -q -y --setopt=exit_on_lock=False install docker || return 1
  else
    complain 'there is neither apt-get nor dnf here'
    return 1
  fi
  [ ! -d /run/systemd/system ] || systemctl enable --now docker
}

# --- what this instance has -----------------------------------------------------------------------

# is_good: nothing is to be done. Ends the program where that cannot be known. A request that was kept
# tells of an installation that did not come to its end.
is_good() {
  { [ ! -e "$request" ] && usable; } || return 1
  facts=$(openssl x509 -in "$certs/client.cert" -noout -pubkey -dates 2>/dev/null) || return 1
  case $facts in *"$(public_key)"*) ;; *) return 1 ;; esac
  ! in_last_third || return 1
  try_registry
  case $answer:$failed in
    200:*) has_todays_trust || return 1; rm -f "$directory/$instance.vain" ;;
    403:* | 000:60) refused_too_often || return 1 ;; # 60: it is not vouched for by the CA that we know
    *) fail "cannot tell whether the certificate is good: $answer $(one_line "$why")" ;;
  esac
}

# has_todays_trust: what came with the certificate is the trust that is published now, or that cannot
# be known. An answer of the API may bring what was published a minute ago, so for each version of the
# trust three certificates are asked for in the end.
has_todays_trust() {
  read_credentials && status=$(trust_request | call) || status=000
  answer=$(cat "$work/trust" 2>/dev/null)
  latest=$(field version)
  if [ "$status" != 200 ] || ! only 0-9a-f "$latest"; then
    complain "cannot ask for the trust: $status $(one_line "$(field detail)$(cat "$work/why")")"
    return 0
  fi
  state=$directory/$instance.trust
  read -r kept asks 2>/dev/null <"$state" || kept=$latest asks=0
  if is_of_trust; then
    [ "$kept" != "$latest" ] || asks=-1
  elif [ "$kept:$asks" = "$latest:3" ]; then
    complain 'new certificates do not bring the published trust' && return 0
  fi
  [ "$kept" = "$latest" ] || asks=0
  put "$state" 0600 "$latest $((asks + 1))"
  [ "$asks" = -1 ]
}

# is_of_trust: the CA of the certificate is in the trust, the CAs here are its CAs, and one that does not
# sign yet was made two minutes before the certificate: else those who count might count us out.
is_of_trust() {
  printf '%b' "$(field client_ca)" >"$work/clients"
  printf '%b' "$(field ca_bundle)" >"$work/servers"
  openssl verify -CAfile "$work/clients" "$certs/client.cert" >/dev/null 2>&1 || return 1
  [ "$(sort "$work/servers")" = "$(sort "$certs/ca.crt")" ] || return 1
  openssl crl2pkcs7 -nocrl -certfile "$work/servers" | openssl pkcs7 -print_certs -noout -text \
    | sed -n 's/^ *Not Before: //p' | sed 1d >"$work/dates"
  while read -r made; do
    made=$(epoch "$made") && [ "$begins" -ge $((made + 120)) ] || return 1
  done <"$work/dates"
}

after() { printf '%s\n' "$facts" | sed -n "s/^$1//p"; }

in_last_third() {
  begins=$(epoch "$(after notBefore=)") && ends=$(epoch "$(after notAfter=)") || return 0
  [ "$(date -u +%s)" -ge $((begins + (ends - begins) * 2 / 3)) ]
}

# epoch 'Nov 30 13:23:17 2026 GMT': in seconds since 1970. Here years begin in March, so that a leap
# day is the last of its year.
epoch() {
  IFS=': ' read -r month day hour minute second year _ <<END-OF-TIME
$1
END-OF-TIME
  names=MarAprMayJunJulAugSepOctNovDecJanFeb
  names=${names%%"$month"*}
  only 0-9 "$day$hour$minute$second$year" && [ ${#names} -lt 36 ] || return 1
  month=$((${#names} / 3))
  [ "$month" -lt 10 ] || year=$((year - 1))
  days=$((year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + ${day#0} - 719469))
  echo $((days * 86400 + ${hour#0} * 3600 + ${minute#0} * 60 + ${second#0}))
}

# A registry that refuses whatever it is shown, or is none, must not use up what one owner may have:
# three certificates in vain, then one a day.
refused_too_often() {
  read -r count since 2>/dev/null <"$directory/$instance.vain" || count=0 since=0
  now=$(date -u +%s)
  if [ "$count" -ge 3 ] && [ $((now - since)) -lt 86400 ]; then
    fail "new certificates do not help: $(one_line "$why")"
  fi
  put "$directory/$instance.vain" 0600 "$((count + 1)) $now"
  return 1
}

# --- asking ---------------------------------------------------------------------------------------
# Secrets reach curl on its standard input: everybody on a machine may read arguments.

call() { curl -q --config - 2>"$work/why"; }

# request URL SECONDS: what every request has
request() {
  printf 'silent\nshow-error\ngloboff\nmax-filesize = 262144\n'
  printf 'connect-timeout = 5\nmax-time = %s\nurl = "%s"\n' "$2" "$1"
}

header() { printf 'header = "%s"\n' "$1"; }

# metadata PATH: IMDSv2
metadata() {
  imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT%/}/latest
  token=$({ asked "$imds/api/token"; printf 'request = PUT\n'
            header 'x-aws-ec2-metadata-token-ttl-seconds: 60'; } | call) || return 1
  only 'A-Za-z0-9+/=_.-' "$token" || return 1
  { asked "$imds/meta-data/$1"; header "x-aws-ec2-metadata-token: $token"; } | call
}

asked() {
  request "$1" 10
  printf 'fail\nnoproxy = "*"\n'
}

# only CHARACTERS TEXT: TEXT is not empty and has no others
only() { case $2 in '' | *[!$1]*) return 1 ;; esac }

read_instance_id() {
  instance=$(metadata instance-id) || return 1
  case $instance in i-*) only 'a-f0-9' "${instance#i-}" ;; *) return 1 ;; esac
}

read_credentials() {
  path=iam/security-credentials/
  role=$(metadata "$path") && only 'A-Za-z0-9+=,.@_-' "$role" || return 1
  answer=$(metadata "$path$role") || return 1
  access_key=$(field AccessKeyId) secret_key=$(field SecretAccessKey) session_token=$(field Token)
  only 'A-Za-z0-9' "$access_key" && only 'A-Za-z0-9+/=_-' "$secret_key" \
    && only 'A-Za-z0-9+/=_.,:-' "$session_token"
}

# field NAME: of the JSON in $answer
field() { printf '%s' "$answer" | tr -d '\n' | sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'; }

enrol() {
  fresh=no
  provide_key no
  patiently ask || fail "$trouble"
  [ -z "$trouble" ] || fail "$trouble"
  run_installer >"$work/said" 2>&1 \
    || fail "the installer failed: $(one_line "$(sed -n 's/^registry-trust: //p' "$work/said")")"
  rm -f "$request"
  try_registry
  [ "$answer" = 200 ] || fail "there is a new certificate, but: $answer $(one_line "$why")"
  rm -f "$directory/$instance.vain"
  say "this instance has a new certificate, and $registry admits it"
}

# ask: for a certificate; $work/install.sh then. 1: worth another try. $trouble: why there is none.
ask() {
  trouble='the metadata service gave no credentials of an instance role'
  read_credentials || return 1
  keep_request
  status=$(certificate_request | call) || status=000
  case $status in 201) trouble='' && is_whole && return 0 ;; esac
  answer=$(head -c 4096 "$work/install.sh" 2>/dev/null) || answer=
  trouble="the API answered $status $(one_line "$(field detail)$(tail -n 1 "$work/why")")"
  case $status:$(field code) in
    4*:key_revoked | 4*:key_in_use) ask_afresh yes ;;
    4*:idempotency_key_reused | 4*:certificate_revoked) ask_afresh no ;;
    000:* | 201:* | 403:* | 429:* | 5*) return 1 ;;
  esac
}

# ask_afresh NEW_KEY: with another request, once
ask_afresh() {
  [ "$fresh" = no ] || return 0
  fresh=yes
  provide_key "$1"
  rm -f "$request"
  ask
}

# An answer may get lost, or we may, while we install. So the request is kept until all is installed,
# and the same request has the same Idempotency-Key: the API answers it with the same certificate.
keep_request() {
  : >"$work/none" # openssl wants a configuration, and some systems have none
  held=$(openssl req -config "$work/none" -in "$request" -noout -pubkey 2>/dev/null) || held=
  [ "$held" != "$(public_key)" ] || return 0
  made=$(make_csr 'CN = registry-trust') || fail 'openssl could not make a certificate request'
  put "$request" 0600 "$made"
}

# signed PATH SECONDS FILE: a request to the API, whose answer goes into FILE
signed() {
  request "$api_url/$1" "$2"
  printf 'output = "%s"\nwrite-out = "%%{http_code}"\n' "$3"
  printf 'aws-sigv4 = "aws:amz:%s:execute-api"\nuser = "%s:%s"\n' "$region" "$access_key" "$secret_key"
  header "x-amz-security-token: $session_token"
}

# The lists of what is revoked are in it.
trust_request() {
  signed trust 40 "$work/trust"
  printf 'max-filesize = 8388608\n'
}

certificate_request() {
  signed certs 40 "$work/install.sh"
  printf 'data-binary = "@%s"\n' "$request"
  header 'content-type: application/x-pem-file'
  header 'accept: text/x-shellscript'
  header "idempotency-key: $(openssl dgst -sha256 -r <"$request" | cut -c 1-64)"
}

# An installer does nothing before its last line.
is_whole() { [ "$(tail -n 1 "$work/install.sh")" = '{ main "$@"; }' ]; }

{ main "$@"; }
