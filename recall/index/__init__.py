"""Maximum inner-product search over item vectors."""
