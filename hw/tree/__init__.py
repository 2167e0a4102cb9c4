"""Layers of trees: the walk that finds which records are read, and the gather of output rows."""
