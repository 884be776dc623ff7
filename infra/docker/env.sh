#!/bin/sh
# Makes up the secrets of compose.yaml in infra/docker/.env, unless they are there.
set -eu
cd "$(dirname "$0")"
umask 077

# A letter first: nats-server takes what begins like a number for one.
secret() {
  printf 's%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
}

if [ -e .env ]; then
  echo "$PWD/.env is there already."
  exit 0
fi
for name in POSTGRES_PASSWORD NATS_PASSWORD STORAGE_PASSWORD DOWNLOAD_SECRET JWT_SECRET PASSWORD_PEPPER; do
  echo "$name=$(secret)"
done >.env
echo "Wrote $PWD/.env: keep it, with PASSWORD_PEPPER all passwords are lost."
