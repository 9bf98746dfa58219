"""Logical backup and restore of PostgreSQL on Kubernetes."""

__version__ = "0.2.0"
