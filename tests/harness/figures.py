"""Figures that tests measured, shown together at the end of a run: the README's table of reliability is made from them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One row: a promise, the fault that tried it, how, and what came of it."""

    promise: str
    fault: str
    test: str
    numbers: dict[str, object] = field(default_factory=dict)

    def line(self) -> str:
        """As it stands in the summary."""
        told = " ".join(f"{name}={value}" for name, value in self.numbers.items())
        return f"| {self.promise} | {self.fault} | {self.test} | {told} |"


KEPT: list[Figure] = []


def figure(promise: str, fault: str, test: str, **numbers: object) -> None:
    """Keep one row; a test that reports `lost` or `duplicated` fails here unless both are 0."""
    assert not any(numbers.get(name, 0) for name in ("lost", "duplicated")), (fault, numbers)
    KEPT.append(Figure(promise, fault, test, numbers))
