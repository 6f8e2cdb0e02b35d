"""What a killed process leaves behind: checkpoints of a training, from which the next one continues, and leftovers."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cache.lock import locked
from cache.support.errors import RunError, UserError
from heads.runs.folder import TEMPORARY


@dataclass(frozen=True)
class Training:
    """The checkpoints of one request. Whoever changes them holds the lock of the run.

    Parameters
    ----------
    folder : Path
        ``RUN.training``.
    name : str
        Digest of what decides the head.
    """

    folder: Path
    name: str

    @classmethod
    def of(cls, run: Path, name: str) -> "Training":
        """The checkpoints beside the folder of a run."""
        return cls(run.with_name(f"{run.name}.training"), name)

    @property
    def checkpoint(self) -> Path:
        """The state after the last epoch."""
        return self.folder / f"{self.name}.h5"

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Remove what the block has made if it is refused: that would lead to the same end again.

        What a killed process had not finished is removed first.
        """
        self._remove_unfinished()
        before = set(self.folder.glob("*"))
        try:
            yield
        except UserError:
            for path in set(self.folder.glob("*")) - before:
                path.unlink()
            if not before and self.folder.is_dir():
                self.folder.rmdir()
            raise

    @property
    def is_left(self) -> bool:
        """Whether there is something to remove; checkpoints of other requests stay."""
        files = list(self.folder.glob("*"))
        return self.folder.is_dir() and (
            not files or any(path.name.lstrip(".").startswith(self.name) for path in files)
        )

    def remove(self) -> None:
        """Remove the checkpoints of this request, and the folder if it is empty then."""
        self._remove_unfinished()
        for path in self.folder.glob(f"{self.name}.*"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _remove_unfinished(self) -> None:
        for path in self.folder.glob(TEMPORARY):
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, training: Training | None = None) -> None:
    """Remove what a killed process has left in and beside the folder of a finished run.

    Whoever writes a run removes it anyway. A command that finds its work done takes no lock, because the run may be on
    a read-only disk. So this one takes it where there is something to remove, and nobody holds it.

    Parameters
    ----------
    folder : Path
        The run.
    training : Training, optional
        Its checkpoints, which are needless once it is finished.
    """
    lock = folder.with_name(f".{folder.name}.lock")
    if not (lock.exists() or any(folder.glob(TEMPORARY)) or (training and training.is_left)):
        return
    with suppress(RunError, OSError), locked(folder, RunError):  # taking the lock removes all but the checkpoints
        if training:
            training.remove()
