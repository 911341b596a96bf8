"""Errors that are printed as one message: what is wrong, where, and how to fix it."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix; printed as one message, never as a traceback.

    ``what`` says what is wrong, ``where`` names the file, line or key, ``fix`` says what to do.
    Exit code 2: the input is invalid, and nothing was computed.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.fix:
            text = f"{text.rstrip('.')}. {self.fix}"
        return text


class RunError(UserError):
    """A run failed after it had started; every finished step is kept. Exit code 1."""

    exit_code = 1
