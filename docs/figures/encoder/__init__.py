"""The figures of docs/encoder.md: the study of the feedforwards, and the speed of a whole encoder."""
