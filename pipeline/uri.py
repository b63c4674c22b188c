"""Camera addresses: their schemes, and how they are shown without user and password."""

from pipeline.redaction import HIDDEN

NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
SCHEMES = (*NETWORK_SCHEMES, "sdp", "file", "v4l2", "demo")


def public_uri(uri: str) -> str:
    """Without user and password, also where they hold unescaped characters: all up to the last @ is taken for them.

    Without the query, too: some cameras take user and password there.  What has no known scheme may still hold them.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator and uri.partition(":")[0] in SCHEMES:
        return uri
    place, question, _ = (rest if separator else uri).rpartition("@")[2].partition("?")
    return (f"{scheme}://" if separator else "") + place + (f"?{HIDDEN}" if question else "")
