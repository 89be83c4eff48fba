# forget_others: what a machine image took along of the instance that it was made of. Its key is none of
# ours; and its certificate, while we have no key yet, would have our engines go on as that instance.
forget_others() {
  for other in "$directory"/i-*; do
    case ${other##*/} in "$instance".* | 'i-*') continue ;; esac
    [ -e "$key" ] || forget_pairs
    rm -rf "$other" || complain "cannot remove $other"
  done
}

# The certificate first: no engine may have one without its key.
forget_pairs() {
  for engine in docker containers containerd; do
    pair=/etc/$engine/certs.d/$registry/client
    { rm -f "$pair.cert" && rm -f "$pair.key"; } 2>/dev/null || complain "cannot remove $pair.key"
  done
}

# provide_key NEW: a usable $key; another one if NEW is yes. It appears whole, and of two runs that
# find none, both end with the key of the one that came first.
provide_key() {
  if [ "$1" = no ] && usable; then return 0; fi
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/key" 2>/dev/null \
    || fail 'openssl could not make a key'
  if [ -L "$key" ] || [ -d "$key" ]; then rm -rf "$key"; fi
  if [ "$1" = yes ] || ! ln "$work/key" "$key" 2>/dev/null; then
    { [ "$1" = no ] && usable; } || mv -f "$work/key" "$key" || fail "cannot write $key"
  fi
  rm -f "$work/key"
  usable || fail "openssl made no usable key in $key"
}

# make_csr NAME: a certificate request for $key, on standard output. NAME: the lines of its subject.
make_csr() {
  printf '[req]\ndistinguished_name = name\nprompt = no\n[name]\n%s\n' "$1" >"$work/req.cnf"
  openssl req -new -sha256 -config "$work/req.cnf" -key "$key" 2>/dev/null
}
