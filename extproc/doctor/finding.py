"""What the doctor concludes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ailment:
    """What is wrong: the check that found it, its evidence, and what to do."""

    check: str
    evidence: str
    fix: str

    def __str__(self) -> str:
        return f"{self.check}: {self.evidence}; {self.fix}"


@dataclass(frozen=True, slots=True)
class Unchecked:
    """What could not be judged, and why. No fault."""

    check: str
    reason: str

    def __str__(self) -> str:
        return f"{self.check}: not checked: {self.reason}"


Conclusion = Ailment | Unchecked
