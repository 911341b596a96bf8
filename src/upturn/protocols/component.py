"""What every component declares."""

from __future__ import annotations


class Component:
    """What every component declares. A subclass overrides a property by a class variable, a field or a property."""

    @property
    def several_sizes(self) -> bool:
        """Whether it takes images of several sizes in one run. A run with such images refuses it where it does not."""
        return False

    @property
    def models_used(self) -> tuple[str, ...]:
        """The names under the recipe's ``models:`` that it asks :class:`Tools` for; a missing one is refused early."""
        return ()
