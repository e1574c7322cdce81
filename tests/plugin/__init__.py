"""Tests of the plugin: mostly runs of pytest within pytest."""
