"""Translate the outside world into one call of one service; no decisions."""
