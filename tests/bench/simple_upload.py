"""What people write first: standard input into boto3's upload_fileobj. Endpoint, bucket, key;
credentials from the environment."""

from __future__ import annotations

import sys

import boto3
from botocore.config import Config


def main() -> None:
    endpoint, bucket, key = sys.argv[1:]
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))
    client.upload_fileobj(sys.stdin.buffer, bucket, key)


if __name__ == "__main__":
    main()
