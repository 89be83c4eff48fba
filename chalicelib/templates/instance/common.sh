has() { command -v "$1" >/dev/null 2>&1; }
complain() { printf 'registry-trust: %s\n' "$*" >&2; }

# begin: one run at a time, a work directory that only root may enter, and nothing that a run which
# was killed left behind: it may hold a key.
begin() {
  [ "$(id -u)" = 0 ] || fail 'run this as root'
  has openssl || fail 'openssl is needed; please install it'
  make_directory || fail "$why"
  work=$directory/.work.$$ locked=no
  (: >>"$directory/.lock") 2>/dev/null || fail "cannot write in $directory"
  if has flock; then
    exec 9>>"$directory/.lock"
    flock -w 60 9 || fail 'another run has not ended for a minute'
    locked=yes
  fi
  trap 'rm -rf "$work" || :' EXIT
  trap 'fail "interrupted; please run it again"' HUP INT TERM
  for left in "$directory"/.work.*; do
    # Without a lock it may be that of a run that lives. Process ids come again: ours is ours.
    [ "$locked" = yes ] || [ "$left" = "$work" ] || ! kill -0 "${left##*.}" 2>/dev/null || continue
    rm -rf "$left"
  done
  mkdir "$work" || fail "cannot write in $directory"
}

# make_directory: $directory, which only root may enter, and the one above it, which all registries
# share and a registry host has too; else $why
make_directory() {
  for each in "${directory%/*}" "$directory"; do
    why="$each is a link; please remove it"
    [ ! -L "$each" ] || return 1
    why="cannot make $each" mask=077
    [ "$each" = "$directory" ] || mask=022
    (umask "$mask" && mkdir "$each") 2>/dev/null || [ -d "$each" ] || return 1
  done
}

public_key() { openssl pkey -in "$key" -passin pass: -pubout 2>/dev/null; }

# usable: $key is a file, and no link (ls tells of the link itself), of root's alone, and holds a P-256
# key. That is what the public key's first 27 bytes say (RFC 5480 section 2).
usable() {
  [ -f "$key" ] || return 1
  read -r mode _ owner _ <<END-OF-LISTING
$(ls -ldn "$key")
END-OF-LISTING
  case $owner:$mode in 0:-rw-------*) ;; *) return 1 ;; esac
  case $(public_key) in *MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE*) ;; *) return 1 ;; esac
}
