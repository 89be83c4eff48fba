# Asking AWS with the instance role's credentials, in POSIX sh with curl, awk, od, sed and sha256sum.
# Who has these functions sets AWS_REGION, CONFIG_BUCKET, AWS_ENDPOINT_URL (or ''), METADATA_URL, NOW's
# STAMP (20261124T001500Z) and TODAY (20261124), WORK (a private directory) and NEWLINE, and has
# problem(), which says its argument and returns 1.

EMPTY_HASH=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

# --- asking: curl, and AWS Signature Version 4 ----------------------------------------------------
# Secrets reach curl on its standard input and sha256sum in a pipe: never as an argument, which
# everybody on the machine may read. The --aws-sigv4 of older curls (Ubuntu 22.04 has 7.81) leaves
# x-amz-security-token unsigned, which S3 refuses; so the signature is made here, for any curl.

# Reads curl's configuration; the answer is on standard output. $1: the most that may be written, KiB
# (max-filesize sees nothing of an answer that does not tell its length).
run_curl() {
  (
    ulimit -f $(($1 * 2))
    exec curl -q --config - 2>"$WORK/curl.err"
  ) 9>&-
}

# option NAME VALUE: a line of curl's configuration
option() {
  case $2 in *[\"\\]*) return 1 ;; esac
  printf '%s = "%s"\n' "$1" "$2"
}

# bounded URL SECONDS BYTES: what every request has
bounded() {
  printf 'silent\nshow-error\ngloboff\n'
  option url "$1"
  option proto '=http,https'
  option connect-timeout 5
  option max-time "$2"
  option max-filesize "$3"
}

why_curl_failed() { tail -n 1 "$WORK/curl.err" 2>/dev/null || :; }

# A run makes some twenty digests: sha256sum starts four times as fast as openssl.
sha256() {
  digest=$(sha256sum)
  printf '%s' "${digest%% *}"
}

# octal HEX MASK: the bytes, each XORed with MASK, as printf's %b wants them, in OCTAL
octal() {
  rest=$1 OCTAL=
  while [ -n "$rest" ]; do
    others=${rest#??}
    byte=$((0x${rest%"$others"} ^ $2))
    OCTAL="$OCTAL\\0$((byte >> 6))$((byte >> 3 & 7))$((byte & 7))"
    rest=$others
  done
}

# hmac KEY MESSAGE: HMAC-SHA256 (RFC 2104) in hex; KEY is hex, 64 bytes at most
hmac() {
  padded=$1
  while [ ${#padded} -lt 128 ]; do padded=${padded}00; done
  octal "$padded" 0x36
  inner=$({ printf '%b' "$OCTAL"; printf '%s' "$2"; } | sha256)
  octal "$padded" 0x5c
  outer=$OCTAL
  octal "$inner" 0
  printf '%b' "$outer$OCTAL" | sha256
}

# prepare_signing SERVICE: today's key for it
prepare_signing() {
  SCOPE=$TODAY/$AWS_REGION/$1/aws4_request
  secret=$(printf 'AWS4%s' "$SECRET_KEY" | od -An -v -tx1 | tr -d ' \n')
  [ ${#secret} -le 128 ] || secret=$(printf 'AWS4%s' "$SECRET_KEY" | sha256)
  SIGNING_KEY=$(hmac "$secret" "$TODAY")
  SIGNING_KEY=$(hmac "$SIGNING_KEY" "$AWS_REGION")
  SIGNING_KEY=$(hmac "$SIGNING_KEY" "$1")
  SIGNING_KEY=$(hmac "$SIGNING_KEY" aws4_request)
}

# signed METHOD URL PAYLOAD_HASH [CONTENT_TYPE]: the headers, as curl's configuration.
# The path may hold only what needs no encoding, and there is no query.
signed() {
  split_url "$2"
  headers="${4:+content-type:$4$NEWLINE}host:$HOST
x-amz-content-sha256:$3
x-amz-date:$STAMP
x-amz-security-token:$SESSION_TOKEN"
  names="${4:+content-type;}host;x-amz-content-sha256;x-amz-date;x-amz-security-token"
  request=$(printf '%s\n%s\n\n%s\n\n%s\n%s' "$1" "$URL_PATH" "$headers" "$names" "$3" | sha256)
  signature=$(hmac "$SIGNING_KEY" "AWS4-HMAC-SHA256$NEWLINE$STAMP$NEWLINE$SCOPE$NEWLINE$request")
  [ -z "${4-}" ] || option header "content-type: $4"
  option header "x-amz-date: $STAMP"
  option header "x-amz-content-sha256: $3"
  option header "x-amz-security-token: $SESSION_TOKEN"
  option header "authorization: AWS4-HMAC-SHA256 Credential=$ACCESS_KEY/$SCOPE, SignedHeaders=$names, Signature=$signature"
}

# split_url URL: HOST as curl sends it (without its scheme's own port), and URL_PATH
split_url() {
  URL_PATH=${1#*://}
  HOST=${URL_PATH%%/*}
  URL_PATH=${URL_PATH#"$HOST"}
  case $1 in
    https:*) HOST=${HOST%:443} ;;
    http:*) HOST=${HOST%:80} ;;
  esac
}

# --- credentials of the instance role: IMDSv2 -----------------------------------------------------

read_credentials() {
  token=$({ metadata_request api/token; option request PUT
            option header 'x-aws-ec2-metadata-token-ttl-seconds: 300'; } | metadata)
  only 'A-Za-z0-9+/=_.-' "$token" || { no_credentials 'no token'; return 1; }
  role=$(metadata_with_token meta-data/iam/security-credentials/ | head -n 1)
  only 'A-Za-z0-9+=,.@_-' "$role" || { no_credentials 'no role'; return 1; }
  answer=$(metadata_with_token "meta-data/iam/security-credentials/$role")
  ACCESS_KEY=$(json_field AccessKeyId "$answer")
  SESSION_TOKEN=$(json_field Token "$answer")
  only 'A-Za-z0-9' "$ACCESS_KEY" || { no_credentials 'no access key'; return 1; }
  only 'A-Za-z0-9+/=_.,:-' "$SESSION_TOKEN" || { no_credentials 'an odd token'; return 1; }
  secret=$(json_field SecretAccessKey "$answer")
  only 'A-Za-z0-9+/=_-' "$secret" || { no_credentials 'no secret key'; return 1; }
  SECRET_KEY=$secret
}

no_credentials() { problem "the instance metadata service gave no credentials ($1): $(why_curl_failed)"; }

metadata_request() {
  bounded "$METADATA_URL/$1" 10 16384
  printf 'fail\n'
  option noproxy '*'
}

metadata() { run_curl 64 | head -c 16384 | tr -d '\r\0'; } # sh cannot hold a NUL

metadata_with_token() {
  { metadata_request "$1"; option header "x-aws-ec2-metadata-token: $token"; } | metadata
}

# only CHARACTERS TEXT: TEXT is not empty and has no others
only() {
  case $2 in '' | *[!$1]*) return 1 ;; esac
}

# json_field NAME JSON: what stands between the quotes after it; the whole text if it is not there
json_field() {
  value=${2#*"\"$1\""*:*\"}
  printf '%s' "${value%%\"*}"
}

# config_url KEY: the address of an object of the config bucket
config_url() {
  base=https://$CONFIG_BUCKET.s3.$AWS_REGION.amazonaws.com
  case $AWS_REGION in cn-*) base=$base.cn ;; esac
  [ -z "$AWS_ENDPOINT_URL" ] || base=${AWS_ENDPOINT_URL%/}/$CONFIG_BUCKET
  printf '%s/%s' "$base" "$1"
}
