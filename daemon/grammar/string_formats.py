"""JSON Schema's string formats as patterns: every text that fits one is of that format, and is of sensible length.

What is left out: the internationalised formats (idn-email, iri …) and regex. A format that says nothing about the text
(``password``) is none here.
"""

_YEAR = r"(?:[1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])"
_LEAP = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    rf"|02-(?:0[1-9]|1\d|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d"
_TIME = rf"{_CLOCK}:[0-5]\d(?:\.\d{{1,6}})?(?:Z|[+-]{_CLOCK})"
_TIME_SPAN = r"T(?:\d{1,6}H(?:\d{1,6}M(?:\d{1,6}S)?)?|\d{1,6}M(?:\d{1,6}S)?|\d{1,6}S)"
_DATE_SPAN = r"(?:\d{1,6}Y(?:\d{1,6}M(?:\d{1,6}D)?)?|\d{1,6}M(?:\d{1,6}D)?|\d{1,6}D)"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,14}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9_+-]"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_HEX = r"[0-9a-fA-F]"
_GROUP = rf"{_HEX}{{1,4}}"
_IPV6 = "|".join(
    [rf"(?:{_GROUP}:){{7}}{_GROUP}", r"::"]
    + [rf"(?:{_GROUP}:){{{n}}}(?::{_GROUP}){{1,{7 - n}}}" for n in range(1, 7)]
    + [rf"(?:{_GROUP}:){{1,7}}:", rf":(?::{_GROUP}){{1,7}}"]
)
_URL_CHAR = r"[A-Za-z0-9._~!$&'()*+,;=:@/-]"
_HOST = rf"{_LABEL}(?:\.{_LABEL})"

_PATTERNS = {
    "date": rf"^{_DATE}$",
    "time": rf"^{_TIME}$",
    "date-time": rf"^{_DATE}T{_TIME}$",
    "duration": rf"^P(?:\d{{1,6}}W|{_DATE_SPAN}(?:{_TIME_SPAN})?|{_TIME_SPAN})$",
    "uuid": rf"^{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}$",
    # pydantic's own: a UUID of one version (RFC 4122 §4.1.3).
    **{
        f"uuid{version}": rf"^{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}$"
        for version in range(1, 9)
    },
    "email": rf"^{_ATOM}{{1,20}}(?:\.{_ATOM}{{1,20}}){{0,2}}@{_HOST}{{0,3}}\.[A-Za-z]{{2,12}}$",
    "hostname": rf"^{_HOST}{{0,7}}$",
    "ipv4": rf"^{_BYTE}(?:\.{_BYTE}){{3}}$",
    "ipv6": rf"^(?:{_IPV6})$",
    "uri": (
        rf"^[a-z]{{2,10}}://{_HOST}{{0,4}}(?::[1-9]\d{{0,3}})?"
        rf"(?:/{_URL_CHAR}{{0,100}})?(?:\?{_URL_CHAR}{{0,100}})?(?:#{_URL_CHAR}{{0,40}})?$"
    ),
}
_LONGEST = {"email": 143, "hostname": 135, "uri": 345}
"""The longest text of each pattern that is longer than what a maxLength is for."""

FORMATS = tuple(sorted(_PATTERNS))
"""RFC 3339 §5.6 and appendix A, RFC 4122, 5321 (dot-atoms only), 1123, 2673, 4291, 3986 (no escapes)."""

SAYS_NOTHING = frozenset({"password", "path", "file-path", "directory-path", "binary"})
"""Formats that any text fits: hints for forms, and what pydantic writes for types without a syntax of their own."""


def format_pattern(name: str, most: int | None) -> str | None:
    """Return the pattern of a format in ``FORMATS`` for texts of at most ``most`` characters, None when none fits.

    A short text gets a simpler pattern that keeps within the length by itself: counting characters on top of the full
    one would multiply its states.
    """
    if most is None or most >= _LONGEST.get(name, 0):
        return _PATTERNS[name]
    if name == "hostname":
        half = min((most - 1) // 2, 63)
        second = rf"(?:\.[A-Za-z0-9]{{1,{half}}})?" if half else ""
        return rf"^[A-Za-z0-9]{{1,{half or most}}}{second}$" if most else None
    if name == "email":
        before = min((most - 4) // 2, 40)
        return (
            rf"^{_ATOM}{{1,{before}}}@[A-Za-z0-9]{{1,{min(most - 4 - before, 40)}}}\.[A-Za-z]{{2}}$"
            if before > 0
            else None
        )
    host, path = min(most - 12, 30), most - 43
    rest = rf"(?:/{_URL_CHAR}{{0,{path}}})?" if path >= 0 else ""
    return rf"^https?://[A-Za-z0-9]{{1,{host}}}\.[A-Za-z]{{2,3}}{rest}$" if host > 0 else None
