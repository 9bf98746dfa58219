#!/usr/bin/env bash
# Prints the id of the tree that holds the files of the last commit of version 0.1.0, once this clone has it. The id names the content, so a history with
# other commit ids holds it too. A shallow clone fetches its history.
set -euo pipefail
tree=6ce88a2c575b128c8fdc7a243df9b6f60adbe835
cd "$(dirname "$0")"
has_tree() { git cat-file -e "$tree^{tree}" 2>/dev/null; }
has_tree || [ "$(git rev-parse --is-shallow-repository)" = false ] || git fetch -q --unshallow
has_tree || {
  echo "the first version's source (git tree $tree) is not in this clone's history, nor in its origin's" >&2
  exit 1
}
echo "$tree"
