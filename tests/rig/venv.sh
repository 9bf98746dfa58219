#!/usr/bin/env bash
# A virtual environment with the locked tools and libraries of the tests, in $1.
set -euo pipefail
venv=$1
for python in ${PYTHON3:-python3 python3.13 python3.12 python3.11}; do
  "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
  python=
done
if [ -z "$python" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv; } >/dev/null </dev/null
  python=python3
fi
[ -n "$python" ] || { echo "needs Python 3.11 or newer with venv: apt-get install python3-venv" >&2 && exit 1; }
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "installing the tests' libraries into $venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
touch "$venv/.ready"
