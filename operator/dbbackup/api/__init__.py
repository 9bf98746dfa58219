"""Typed views of what people write in the cluster. Pure: no kopf, no client, no I/O."""
