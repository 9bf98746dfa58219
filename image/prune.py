"""Removes from the image's environment what never runs there: tests, and botocore's API models of
other services."""

import shutil
import sys
from pathlib import Path

KEEP = {"s3", "sts", "sso", "sso-oidc", "signin"}
"""Services that an S3 client and its credential chain use."""

for site in Path(sys.argv[1]).glob("lib/python3*/site-packages"):
    for service in (site / "botocore/data").iterdir():
        if service.is_dir() and service.name not in KEEP:
            shutil.rmtree(service)
    shutil.rmtree(site / "boto3/examples", ignore_errors=True)
    for tests in [*site.glob("*/tests"), *site.glob("*/test")]:
        shutil.rmtree(tests)
