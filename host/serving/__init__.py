"""Texts for many callers at once: an engine over one device or several, which prints nothing."""
