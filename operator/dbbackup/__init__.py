"""Logical backup and restore of PostgreSQL on Kubernetes."""

__version__ = "0.1.0"
