"""What a person is shown when something is wrong: what, where, and what to do. Nothing else."""

from __future__ import annotations


class UserError(Exception):
    """Something that the person can mend; printed as one message, never as a traceback.

    ``what`` says what is wrong, ``where`` names the file, line or key, ``fix`` says what to do.
    Exit code 2: the input was bad, nothing was spent.
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
    """A run failed after it had begun; all it had finished is kept. Exit code 1."""

    exit_code = 1
