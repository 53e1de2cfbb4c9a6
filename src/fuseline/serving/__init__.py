"""A bundle behind HTTP, and in the layout of other servers; no torch."""
