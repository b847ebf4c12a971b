"""Folders of files as companies have them, each with what should be read from it."""
