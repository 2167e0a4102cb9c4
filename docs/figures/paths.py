"""Steps by the paths that their names are."""

from sterna.host.errors import UsageError


def below(name, paths):
    """Whether a step lies at or below one of the paths (bool)."""
    return any(f"{name}.".startswith(f"{path}.") for path in paths)


def chosen(names, only):
    """The names at or below one of the paths ``only``; UsageError for a path that is none."""
    for path in only:
        if not any(below(name, [path]) for name in names):
            start = f"{path.partition('.')[0]}."
            known = [name for name in names if name.startswith(start)]
            known = known or dict.fromkeys(name.partition(".")[0] for name in names)
            raise UsageError(f"--only {path}: use one of {', '.join(known)}")
    return [name for name in names if not only or below(name, only)]
