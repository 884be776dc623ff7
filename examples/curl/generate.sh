#!/bin/sh
# Sign in, ask for a picture, wait for it, save it, with nothing but curl and sed.
#
# DARKROOM_EMAIL=… DARKROOM_PASSWORD=… ./generate.sh "a red house at sunset" house.png
set -eu
url=${DARKROOM_URL:-http://127.0.0.1:8000}

ask() { curl -sS --fail-with-body --max-time 30 "$url/graphql" -H 'content-type: application/json' "$@"; }
# The value of a field of an answer, as long as it holds no quotes.
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }
# Text as a JSON string.
json() { printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/.*/"&"/'; }
fail() { echo "$1" >&2; exit 1; }

answer=$(ask -d '{
  "query": "mutation ($input: SigninInput!) { signin(input: $input) { ... on Session { accessToken } ... on UserError { message } } }",
  "variables": {"input": {"email": '"$(json "$DARKROOM_EMAIL")"', "password": '"$(json "$DARKROOM_PASSWORD")"'}}
}')
token=$(echo "$answer" | field accessToken)
[ -n "$token" ] || fail "$answer"

answer=$(ask -H "authorization: Bearer $token" -d '{
  "query": "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } ... on InvalidInput { fields { field message } } ... on UserError { message } } }",
  "variables": {"input": {"prompt": '"$(json "$1")"', "delivery": "DOWNLOAD"}}
}')
id=$(echo "$answer" | field id)
[ -n "$id" ] || fail "$answer"

while :; do
  answer=$(ask -H "authorization: Bearer $token" -d '{
    "query": "query ($id: ID!) { generation(id: $id) { state error { message } images { url } } }",
    "variables": {"id": "'"$id"'"}
  }')
  case $(echo "$answer" | field state) in
    QUEUED | RUNNING) sleep 1 ;;
    SUCCEEDED) break ;;
    *) fail "$answer" ;;
  esac
done

curl -sS --fail -o "$2" "$(echo "$answer" | field url)"
echo "$2"
