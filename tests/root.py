"""Paths of this checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CRDS = ROOT / "charts" / "database-backup-operator" / "files" / "crds"
