"""How fast a bundle runs, where, and under which conditions."""
