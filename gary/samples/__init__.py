"""Compose files that come with Gary, for ``gary demo``."""
