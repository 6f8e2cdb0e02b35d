"""What a client sends: files and fields of a form, which stay in memory."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cache.support.messages import count, one_line
from show.server.limits import MEGABYTE, Limits

FORM_TYPE = "multipart/form-data"
FIELD_BYTES = 4096
"""Most bytes of a field that is no file."""

MAX_NAME = 200
"""Most characters of a file's name in answers."""


@dataclass(frozen=True)
class Upload:
    """An image file.

    Parameters
    ----------
    name : str
        Its name, without folders.
    content : bytes
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Form:
    """What a client sent.

    Parameters
    ----------
    images : list of Upload
    fields : dict of str to str
        The other fields, by name.
    """

    images: list[Upload]
    fields: dict[str, str]


class _MemoryParser(MultiPartParser):
    """A parser that never writes a file to the disk, and refuses a form without its end."""

    spool_max_size = 0  # as `tempfile.SpooledTemporaryFile` reads it: no limit
    _has_end = False

    def __init__(self, request: Request) -> None:
        headers = Headers({"content-type": request.headers["content-type"]})
        super().__init__(headers, self._read(request), max_part_size=FIELD_BYTES)

    def on_end(self) -> None:
        self._has_end = True

    async def _read(self, request: Request) -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
            yield chunk
        if not self._has_end:
            raise MultiPartException("its end is missing.")


def read_length(request: Request, limits: Limits) -> int:
    """The length of a request's body, from its header.

    Raises
    ------
    HTTPException
        411: it has none. 413: it is too long. 415: the body is no form.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM_TYPE:
        raise HTTPException(415, f"The request has another type; please send a form ({FORM_TYPE}).")
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or "transfer-encoding" in request.headers:
        raise HTTPException(411, "The request does not say how long it is (Content-Length).")
    if len(length) > 15 or int(length) > limits.request_bytes:
        raise HTTPException(413, f"The request is larger than {limits.request_bytes // MEGABYTE:,} MB.")
    return int(length)


async def read_form(request: Request, limits: Limits) -> Form:
    """Read the files and fields of a request.

    Raises
    ------
    HTTPException
        400: the form is damaged, or has no image. 413: there are too many images, or one is too large.
    """
    try:
        form = await _MemoryParser(request).parse()
    except MultiPartException as error:
        raise HTTPException(400, f"The form is damaged: {one_line(error.message)}") from None
    except (LookupError, ValueError):  # a character set that is none
        raise HTTPException(400, "The form is damaged.") from None
    try:
        return _check(form, limits)
    finally:
        await form.close()


def _check(form: FormData, limits: Limits) -> Form:
    """The images and fields of a form, if they are within the limits."""
    items = form.multi_items()
    files = [value for _, value in items if isinstance(value, UploadFile) and (value.filename or value.size)]
    if not files:
        raise HTTPException(400, "There is no image in the form.")
    if len(files) > limits.files:
        raise HTTPException(413, f"{count(len(files), 'image')} in one request; at most {limits.files:,} are allowed.")
    for file in files:
        if (file.size or 0) > limits.file_bytes:
            raise HTTPException(413, f"{_name(file)}: larger than {limits.file_bytes // MEGABYTE:,} MB.")
    fields = {name: value for name, value in items if isinstance(value, str)}
    return Form([Upload(_name(file), file.file.read()) for file in files], fields)


def _name(file: UploadFile) -> str:
    """The name of a file without folders, on one line."""
    name = (file.filename or "").replace("\\", "/").rpartition("/")[2]
    return one_line(name)[:MAX_NAME] or "image"
