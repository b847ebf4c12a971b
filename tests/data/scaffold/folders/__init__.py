"""Folders of files in the forms that companies use, each with the expected result."""
