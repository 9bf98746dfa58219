#!/usr/bin/env bash
# The first version, to upgrade from: its source, out of this clone's history, in build/first-version; its image, made by its own Dockerfile under the
# tag $1 and given to the rig's cluster. What has not changed between the versions comes from the layers of today's image.
set -euo pipefail
image=${1:?the image\'s name}
# The files of the last commit of version 0.1.0, by the id of their tree: it names the content, so a history with other commit ids holds it too.
TREE=6ce88a2c575b128c8fdc7a243df9b6f60adbe835
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
source=$ROOT/build/first-version
has_tree() { git -C "$ROOT" cat-file -e "$TREE^{tree}" 2>/dev/null; }
has_tree || [ "$(git -C "$ROOT" rev-parse --is-shallow-repository)" = false ] || git -C "$ROOT" fetch -q --unshallow
has_tree || {
  echo "the first version's source (git tree $TREE) is not in this clone's history, nor in its origin's" >&2
  exit 1
}
rm -rf "$source"
mkdir -p "$source"
git -C "$ROOT" archive "$TREE" .dockerignore Dockerfile LICENSE README.md charts image operator pyproject.toml requirements.txt tests/rig | tar -x -C "$source"
STATE=${STATE:-$ROOT/build/rig} "$source/tests/rig/operator-image.sh" "$image"
