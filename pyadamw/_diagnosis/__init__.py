"""Owns the doctor: what is installed here, what is wrong with it, and how to mend it. Must not know how it is shown.

Each module finds out facts, which can be printed as JSON, and makes findings of facts alone: a test can make them up.
"""
