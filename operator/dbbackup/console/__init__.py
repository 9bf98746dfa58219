"""The console: an HTTP API and a page for people. Kubernetes RBAC is its only rule book."""
