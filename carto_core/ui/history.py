"""What was chosen before: a bounded line of states with a place on it, to go back and forth on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_STEPS = 50

State = TypeVar("State")


@dataclass(frozen=True)
class History(Generic[State]):
    """States in the order in which they were reached.

    Attributes:
        states: at least one; at most `MAX_STEPS` steps, the oldest are forgotten.
        place: which of them is the present one.
    """

    states: tuple[State, ...]
    place: int = 0

    @property
    def previous(self) -> State | None:
        """The state before the present one, or None."""
        return self.states[self.place - 1] if self.place > 0 else None

    @property
    def next(self) -> State | None:
        """The state that was gone back from, or None."""
        return self.states[self.place + 1] if self.place + 1 < len(self.states) else None

    def stepped(self, state: State) -> History[State]:
        """Return the history after a step to a new state; what had been gone back from is forgotten."""
        states = (*self.states[: self.place + 1], state)[-(MAX_STEPS + 1) :]
        return History(states, len(states) - 1)

    def moved(self, steps: int) -> History[State]:
        """Return the history with another present state; going beyond either end stays there."""
        return History(self.states, min(max(self.place + steps, 0), len(self.states) - 1))
