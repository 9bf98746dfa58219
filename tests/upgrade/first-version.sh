#!/usr/bin/env bash
# The first version, to upgrade from: its source into build/first-version, its image by its own Dockerfile under the tag $1, given to the rig's cluster.
# What has not changed between the versions comes from the layers of today's image. The commit stands here and nowhere else.
set -euo pipefail
COMMIT=818fea8b58043eac1b31aca6123a4f34af33d8fa
image=${1:?the image\'s name}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
source=$ROOT/build/first-version
if [ "$(cat "$source/.commit" 2>/dev/null)" != $COMMIT ]; then
  git -C "$ROOT" cat-file -e $COMMIT^{commit} 2>/dev/null || {
    echo "the first version's commit $COMMIT is not in this clone: git fetch --unshallow origin (or: git fetch origin $COMMIT)" >&2
    exit 3
  }
  rm -rf "$source"
  mkdir -p "$source"
  git -C "$ROOT" archive $COMMIT | tar -x -C "$source"
  echo $COMMIT >"$source/.commit"
fi
STATE=${STATE:-$ROOT/build/rig} "$source/tests/rig/operator-image.sh" "$image"
