"""Pays from the faucet's account: one transaction at a time, each followed until it is proved what became of it."""

from __future__ import annotations

import asyncio

from dllm_protocol.actions import Transfer
from dllm_protocol.address import address_of
from dllm_protocol.signing import Signer
from dllm_protocol.transaction import Transaction, TransactionBody, sign_transaction
from full_node.faucet.errors import FaucetBusy
from light_node.queries import ProvedReads
from light_node.sending import Sender, Sent

MAX_WAITING = 16
MEMO = "faucet"


class FaucetAccount:
    """The faucet's account as a `light_node.sending.TransactionSigner`."""

    def __init__(self, key: Signer) -> None:
        self._key = key
        self.public_key = key.public_key
        self.account = address_of(key.public_key)

    def sign(self, body: TransactionBody) -> Transaction:
        """Sign a body with the account's key."""
        return sign_transaction(self._key, body)


class Payer:
    """Gives the same amount each time."""

    def __init__(self, reads: ProvedReads, sender: Sender, account: FaucetAccount, amount_udllm: int) -> None:
        self._reads = reads
        self._sender = sender
        self._account = account
        self._sending = asyncio.Lock()
        self._waiting = 0
        self.amount_udllm = amount_udllm

    @property
    def address(self) -> bytes:
        """The account that gives (20 bytes)."""
        return self._account.account

    async def give(self, recipient: bytes) -> Sent:
        """Pay one recipient; returns when it is proved.

        Raises:
            FaucetBusy: too many wait already.
            And what `Sender.send` raises.
        """
        if self._waiting >= MAX_WAITING:
            raise FaucetBusy(f"{self._waiting} others wait for their tokens", hint="ask again in a minute")
        self._waiting += 1
        try:
            async with self._sending:
                return await self._sender.send(
                    self._account, (Transfer(recipient, self.amount_udllm),), memo=MEMO
                )
        finally:
            self._waiting -= 1

    async def balance_udllm(self) -> int:
        """What there is left to give, proved."""
        found = await self._reads.account(self.address)
        return found.balance_udllm if found else 0
