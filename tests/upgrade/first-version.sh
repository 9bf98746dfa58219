#!/usr/bin/env bash
# The first version, to upgrade from: its source, out of this clone's history, in build/first-version; its image, made by its own Dockerfile under the
# tag $1 and given to the rig's cluster. What has not changed between the versions comes from the layers of today's image.
set -euo pipefail
image=${1:?the image\'s name}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
source=$ROOT/build/first-version
tree=$("$ROOT/tests/upgrade/first-tree.sh")
rm -rf "$source"
mkdir -p "$source"
git -C "$ROOT" archive "$tree" .dockerignore Dockerfile LICENSE README.md charts image operator pyproject.toml requirements.txt tests/rig | tar -x -C "$source"
STATE=${STATE:-$ROOT/build/rig} "$source/tests/rig/operator-image.sh" "$image"
