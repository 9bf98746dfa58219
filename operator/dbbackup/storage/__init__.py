"""Object storage behind one Protocol (`base.Storage`)."""
