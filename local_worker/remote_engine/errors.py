"""What a remote server can refuse or do wrong, each as a leaf below the engine's own errors.

So a session hears of it as of any engine: busy, out of context, failed, gone. What the server said is quoted in ASCII
and cut; a key never stands in it.
"""

from __future__ import annotations

from local_worker.engine import errors

QUOTED_CHARACTERS = 160


def quoted(words: str) -> str:
    """A stranger's words as they may stand in a message."""
    return ascii(words if len(words) <= QUOTED_CHARACTERS else words[:QUOTED_CHARACTERS] + "…")


class RemoteUnreachable(errors.EngineGone):
    """Nobody answers at the server's address, or the connection broke before an answer."""

    code = "E_REMOTE_UNREACHABLE"


class RemoteTimedOut(errors.EngineGone):
    """The server took the request and did not answer in time."""

    code = "E_REMOTE_TIMEOUT"


class RemoteKeyRefused(errors.EngineGone):
    """The server wants a key, or another one."""

    code = "E_REMOTE_KEY"


class RemoteModelChanged(errors.EngineGone):
    """The server answers for another model than when it was examined."""

    code = "E_REMOTE_MODEL"


class RemoteBusy(errors.EngineBusy):
    """The server has no room now, asked several times.

    Attributes:
        retry_after_s: how long it wants to be left alone; 0 where it does not say.
    """

    code = "E_REMOTE_BUSY"
    retry_after_s = 0.0


class RemoteContextFull(errors.ContextFull):
    """The server's context is shorter than what was asked."""

    code = "E_REMOTE_CONTEXT"


class RemoteRefused(errors.DecodeFailed):
    """The server refuses the request, or failed over it, and says so."""

    code = "E_REMOTE_REFUSED"


class RemoteMalformed(errors.DecodeFailed):
    """The server's answer is not what the interface promises: no JSON, too large, no rows, numbers that cannot be."""

    code = "E_REMOTE_MALFORMED"


class RemoteCutOff(errors.DecodeFailed):
    """The server closed in the middle of an answer."""

    code = "E_REMOTE_CUT_OFF"


class RemoteTokenUnclear(errors.DecodeFailed):
    """The server's likeliest token is named by a text that is not one token's alone."""

    code = "E_REMOTE_TOKEN"


class RemoteTextUnclear(errors.DecodeFailed):
    """The server takes text only, and these rows' text is read as other tokens."""

    code = "E_REMOTE_TEXT"


class RemoteDisagrees(errors.DecodeFailed):
    """The server's tokens are not those of the model file here."""

    code = "E_REMOTE_DISAGREES"


class RemoteUnfit(errors.ModelRefused):
    """The server cannot be served from: another model, or answers that lack what a client needs."""

    code = "E_REMOTE_UNFIT"
