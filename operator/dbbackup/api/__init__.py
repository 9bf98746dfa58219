"""Objects -> typed specs, conditions, quantities. Pure."""
