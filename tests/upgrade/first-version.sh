#!/usr/bin/env bash
# The first version, to upgrade from: its source, as first-version.tar.gz beside this holds it, into build/first-version; its image by its own Dockerfile
# under the tag $1, given to the rig's cluster. What has not changed between the versions comes from the layers of today's image.
set -euo pipefail
image=${1:?the image\'s name}
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
source=$ROOT/build/first-version
rm -rf "$source"
mkdir -p "$source"
tar -xzf "$HERE/first-version.tar.gz" -C "$source"
STATE=${STATE:-$ROOT/build/rig} "$source/tests/rig/operator-image.sh" "$image"
