"""Pure decisions: what is observed goes in, what should be done comes out. `now` is an argument."""
