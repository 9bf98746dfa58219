#!/usr/bin/env bash
# Builds the operator's image (tag localhost/dbbackup/operator:dev, or $1) with buildah and gives it to the rig's cluster where that is up.
# Only what changed is built: a change of operator/ alone takes seconds. With docker: docker build -t NAME .
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
STATE=${STATE:-$ROOT/build/rig} RUN=${DBBACKUP_RIG_RUN:-/run/dbbackup-rig}
image=${1:-localhost/dbbackup/operator:dev}
start=$SECONDS
export BUILDAH_RUNTIME=${BUILDAH_RUNTIME:-runc} STATE RUN
mkdir -p "$STATE/images" "$ROOT/build/log"
exec 8>"$STATE/images/lock"
flock 8
"$HERE/images.sh" make base
options=(--layers --pull-never --network host --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$ROOT/operator/dbbackup/__init__.py")")
# The commit's own time, so that one commit makes one image. What is not in a clone says nothing.
if revision=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null); then
  git -C "$ROOT" diff --quiet HEAD -- Dockerfile image operator pyproject.toml requirements/image.txt || revision+=-dirty
  options+=(--build-arg "REVISION=$revision")
  options+=(--build-arg "CREATED=$(TZ=UTC git -C "$ROOT" log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)")
fi
[ -z "${SOURCE:-}" ] || options+=(--build-arg "SOURCE=$SOURCE")
# pip inside the build sees what pip outside sees.
ca=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-}}
[ -z "$ca" ] || options+=(--volume "$ca:/etc/ssl/certs/ca-certificates.crt:ro" --build-arg PIP_CERT=/etc/ssl/certs/ca-certificates.crt)
[ -z "${PIP_INDEX_URL:-}" ] || options+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL")
[ -z "${PGDG:-}" ] || options+=(--build-arg "PGDG=$PGDG")
if ! buildah build "${options[@]}" -t "$image" "$ROOT" >"$ROOT/build/log/image.log" 2>&1; then
  tail -n 40 "$ROOT/build/log/image.log" >&2
  echo "image: the build failed; the whole log is build/log/image.log" >&2
  exit 1
fi
id=$(buildah images -q --no-trunc "$image" | head -n1)
[ ! -S "$RUN/containerd.sock" ] || "$HERE/images.sh" give "$image"
echo "image $image (${id:7:12}) built in $((SECONDS - start)) s"
