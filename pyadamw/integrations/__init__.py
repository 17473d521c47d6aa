"""Owns what other training packages need to use pyadamw. Each module imports the package that it is named after."""
