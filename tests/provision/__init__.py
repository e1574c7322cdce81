"""Tests of what is fetched and built into the cache."""
