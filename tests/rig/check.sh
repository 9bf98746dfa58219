#!/usr/bin/env bash
# Formatting, lint, types and layers; the slow ones side by side.
set -euo pipefail
mkdir -p build/log
bin=$PWD/build/venv/bin
"$bin/ruff" format --check --quiet . || { echo "check: run build/venv/bin/ruff format" >&2 && exit 1; }
"$bin/ruff" check --quiet --output-format concise .
PYTHONPATH=operator "$bin/lint-imports" --no-cache >build/log/layers.log 2>&1 &
layers=$!
"$bin/mypy" --no-error-summary --cache-dir build/mypy
wait $layers || { cat build/log/layers.log >&2 && exit 1; }
echo "check: format, lint, types and layers hold"
