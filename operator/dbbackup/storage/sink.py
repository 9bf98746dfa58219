"""The thread that compresses and stores the output of a dump."""

from __future__ import annotations

import queue
import threading

from dbbackup.storage.codec import Compressor
from dbbackup.storage.writer import ArtifactWriter

_QUEUED = 8


class Sink:
    """A thread that compresses chunks and hands them to the writer: reading, filtering, compressing
    and sending overlap. Call `close` in any case."""

    def __init__(self, compressor: Compressor, writer: ArtifactWriter) -> None:
        self._compressor = compressor
        self._writer = writer
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._error: BaseException | None = None
        self._finish = False
        self._thread = threading.Thread(target=self._work, name="compress", daemon=True)
        self._thread.start()

    def put(self, chunk: bytes) -> None:
        """Waits while the queue is full. Raises an error of the thread."""
        if self._error:
            raise self._error
        self._queue.put(chunk)

    def finish(self) -> None:
        """Waits until the writer has everything. Raises an error of the thread."""
        self._finish = True
        self.close()
        if self._error:
            raise self._error

    def close(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._error is None:
                self._attempt(chunk)
        if self._finish and self._error is None:
            self._attempt(None)

    def _attempt(self, chunk: bytes | None) -> None:
        try:
            compressed = self._compressor.finish() if chunk is None else self._compressor.feed(chunk)
            if compressed:
                self._writer.write(compressed)
        except BaseException as error:  # noqa: BLE001 - raised again where the chunks come from
            self._error = error
