"""Sets of real faces as other programs keep them: pairs for verification, identities to learn.

Nothing in a file is executed. What is damaged is told by its place in the file, and left out only
where the caller says so.
"""
