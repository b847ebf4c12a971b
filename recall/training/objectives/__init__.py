"""Objectives of gradient learning, functions of vectors only."""
