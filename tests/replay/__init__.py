"""Regression test for refactorings: records the behaviour of a tree and compares a different one bit for bit."""
