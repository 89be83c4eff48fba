# run_installer: $work/install.sh. What it lays aside holds the key, so it does it where the next run of
# ours looks. Of two registries' one waits for the other, if it can: they write one hosts file.
run_installer() {
  (
    flock -w 60 8 2>/dev/null || :
    TMPDIR=$work sh "$work/install.sh" --key "$key" --containerd
  ) 8<"${directory%/*}"
}

# ask_with_curl: GET /v2/ as a container engine would, with the files that Docker has. Our CA alone
# counts, and the host name has to be right. $answer becomes the status, 000 if there is none, $why
# the reason in words, and $failed how curl ended. It takes what follows a colon in --cert for a
# password, hence cd.
ask_with_curl() {
  failed=0
  answer=$(cd "$certs" && curl -q -sS --noproxy '*' --proto '=https' --cacert ca.crt \
    --capath "$work" --cert client.cert --key client.key --max-time 10 --max-filesize 65536 \
    -o "$work/answer" -w '%{http_code}' "https://$registry/v2/" 2>"$work/why") || failed=$?
  if [ "$failed" != 0 ]; then
    answer=000
    why=$(sed -n 's/^curl: ([0-9]*) //p' "$work/why" | tail -n 1)
  else
    read_reason
  fi
}

read_reason() { why=$(sed -n 's/.*"message":"\([^"]*\)".*/\1/p' "$work/answer" 2>/dev/null | head -n 1) || :; }

# try_registry: once more after a moment, for nginx may be about to reload
try_registry() {
  ask_registry
  if [ "$answer" != 200 ]; then
    sleep 3
    ask_registry
  fi
}

one_line() { printf '%s' "$1" | tr '\n\t' '  ' | tr -cd ' -~' | cut -c 1-200; }
