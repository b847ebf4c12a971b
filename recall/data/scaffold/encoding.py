"""Detect the encoding of text files."""

import codecs
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from recall.errors import DataError

# Thresholds. Chosen, not tuned.
SAMPLE_BYTES = 64 << 20
"""Bytes read from the first file of a table."""
_GUESS_BYTES = 200_000  # non-ASCII lines that charset-normalizer gets
_MAX_CHAOS = 0.1  # charset-normalizer's measure of disorder, up to which a decoded text is credible
_UNLIKELY = "[\uff61-\uff9f]{3}|[A-Za-z][\u0370-\u04ff]|[\u0370-\u04ff][A-Za-z]"
_EXPECTED_LETTERS = {"cp1251": "[А-Яыьэюя]", "cp1253": "[Α-Ωάέήίόύώ]"}  # Hebrew that is decoded so has none of these
_WRONG_LETTERS = {"cp1255": "[\u05b0-\u05c4]", "euc_kr": "[\u4e00-\u9fff]"}  # of Russian and Chinese that are decoded so
_MIN_NUL_SHARE = 0.2  # share of NUL bytes in UTF-16 of mostly Latin letters, where half are expected
_MIN_LETTERS = 20  # letters from which on a text must have some of _EXPECTED_LETTERS
_MAX_WRONG = 0.1  # share of _WRONG_LETTERS among the letters
_POUNDS = rb"(?<![A-Za-z\x80-\xff])\xa3(?=\s?\d)"  # £ and a price in cp1252, which is Ł in cp1250
_NOT_WESTERN = r"[^\W\d_]{3}[¹³]|[^\W\d_][¹³¿¯¼¾¥£][^\W\d_]|œæ"  # of Polish that is decoded as cp1252
_ENCODINGS: Final = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "iso8859_15", "koi8_r", "cp1255", "cp1256", "cp866", "cp850"),
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
]
CONVERT_HINT = "Convert the file to UTF-8, for instance with iconv"
"""Hint of errors about the encoding."""
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def detect_common_encoding(files: Mapping[Path, bytes]) -> tuple[str, str]:
    """Return the encoding that all files of a table have, and the reason.

    Files in ASCII fit any encoding and are left out.

    Args:
        files: first `SAMPLE_BYTES` of each file, or fewer.

    Raises:
        DataError: The files have different encodings, or an encoding is unknown.
    """
    found = {path: detect_encoding(raw, path) for path, raw in files.items() if not raw.isascii() or b"\0" in raw}
    (first, (encoding, why)), *others = found.items() or [(Path(), ("utf-8", ""))]
    for path, (other, _) in others:
        if encoding != other and "utf-8" in (encoding, other):  # two guesses may differ only because one file has few letters
            reason = f"{other} here, and {encoding} in {first.name}"
            hint = f"Convert all to UTF-8: iconv -f {other if encoding == 'utf-8' else encoding} -t utf-8 FILE > NEW"
            raise DataError("the files of the table have different encodings", where=str(path), why=reason, hint=hint)
    return encoding, why


def detect_encoding(raw: bytes, path: Path) -> tuple[str, str]:
    """Return the encoding of a text, and the reason; the reason is empty for UTF-8.

    Args:
        raw: the text, or its first `SAMPLE_BYTES`.
        path: the file, for errors.

    Raises:
        DataError: No encoding fits.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if raw.startswith(mark):
            return encoding, "its byte order mark says so"
    for place, encoding in enumerate(("utf-16-be", "utf-16-le")):
        if raw[place::2].count(0) > _MIN_NUL_SHARE * len(raw) and b"\0" not in raw[1 - place :: 2]:
            return encoding, "every second byte is 0"
    try:
        decode_sample(raw, "utf-8")
        return "utf-8", ""
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    lines = [line for line in raw.splitlines() if not line.isascii()]
    # distinct non-ASCII cells first: multi-byte scripts are not recognised among repeated cells and ASCII
    cells = dict.fromkeys(cell for line in lines[:_GUESS_BYTES] for cell in re.split(rb'[,;|"\t]', line) if not cell.isascii())
    samples = [b"\n".join(parts)[:_GUESS_BYTES] for parts in (cells, lines)]
    found = []
    for matches in (from_bytes(sample, cp_isolation=list(_ENCODINGS)) for sample in samples):
        credible = (one for one in matches if not _is_unlikely(str(one), one.encoding))
        found += [(matches, match)] if (match := next(credible, None)) is not None else []
    if not found:
        raise DataError("the encoding is unknown", where=str(path), hint=CONVERT_HINT)
    matches, best_match = next((one for one in found if one[1].chaos <= _MAX_CHAOS), found[0])
    non_ascii = samples[1]
    # among encodings that fit equally well, take the most frequent one
    western_matches = [one for one in matches if _ENCODINGS[0] in one.could_be_from_charset]
    as_western = non_ascii.decode(_ENCODINGS[0], "replace")
    tie = any((one.chaos, -one.coherence) <= (best_match.chaos, -best_match.coherence) for one in western_matches)
    encoding = _ENCODINGS[0] if tie and not re.search(_NOT_WESTERN, as_western) else best_match.encoding
    if encoding == "cp1250" and re.search(r"[^\W\d_][¶¦±]|[¶¦±][^\W\d_]", non_ascii.decode(encoding, "replace")):
        encoding = "iso8859_2"  # which has the letters ś, Ś and ą there
    letters = re.sub(_POUNDS, b"", non_ascii)  # if these bytes mean the same in both, nothing speaks for cp1250
    if encoding == "cp1250" and letters.decode(encoding, "replace") == letters.decode(_ENCODINGS[0], "replace"):
        encoding = _ENCODINGS[0]
    if encoding == _ENCODINGS[0] and "¤" in as_western:
        encoding = "iso8859_15"  # which has the sign of the euro there
    if encoding == _ENCODINGS[0] and re.search("[ðýþÐÝÞ]", as_western) and not re.search("[áæíóúÁÆÍÓÚ]", as_western):
        encoding = "cp1254"  # those letters without these are not Icelandic, but Turkish
    decoded = non_ascii.decode(encoding, "replace")
    word = next((word for word in re.findall(r"\w+|\S", decoded) if not word.isascii()), "")
    return encoding, f"the bytes are not UTF-8, and read so they are text such as {word}"


def _is_unlikely(text: str, encoding: str) -> bool:
    """Return whether a decoded text has letters that speak against the encoding.

    Russian in koi8_r is half-width katakana in shift_jis; Turkish in cp1251 mixes scripts; Polish in cp1252 has superscripts.
    """
    if encoding in ("cp1252", "cp1254", "iso8859_15", "cp850") and re.search(_NOT_WESTERN, text):
        return True
    letters = len(re.findall(r"[^\W\d_a-zA-Z]", text))
    if encoding in _EXPECTED_LETTERS and letters > _MIN_LETTERS and not re.search(_EXPECTED_LETTERS[encoding], text):
        return True
    if encoding in _WRONG_LETTERS and len(re.findall(_WRONG_LETTERS[encoding], text)) > _MAX_WRONG * letters:
        return True
    return len(re.findall(_UNLIKELY, text)) >= len(re.findall(r"[^\W_]+", text)) / 2


def decode_sample(raw: bytes, encoding: str) -> str:
    """Decode a text, or the start of a text whose last character may be cut.

    Args:
        raw: the text, or its first `SAMPLE_BYTES`.
        encoding: Python's name of the encoding.
    """
    return codecs.getincrementaldecoder(encoding)().decode(raw, final=len(raw) < SAMPLE_BYTES)
