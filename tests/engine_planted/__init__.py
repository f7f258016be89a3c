"""Bugs planted into the engine's sources, one by one, each with the test that must find it."""
