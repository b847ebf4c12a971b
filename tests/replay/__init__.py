"""Regression test for refactorings: records the behaviour of a tree and compares another one bit for bit."""
