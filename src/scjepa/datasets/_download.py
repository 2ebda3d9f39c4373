"""Downloads into a cache folder through pooch: checksummed, atomic, with a message that helps when there is no network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from scjepa._checks import require_member


class Source(NamedTuple):
    """Where a file comes from and how to know that it is the right one."""

    url: str
    """Public address."""
    file_name: str
    """Name in the cache folder."""
    checksum: str
    """``"md5:..."`` or ``"sha256:..."``; empty where none is published: then any file of the name is taken."""
    size: str
    """For people: ``"0.7 GB"``."""


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of downloads: ``cache_dir``, else the variable ``SCJEPA_CACHE``, else the system's cache folder.

    Examples
    --------
    >>> from scjepa.datasets._download import cache_folder
    >>> cache_folder("data").as_posix()
    'data'
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    named = os.environ.get("SCJEPA_CACHE")
    return Path(named).expanduser() if named else Path(_pooch().os_cache("scjepa"))


def _pooch() -> Any:
    """Import pooch, an optional dependency."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "downloads need the package pooch: pip install 'scjepa[datasets]' (or pip install pooch)."
        ) from error
    return pooch


def fetch(
    source: Source, cache_dir: str | os.PathLike[str] | None = None, *, progressbar: bool = True, timeout: float = 60
) -> Path:
    """Return the path of a file in the cache folder, downloaded first if it is not there.

    A file of the right name is used if its checksum is right, without any request. A download is written next to its
    place, checked, and moved there: an interrupted one leaves nothing behind.

    Parameters
    ----------
    source
        What to fetch.
    cache_dir
        Folder of downloads, see :func:`cache_folder`.
    progressbar
        Whether to show one.
    timeout
        Seconds without an answer after which a server counts as out of reach.

    Raises
    ------
    ConnectionError
        If the server can't be reached or refuses; the message says how to place the file by hand.
    ValueError
        If what was downloaded, or a file that was placed by hand, has another checksum.
    ImportError
        If pooch is not installed.
    """
    folder = cache_folder(cache_dir)
    target = folder / source.file_name
    kind, _, digest = source.checksum.partition(":")
    if source.checksum:
        require_member(kind, ["md5", "sha256"], "checksum")
    pooch = _pooch()
    if target.exists():
        if not source.checksum:
            return target
        found = pooch.file_hash(str(target), alg=kind)
        if found == digest:
            return target
        raise ValueError(
            f"{target} is not the expected file: its {kind} is {found}, expected {digest}. Delete it to download it "
            f"again, or put the file of {source.url} in its place."
        )
    from requests.exceptions import RequestException

    # figshare and others refuse clients without a name
    downloader = pooch.HTTPDownloader(progressbar=progressbar, timeout=timeout, headers={"User-Agent": "scjepa"})
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # the progress bar says it
    try:
        pooch.retrieve(source.url, source.checksum or None, source.file_name, folder, downloader=downloader)
    except (RequestException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        check = f" ({kind} {digest})" if source.checksum else ""
        raise ConnectionError(
            f"could not download {source.url} ({source.size}): {reason[:200]}. Without a network, fetch the file "
            f"elsewhere and save it as {target}{check}, or name the folder that holds "
            f"{source.file_name}: cache_dir=..."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"what {source.url} sent is not the expected file: its {kind} differs from {digest}. Nothing was kept. "
            "Try again; if it happens again, the file at this address has changed."
        ) from error
    finally:
        logger.setLevel(level)
    return target
