"""One line of the doctor's report, and how all of them end."""

from dataclasses import dataclass, field

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
NAME_WIDTH = 18


@dataclass(frozen=True)
class Check:
    """What was looked at and what came of it.

    Attributes
    ----------
    name : str
    verdict : str
        OK, FAILED or SKIPPED.
    text : str
        Figures; for the two others the reason.
    values : dict
        The same figures for programs.
    """

    name: str
    verdict: str
    text: str
    values: dict = field(default_factory=dict)

    def line(self):
        """One line of the screen (str)."""
        return f"{self.verdict:<8} {self.name:<{NAME_WIDTH}} {' '.join(self.text.split())}"

    def to_json(self):
        """For ``--json`` (dict)."""
        return {"check": self.name, "verdict": self.verdict, "text": self.text} | self.values


def judged(name, good, text, **values):
    """A Check that is OK or FAILED."""
    return Check(name, OK if good else FAILED, text, values)


def skipped(name, why):
    """A Check that was not done."""
    return Check(name, SKIPPED, why)


def verdict(checks):
    """(whether nothing failed, last line of the report)."""
    failed = [check.name for check in checks if check.verdict == FAILED]
    if failed:
        return False, f"verdict: failed: {', '.join(dict.fromkeys(failed))}"
    good, left = (sum(check.verdict == kind for check in checks) for kind in (OK, SKIPPED))
    return True, f"verdict: ok: {good} checks passed, {left} skipped"
