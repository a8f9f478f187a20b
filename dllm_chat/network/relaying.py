"""Sharing one bundle with people who are not in one local network: both sides meet at a relay, which sees seals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from dllm_protocol.errors import NotFound, TimedOut
from dllm_protocol.invitation import bundle_hash_of
from dllm_protocol.relay import name_address
from dllm_protocol.relay_invitation import BundleReader, RelayInvitation, relay_hint_of, sealed_parts
from light_node.relay.connection import RelayStream, dial
from light_node.relay.errors import NobodyListens, RelayTimedOut, StreamLost
from light_node.relay.listening import ByName, RelayListener
from light_node.relay.urls import RelayUrl

STREAMS_MAX = 32
"""People who fetch at once."""
GIVE_S = 60.0
"""For one of them to take all of it."""
FETCH_S = 30.0


class RelayedBundle:
    """Gives one public file to whoever knows its code. Nothing can be asked, changed or found here besides."""

    def __init__(self, raw: bytes, url: RelayUrl, on_news: Callable[[str], None]) -> None:
        """Prepare; nothing is connected before `start`.

        Args:
            on_news: is told when the relay is lost, and when it is there again.
        """
        self._raw = raw
        self.invitation = RelayInvitation(bundle_hash_of(raw), relay_hint_of(url.name))
        """What people need to be told."""
        who = ByName(self.invitation.meeting)
        self._listener = RelayListener(url, who, self._give, streams_max=STREAMS_MAX, on_news=on_news)
        self.served = 0
        """How many times the bundle was fetched."""

    async def start(self) -> None:
        """Listen at the relay.

        Raises:
            RelayUnreachable, RelayRefused, RelayTimedOut, RelayBroke
        """
        await self._listener.start()

    async def run(self) -> None:
        """Serve until cancelled; a lost connection is made anew. Raises RelayBroke."""
        await self._listener.run()

    async def stop(self) -> None:
        """Serve no more."""
        await self._listener.close()

    async def _give(self, stream: RelayStream) -> None:
        try:
            async with asyncio.timeout(GIVE_S):
                for part in sealed_parts(self._raw, self.invitation):
                    await stream.send(part)
                await stream.end()
                with contextlib.suppress(StreamLost):
                    # Who fetches sends nothing, and closes when it has read everything.
                    await stream.read()
        except TimeoutError as error:
            raise RelayTimedOut(f"a guest did not take the bundle within {GIVE_S:g} s") from error
        self.served += 1


async def fetch_through_relay(url: RelayUrl, invitation: RelayInvitation, bytes_max: int) -> bytes:
    """The bundle that a code names.

    Raises:
        NotFound: nobody invites under this code at this relay.
        InvitationRefused: what comes is not that bundle.
        TimedOut: it does not come in the time allowed.
        RelayUnreachable, RelayRefused, RelayBroke, StreamLost
    """
    reader = BundleReader(invitation, f"the relay {url.name}", bytes_max)
    try:
        async with asyncio.timeout(FETCH_S):
            stream = await dial(url, name_address(invitation.meeting))
            try:
                while (part := await stream.read()) is not None:
                    reader.take(part)
            except BaseException:
                stream.abort()
                raise
            await stream.close()
    except TimeoutError as error:
        raise TimedOut(
            f"the relay {url.name} gave {reader.received_bytes} bytes and no whole bundle within {FETCH_S:g} s",
            hint="try again; if that does not help, the relay or your friend's line is slow: use another relay",
        ) from error
    except NobodyListens as error:
        raise _nobody(url, invitation) from error
    except StreamLost as error:
        raise StreamLost(
            f"{error.message}, after {reader.received_bytes} bytes of the bundle",
            hint="is your friend's `dllm network invite` still running? then try again",
        ) from error
    return reader.finish()


def _nobody(url: RelayUrl, invitation: RelayInvitation) -> NotFound:
    if relay_hint_of(url.name) != invitation.relay_hint:
        return NotFound(
            f"nobody invites under this code at {url.name}, and the code was made for another relay",
            hint="use --relay with the address that your friend's command shows",
        )
    return NotFound(
        f"nobody invites under this code at {url.name}",
        hint="the invitation is over, or its machine is offline: ask for a new one",
    )
