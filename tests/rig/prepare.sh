#!/usr/bin/env bash
# What the tests on a cluster need: the cluster, the operator's image, the servers' images. CLUSTER=existing: nothing is made.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
if [ "${CLUSTER:-rig}" = existing ]; then
  [ -n "${IMAGE:-}" ] || { echo "CLUSTER=existing needs IMAGE=: the operator's image, under a name that the cluster can pull or already has" >&2 && exit 1; }
  exit
fi
"$HERE/rig" up
"$HERE/rig" packages prometheus  # promtool, and a Prometheus that scrapes the operator
[ -n "${IMAGE:-}" ] || "$HERE/operator-image.sh"
"$HERE/rig" images postgres-13 postgres-18 toxiproxy kubectl
