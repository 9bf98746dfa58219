"""What end-to-end tests are written with: the cluster, a namespace, databases, buckets. The
fixtures are in tests/e2e/conftest.py."""
