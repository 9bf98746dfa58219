"""Makes the kubectl plugin one file for the PATH: a zip that Python runs, of our modules and the
pure-Python libraries that they import.

    python tools/single_file.py build/cli
        -> build/cli/kubectl-dbbackup, build/cli/kubectl_complete-dbbackup

The libraries are those of this virtual environment, which were installed by their hashes. The same
input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import stat
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "operator"
sys.path.insert(0, str(SOURCE))

from dbbackup.cli.verbs.completion import KUBECTL  # noqa: E402 - found through the path above

LIBRARIES = ("click", "cronsim", "pyyaml", "tzdata")
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = Path(__file__).with_name("single_file_main.py")
_IMPORT_ALL = """
import pkgutil, sys
from importlib import import_module
import dbbackup.cli
for found in pkgutil.walk_packages(dbbackup.cli.__path__, "dbbackup.cli."):
    if not found.name.endswith("__main__"):
        import_module(found.name)
import dbbackup.plan.cron
print("\\n".join(sorted(module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "dbbackup")))
"""


def own_files() -> dict[str, bytes]:
    """Our modules that any verb of the plugin imports, and no others."""
    found = subprocess.run([sys.executable, "-c", _IMPORT_ALL], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True).stdout
    paths = [Path(line) for line in found.split()]
    return {str(path.relative_to(SOURCE)): path.read_bytes() for path in paths}


def library_files() -> dict[str, bytes]:
    """The libraries' files with their licences, without those that run on one platform only."""
    found = {}
    for name in LIBRARIES:
        for entry in metadata.files(name) or ():
            path = Path(str(entry.locate()))
            text = str(entry)
            if text.startswith("..") or "__pycache__" in text or path.suffix in {".pyc", ".so", ".pyd"}:
                continue
            if ".dist-info/" in text and "licens" not in text.lower():
                continue
            found[text] = path.read_bytes()
    return found


def archive(files: dict[str, bytes]) -> bytes:
    """The zip file. The same files give the same bytes: no times, one order. The start code knows
    by a digest whether these files are unpacked already."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    start = MAIN.read_text("utf-8").replace("@DIGEST@", digest.hexdigest()[:32])
    out = io.BytesIO()
    out.write(SHEBANG)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, data in sorted({**files, "__main__.py": start.encode()}.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            made.writestr(entry, data)
    return out.getvalue()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    data = archive({**library_files(), **own_files()})
    write(folder / "kubectl-dbbackup", data)
    write(folder / "kubectl_complete-dbbackup", KUBECTL.encode())
    sys.stdout.write(f"{folder / 'kubectl-dbbackup'}: {len(data) >> 10} KiB\n")


if __name__ == "__main__":
    main()
