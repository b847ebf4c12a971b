"""Detect the encoding of text files."""

import codecs
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from recall.errors import DataError

# Thresholds. Chosen, not tuned.
SAMPLE = 64 << 20
"""Bytes of a file that are read."""
_UNUSUAL = 200_000  # bytes of lines outside ASCII from which the encoding is guessed
_CHAOS = 0.1  # disorder of a decoded text up to which it is credible; the measure of charset-normalizer
_UNLIKELY = "[\uff61-\uff9f]{3}|[A-Za-z][\u0370-\u04ff]|[\u0370-\u04ff][A-Za-z]"
_USUAL = {"cp1251": "[А-Яыьэюя]", "cp1253": "[Α-Ωάέήίόύώ]"}  # Hebrew, read so, has none
_RARE = {"cp1255": "[\u05b0-\u05c4]", "euc_kr": "[\u4e00-\u9fff]"}  # which Russian and Chinese, read so, have
_NULS = 0.2  # share of the bytes that are 0 in UTF-16 of mostly Latin letters, which has half. Chosen, not tuned.
_LETTERS, _RARELY = 20, 0.1  # letters from which on a text has the usual ones, and share of the rare ones. Chosen, not tuned.
_NOT_WEST = r"[^\W\d_]{3}[¹³]|[^\W\d_][¹³¿¯¼¾¥£][^\W\d_]|œæ"  # Polish read as cp1252
_ENCODINGS: Final = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "iso8859_15", "koi8_r", "cp1255", "cp1256", "cp866", "cp850"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
CONVERT = "Convert the file to UTF-8, for instance with iconv"
"""Hint where an encoding is not read."""
_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def common_encoding(files: Mapping[Path, bytes]) -> tuple[str, str]:
    """Return the encoding of the files of a table, and why; ASCII fits any.

    Args:
        files: the first `SAMPLE` bytes of each, or fewer.

    Raises:
        DataError: They have different encodings, or one that is unknown.
    """
    found = {path: encoding_of(raw, path) for path, raw in files.items() if not raw.isascii() or b"\0" in raw}
    (first, (encoding, why)), *others = found.items() or [(Path(), ("utf-8", ""))]
    for path, (other, _) in others:
        if encoding != other and "utf-8" in (encoding, other):  # other guesses may differ where few letters tell
            reason = f"{other} here, and {encoding} in {first.name}"
            hint = f"Convert all to UTF-8: iconv -f {other if encoding == 'utf-8' else encoding} -t utf-8 FILE > NEW"
            raise DataError("the files of the table have different encodings", where=str(path), why=reason, hint=hint)
    return encoding, why


def encoding_of(raw: bytes, path: Path) -> tuple[str, str]:
    """Return the encoding of a text, and why.

    Args:
        raw: the text, or the first `SAMPLE` bytes of it.
        path: names the file in errors.

    Raises:
        DataError: No encoding fits.
    """
    for mark, encoding in _MARKS.items():
        if raw.startswith(mark):
            return encoding, "its byte order mark says so"
    for place, encoding in enumerate(("utf-16-be", "utf-16-le")):
        if raw[place::2].count(0) > _NULS * len(raw) and b"\0" not in raw[1 - place :: 2]:
            return encoding, "every second byte is 0"
    try:
        decoded(raw, "utf-8")
        return "utf-8", ""
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    lines = [line for line in raw.splitlines() if not line.isascii()]
    # each cell once: among repeated ones, and among ASCII, scripts of several bytes a character are not recognised
    cells = dict.fromkeys(cell for line in lines[:_UNUSUAL] for cell in re.split(rb'[,;|"\t]', line) if not cell.isascii())
    ways = [b"\n".join(parts)[:_UNUSUAL] for parts in (cells, lines)]
    found = []
    for matches in (from_bytes(way, cp_isolation=list(_ENCODINGS)) for way in ways):
        likely = (one for one in matches if not _unlikely(str(one), one.encoding))
        found += [(matches, best)] if (best := next(likely, None)) is not None else []
    if not found:
        raise DataError("the encoding is unknown", where=str(path), hint=CONVERT)
    matches, chosen = next((one for one in found if one[1].chaos <= _CHAOS), found[0])
    unusual = ways[1]
    # of encodings that fit equally well the most frequent one
    usual = [one for one in matches if _ENCODINGS[0] in one.could_be_from_charset]
    west = unusual.decode(_ENCODINGS[0], "replace")
    tie = any((one.chaos, -one.coherence) <= (chosen.chaos, -chosen.coherence) for one in usual)
    encoding = _ENCODINGS[0] if tie and not re.search(_NOT_WEST, west) else chosen.encoding
    if encoding == _ENCODINGS[0] and "¤" in west:
        encoding = "iso8859_15"  # which has the sign of the euro there
    if encoding == _ENCODINGS[0] and re.search("[ðýþÐÝÞ]", west) and not re.search("[áæíóúÁÆÍÓÚ]", west):
        encoding = "cp1254"  # those letters without these are not Icelandic, but Turkish
    word = next((word for word in re.findall(r"\w+", unusual.decode(encoding, "replace")) if not word.isascii()), "")
    return encoding, f"the bytes are not UTF-8, and read so they are text such as {word}"


def _unlikely(text: str, encoding: str) -> bool:
    """Return whether a decoded text has letters as hardly any text does.

    Russian in koi8_r is half-width katakana in shift_jis; Turkish in cp1251 mixes scripts; Polish in cp1252 has superscripts.
    """
    if encoding in ("cp1252", "cp1254", "iso8859_15", "cp850") and re.search(_NOT_WEST, text):
        return True
    letters = len(re.findall(r"[^\W\d_a-zA-Z]", text))
    if encoding in _USUAL and letters > _LETTERS and not re.search(_USUAL[encoding], text):
        return True
    if encoding in _RARE and len(re.findall(_RARE[encoding], text)) > _RARELY * letters:
        return True
    return len(re.findall(_UNLIKELY, text)) >= len(re.findall(r"[^\W_]+", text)) / 2


def decoded(raw: bytes, encoding: str) -> str:
    """Decode a text; the last character of a part of a text may be cut.

    Args:
        raw: the text, or its first `SAMPLE` bytes.
        encoding: as Python names it.
    """
    return codecs.getincrementaldecoder(encoding)().decode(raw, final=len(raw) < SAMPLE)
