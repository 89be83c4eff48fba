#!/bin/sh
# registry-trust installer: container engines here trust one registry, and are trusted by it.
# It may hold a private key: keep it as you would keep that key.
# shellcheck disable=SC2317,SC2329 # each_engine and trap call functions by name
usage() {
  cat <<'END-OF-USAGE'
Usage: sh install.sh [OPTION]...      or, from a pipe: sh -s -- [OPTION]...
  --key FILE     the private key of this certificate, when it was made from your own CSR
  --containerd   set up containerd too, even when it is not found here
  --root DIR     install into the system tree below DIR (say, an image), not into this machine;
                 links in it that lead out of it are refused, so let nobody change it meanwhile
  --help         print this
Run by root it serves the whole machine, else your own engines. Run again it changes nothing.
Exit: 0 installed, or already so; 1 not installed, or not everywhere (it says why); 2 wrong call
END-OF-USAGE
}

set -eu
umask 077

registry='@REGISTRY@'
registry_address='@REGISTRY_ADDRESS@' # for machines whose DNS does not know it; else empty
holds_key='@HOLDS_KEY@'               # yes or no

write_ca_bundle() {
  cat <<'END-OF-CA-BUNDLE'
@CA_BUNDLE@
END-OF-CA-BUNDLE
}

write_certificate() {
  cat <<'END-OF-CERTIFICATE'
@CERTIFICATE@
END-OF-CERTIFICATE
}

write_private_key() {
  cat <<'END-OF-PRIVATE-KEY'
@PRIVATE_KEY@
END-OF-PRIVATE-KEY
}

# containerd 1.6 wants a host table; what it does not find there it asks the server for again.
write_hosts_toml() {
  cat <<END-OF-HOSTS-TOML
# registry-trust: written by its installer, which will write it again
server = "https://$registry"
ca = "ca.crt"
client = [["client.cert", "client.key"]]

[host."https://$registry"]
capabilities = ["pull", "resolve", "push"]
ca = "ca.crt"
client = [["client.cert", "client.key"]]
END-OF-HOSTS-TOML
}

has() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s\n' "$*"; }
complain() { printf 'registry-trust: %s\n' "$*" >&2; }
fail() { complain "$*"; exit 1; }
wrong_call() { complain "$*"; usage >&2; exit 2; }

# All of it is read before any of it runs, so a download that breaks off does nothing.
main() {
  read_options "$@"
  choose_scope
  each_engine keep_inside
  make_work_directory
  gather_files
  stage_hosts_file
  each_engine stage
  each_engine commit
  commit_hosts_file
  explain
  exit "$result"
}

read_options() {
  key_file='' asked_containerd=no root='' result=0
  while [ $# -gt 0 ]; do
    case $1 in
      --key | --root) [ -n "${2-}" ] || wrong_call "$1 needs a value" ;;
    esac
    case $1 in
      --key) key_file=$2 && shift ;;
      --root) root=$2 && shift ;;
      --containerd) asked_containerd=yes ;;
      --help) usage && exit 0 ;;
      *) wrong_call "there is no option $1" ;;
    esac
    shift
  done
  case $holds_key$key_file in
    no) wrong_call 'this certificate was made from a CSR: give its private key with --key FILE' ;;
    yes?*) wrong_call 'this installer brings its own key: leave --key out' ;;
  esac
}

# system: for all users, below $root; own: for the engines of this user; mac: Docker Desktop's.
choose_scope() {
  scope=own me=$(id -u)
  if [ -n "$root" ]; then
    case $root in /*) ;; *) root=./$root ;; esac
    [ -d "$root" ] || wrong_call "--root $root: no such directory"
    scope=system root=$(CDPATH='' cd -P "$root" && pwd -P)
    root=${root%/}
  elif [ "$(uname -s)" = Darwin ]; then
    [ "$me" != 0 ] || fail 'on macOS run this as yourself: engines there read your home'
    scope=mac
  elif [ "$me" = 0 ]; then
    scope=system
  fi
  [ "$scope" = system ] || case ${HOME-} in
    /*) config_home=${XDG_CONFIG_HOME:-$HOME/.config} ;;
    *) fail 'HOME is not set to a directory' ;;
  esac
  containerd=$asked_containerd
  ! containerd_is_here || containerd=yes
}

containerd_is_here() {
  case $scope in
    system) [ -d "$root/etc/containerd" ] || { [ -z "$root" ] && has containerd; } ;;
    own) [ -d "$config_home/containerd" ] ;;
    mac) return 1 ;;
  esac
}

# each_engine ACTION: runs ACTION NAME CERTS-D for each engine, those that may come later included.
each_engine() {
  case $scope in
    system)
      "$1" 'Docker' "$root/etc/docker/certs.d"
      "$1" 'Podman, CRI-O, skopeo, buildah' "$root/etc/containers/certs.d"
      [ "$containerd" = no ] || "$1" 'containerd' "$root/etc/containerd/certs.d"
      ;;
    own)
      "$1" 'rootless Docker' "$config_home/docker/certs.d"
      "$1" 'Podman, skopeo, buildah' "$HOME/.config/containers/certs.d"
      [ "$containerd" = no ] || "$1" 'containerd' "$config_home/containerd/certs.d"
      ;;
    mac)
      "$1" 'Docker Desktop' "$HOME/.docker/certs.d"
      "$1" 'Podman, skopeo, buildah' "$HOME/.config/containers/certs.d"
      ;;
  esac
}

# keep_inside NAME CERTS-D. A tree may hold links to what are, seen from here, this machine's files.
keep_inside() {
  [ -n "$root" ] || return 0
  found=$2/$registry
  until [ -e "$found" ] || [ -L "$found" ]; do found=${found%/*}; done
  leads_to=$(CDPATH='' cd -P "$found" 2>/dev/null && pwd -P) || leads_to=nowhere
  case $leads_to/ in
    "$root"/*) ;;
    *) fail "$found leads out of the tree, to $leads_to; nothing was changed" ;;
  esac
}

make_work_directory() {
  if has sha256sum; then sum=sha256sum; else sum='shasum -a 256'; fi
  has "${sum%% *}" || fail 'sha256sum or shasum is needed; please install one'
  work=$(mktemp -d "${TMPDIR:-/tmp}/registry-trust.XXXXXX") \
    || fail 'cannot make a temporary directory; nothing was changed'
  hosts_file=$root/etc/hosts
  hosts_aside=$root/etc/.hosts.registry-trust.$$
  for left in "$root"/etc/.hosts.registry-trust.*; do # of runs that were killed
    kill -0 "${left##*.}" 2>/dev/null || rm -f "$left" 2>/dev/null || :
  done
  heed_signals
  trap clean EXIT
}

heed_signals() { trap 'fail "interrupted; please run it again"' HUP INT TERM; }

clean() {
  rm -rf "$work" || :
  rm -f "$hosts_aside" || :
  each_engine discard || :
}

discard() {
  rm -rf "$2/.registry-trust.$$" "$2/$registry/.registry-trust.$$"
}

gather_files() {
  write_ca_bundle >"$work/ca.crt"
  write_certificate >"$work/client.cert"
  write_hosts_toml >"$work/hosts.toml"
  if [ "$holds_key" = yes ]; then
    write_private_key >"$work/client.key"
  else
    take_key
  fi
  wanted=$(cd "$work" && digests)
}

# The key as openssl writes it: PEM, which is all that engines read, and nothing else of the file.
# The empty passphrase keeps it from asking for one: no engine could.
take_key() {
  has openssl || fail 'openssl is needed to check your key; please install it'
  { [ -r "$key_file" ] && [ ! -d "$key_file" ]; } || fail "cannot read the key $key_file"
  openssl pkey -passin pass: <"$key_file" >"$work/client.key" 2>/dev/null \
    || fail "$key_file holds no private key, or an encrypted one; nothing was changed"
  held=$(openssl pkey -pubout <"$work/client.key")
  certified=$(openssl x509 -noout -pubkey <"$work/client.cert")
  [ "$held" = "$certified" ] \
    || fail "the key in $key_file does not belong to this certificate; nothing was changed"
}

foreign_hosts_toml() { [ -e "$1" ] && ! grep -q '^# registry-trust' "$1"; }

# stage NAME CERTS-D: lays what differs beside the files in use, which stay as they are, so that
# whatever cannot be written is found before anything has changed.
stage() {
  target=$2/$registry holder=$2
  [ ! -e "$target" ] || holder=$target
  staged=$holder/.registry-trust.$$
  sweep "$holder"
  there=$(cd "$target" 2>/dev/null && digests) || :
  while read -r digest; do
    file=${digest##*[ *]}
    [ "$file" != hosts.toml ] || [ "$1" = containerd ] || continue
    [ "$file" != hosts.toml ] || ! foreign_hosts_toml "$target/hosts.toml" || continue
    case $there in *"$digest"*) ! is_ours_in_form "$target/$file" || continue ;; esac
    lay "$file" || fail "cannot write in $holder; nothing was changed"
  done <<END-OF-DIGESTS
$wanted
END-OF-DIGESTS
}

digests() { $sum ca.crt client.key client.cert hosts.toml 2>/dev/null; }

# sweep DIRECTORY: what runs that were killed left behind; process ids come again.
sweep() {
  for left in "$1"/.registry-trust.*; do
    [ "$left" = "$staged" ] || ! kill -0 "${left##*.}" 2>/dev/null || continue
    rm -rf "$left" || fail "cannot write in $1; nothing was changed"
  done
}

lay() {
  [ -d "$staged" ] || { (umask 022 && mkdir -p "$holder") && mkdir "$staged"; } || return
  cp "$work/$1" "$staged/$1" || return
  case $1 in *.key) ;; *) chmod 0644 "$staged/$1" ;; esac # the umask keeps keys to ourselves
}

# A file, not a link to one, with the right mode and owner.
is_ours_in_form() {
  read -r mode _ owner _ <<END-OF-LISTING
$(ls -ldn -- "$1")
END-OF-LISTING
  case $owner:$mode:$1 in
    "$me":-rw-------*.key) ;;
    *.key) return 1 ;;
    "$me":-rw-r--r--*) ;;
    *) return 1 ;;
  esac
}

# commit NAME CERTS-D: a new directory appears whole; files of an old one are exchanged.
commit() {
  target=$2/$registry
  if [ -d "$2/.registry-trust.$$" ]; then
    chmod 0755 "$2/.registry-trust.$$"
    mv "$2/.registry-trust.$$" "$target" || fail "cannot make $target"
    say "$1: installed in $target"
  elif [ -d "$target/.registry-trust.$$" ]; then
    exchange "$target/.registry-trust.$$" "$target"
    say "$1: updated in $target"
  else
    say "$1: already up to date in $target"
  fi
  [ "$1" != containerd ] || explain_containerd "$@"
}

# exchange STAGED TARGET. A new key and its certificate cannot be renamed as one: one mv renames
# both, one right after the other, and runs on if we are killed. If it fails, all goes back.
exchange() {
  staged=$1 target=$2
  mkdir "$staged/old"
  set --
  for file in ca.crt client.key client.cert hosts.toml; do
    [ -f "$staged/$file" ] || continue
    if [ -e "$target/$file" ] || [ -L "$target/$file" ]; then
      cp -pP -- "$target/$file" "$staged/old/$file" || fail "cannot replace $target/$file"
    else
      : >"$staged/old/$file.none"
    fi
    set -- "$@" "$staged/$file"
  done
  trap '' HUP INT TERM
  if ! mv -f -- "$@" "$target/"; then
    go_back
    fail "cannot write in $target; the files there are the old ones"
  fi
  heed_signals
}

go_back() {
  for kept in "$staged/old"/*; do
    file=${kept##*/}
    case $file in
      *.none) rm -f -- "$target/${file%.none}" ;;
      *) mv -f -- "$kept" "$target/$file" || complain "could not restore $target/$file" ;;
    esac
  done
}

# The hosts file with our line in it, or without: the lines of others stay as and where they are.
stage_hosts_file() {
  host=${registry%:*} ours=$registry_address is_named_by_others=no blank=$(printf '[ \t]')
  [ -z "$ours" ] || ours="$registry_address $host # registry-trust"
  [ ! -e "$hosts_file" ] || filter_hosts_file <"$hosts_file" >"$work/hosts" \
    || fail "cannot read $hosts_file; nothing was changed"
  [ -e "$work/hosts" ] || say_line "$ours" >"$work/hosts"
  hosts_change=none
  [ -e "$hosts_file" ] || [ -n "$ours" ] || return 0
  if [ -e "$hosts_file" ] && [ "$(cat "$hosts_file")" = "$(cat "$work/hosts")" ]; then return 0; fi
  if [ "$scope" != system ]; then
    hosts_change=advised
  elif [ -n "$root" ] && [ -L "$hosts_file" ]; then
    fail "$hosts_file is a link, which in a tree may lead out of it; nothing was changed"
  elif [ ! -L "$hosts_file" ] && lay_hosts_file; then
    hosts_change=rename
  elif [ -w "$hosts_file" ]; then
    hosts_change=overwrite
  else
    fail "cannot write $hosts_file; nothing was changed"
  fi
}

say_line() { [ -z "$1" ] || say "$1"; }

filter_hosts_file() {
  pending=$ours
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      *" $host # registry-trust") say_line "$pending" && pending='' ;;
      *) say "$line" && notice "$line" ;;
    esac
  done
  say_line "$pending"
}

notice() {
  case "${1%%#*} " in
    *$blank"$host"$blank*) is_named_by_others=yes ;;
  esac
}

# The copy keeps mode and owner. Process ids can be guessed, and a link put where it is to lie.
lay_hosts_file() {
  rm -f "$hosts_aside" || return
  if [ -e "$hosts_file" ]; then
    cp -p "$hosts_file" "$hosts_aside" 2>/dev/null || return
  else
    (umask 022 && mkdir -p "$root/etc" && : >"$hosts_aside") || return
  fi
  cat "$work/hosts" >"$hosts_aside"
}

# In a container the hosts file is a mount, which cannot be renamed over.
commit_hosts_file() {
  case $hosts_change in
    none) return 0 ;;
    advised) explain_hosts_file && return 0 ;;
    rename) mv -f "$hosts_aside" "$hosts_file" 2>/dev/null || cat "$work/hosts" >"$hosts_file" ;;
    overwrite) cat "$work/hosts" >"$hosts_file" ;;
  esac || fail "cannot write $hosts_file"
  ! has restorecon || restorecon "$hosts_file" || : # SELinux's label
  if [ -n "$ours" ]; then
    say "$hosts_file: $host is at $registry_address"
  else
    say "$hosts_file: our line for $host is gone: it is no longer needed"
  fi
  [ "$is_named_by_others" = no ] \
    || say "  Note: a line that is not ours names $host too; the first of them counts."
}

explain_hosts_file() {
  if [ -n "$ours" ]; then
    say "$hosts_file: unless your DNS knows $host, have root add this line:"
    say "  $ours"
  else
    say "$hosts_file: have root remove the line that ends in \"$host # registry-trust\""
  fi
}

explain_containerd() {
  if foreign_hosts_toml "$2/$registry/hosts.toml"; then
    grep -q 'client\.key' "$2/$registry/hosts.toml" || leave_foreign_hosts_toml "$2/$registry"
  fi
  [ "$scope" = system ] || return 0 # nerdctl, which is what uses it there, needs no setting
  config_path='^[[:space:]]*config_path[[:space:]]*=.*/etc/containerd/certs\.d'
  ! grep -Eqs "$config_path" "$root/etc/containerd/config.toml" || return 0
  cat <<'END-OF-NOTE'
  Note: Kubernetes will not look there yet, as config_path is not set. For that
  have this in /etc/containerd/config.toml, and restart containerd:
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
  With containerd 2 the first line is: [plugins."io.containerd.cri.v1.images".registry]
END-OF-NOTE
}

leave_foreign_hosts_toml() {
  complain "$1/hosts.toml is not ours and was left alone; for $registry it should say:
  ca = \"ca.crt\"
  client = [[\"client.cert\", \"client.key\"]]"
  result=1
}

explain() {
  case $scope in
    system) [ -n "$root" ] || say 'Rootless engines: run this once more as their user.' ;;
    own) say "For the engines of the whole machine: run this as root." ;;
    mac) say 'Now restart Docker Desktop: it reads certificates when it starts.' ;;
  esac
  client=docker
  for each in docker podman nerdctl; do
    if has "$each"; then client=$each && break; fi
  done
  say "Try it: $client pull $registry/IMAGE:TAG"
}

{ main "$@"; }
