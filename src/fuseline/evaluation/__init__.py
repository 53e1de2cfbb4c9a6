"""Metrics with their uncertainty, and the gate."""
