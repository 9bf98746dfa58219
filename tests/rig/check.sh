#!/usr/bin/env bash
# Formatting, lint, types and layers; the slow ones side by side.
set -euo pipefail
bin=$PWD/build/venv/bin
"$bin/ruff" format --check --quiet . || { echo "check: run build/venv/bin/ruff format" >&2 && exit 1; }
"$bin/ruff" check --quiet --output-format concise .
"$bin/lint-imports" --no-cache >build/layers.log 2>&1 &
layers=$!
"$bin/mypy" --no-error-summary --cache-dir build/mypy
PYTHONPATH=operator wait $layers || { cat build/layers.log >&2 && exit 1; }
echo "check: format, lint, types and layers hold"
