#!/usr/bin/env bash
# make test: the checks, disaster recovery (which destroys the cluster and makes it anew), then every other suite in one pytest run, whose summary is
# the last line.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
start=$SECONDS
"$HERE/check.sh"
build/venv/bin/python tools/gen.py --check
"$HERE/prepare.sh"
# The integration tests run a PostgreSQL server of this machine.
[ "${CLUSTER:-rig}" = existing ] || "$HERE/rig" packages postgresql postgresql-client pgbouncer zstd
# The console is tried in a browser, which runs here whatever the cluster.
command -v chromium >/dev/null || "$HERE/rig" packages chromium
echo "test: ready after $((SECONDS - start)) s"
if [ "${CLUSTER:-rig}" != existing ]; then
  command -v aws >/dev/null || "$HERE/rig" packages awscli
  build/venv/bin/python -m pytest tests/disaster -q -p no:cacheprovider
fi
suites=()
for suite in unit contract integration conformance chart faults e2e; do  # the longest ones early
  ! compgen -G "tests/$suite/**/test_*.py" >/dev/null && ! compgen -G "tests/$suite/test_*.py" >/dev/null || suites+=("tests/$suite")
done
exec build/venv/bin/python -m pytest "${suites[@]}" -n "${WORKERS:-4}" --dist loadgroup -p no:cacheprovider --durations 15
