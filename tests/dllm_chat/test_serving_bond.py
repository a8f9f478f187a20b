"""What a worker's owner has to send, and whether it can be sent, before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dllm_chat.dispatch.purse import ChatKeyPurse, WalletPurse
from dllm_chat.embedded.chain import LOCAL_PARAMS
from dllm_chat.serving_bond import OPERATOR_MONEY_UDLLM, missing_on_chain
from dllm_chat.session.conversation import Chain
from dllm_protocol.actions import BondProvider, RegisterProvider, Transfer
from dllm_protocol.address import provider_id_of
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.encoding import Record
from dllm_protocol.errors import WalletLocked
from dllm_protocol.receipt import BADGE_LOCAL
from dllm_protocol.refusals import InsufficientFunds

OWNER, OPERATOR = b"\1" * 20, b"\2" * 20
KEYS = {"operator": OPERATOR, "service_key": b"\3" * 32, "sealing_key": b"\4" * 32}
BOND_UDLLM, FEE_UDLLM = LOCAL_PARAMS.provider_bond_udllm, 5


class OwnersChain:
    """A chain with accounts and providers, as far as registering looks at it; sending is remembered."""

    def __init__(self, purse: type = WalletPurse, operator_udllm: int = 0) -> None:
        self.prefix = "local"
        self.balances = {OWNER: 10 * BOND_UDLLM, OPERATOR: operator_udllm}
        self.is_registered = False
        self.bond_udllm = BOND_UDLLM
        self.sent: list[Record] = []
        self.purse = object.__new__(purse)
        self.purse.account = OWNER
        self.reads = self.sender = self

    async def account(self, address: bytes) -> Any:
        found = self.balances.get(address)
        return None if found is None else SimpleNamespace(balance_udllm=found)

    async def provider(self, provider: bytes) -> Any:
        return SimpleNamespace(bond_udllm=self.bond_udllm) if self.is_registered else None

    async def fee_of(self, signer: object, actions: Sequence[Record]) -> int:
        return FEE_UDLLM

    async def send(self, signer: object, actions: Sequence[Record]) -> None:
        self.sent += actions
        self.is_registered = True

    @property
    def chain(self) -> Chain:
        return cast(Chain, self)


def bundle(badge: int = BADGE_LOCAL) -> NetworkBundle:
    return cast(NetworkBundle, SimpleNamespace(badge=badge, genesis=SimpleNamespace(params=LOCAL_PARAMS)))


async def test_a_new_worker_takes_a_bond_and_its_operators_fees() -> None:
    found = OwnersChain()
    missing = await missing_on_chain(found.chain, bundle(), KEYS, brings_model=False)
    transfer, registration = missing.actions
    assert transfer == Transfer(OPERATOR, OPERATOR_MONEY_UDLLM)
    assert isinstance(registration, RegisterProvider) and registration.bond_udllm == BOND_UDLLM
    assert missing.is_new and missing.amount_udllm == OPERATOR_MONEY_UDLLM + BOND_UDLLM
    await missing.check(found.chain)
    assert found.sent == []
    await missing.send(found.chain)
    assert found.sent == list(missing.actions)


@pytest.mark.parametrize("left_udllm", [0, 1, BOND_UDLLM - 1])
async def test_a_provider_that_left_posts_what_its_bond_lacks(left_udllm: int) -> None:
    found = OwnersChain(operator_udllm=OPERATOR_MONEY_UDLLM)
    found.is_registered, found.bond_udllm = True, left_udllm
    missing = await missing_on_chain(found.chain, bundle(), KEYS, brings_model=False)
    (bond,) = missing.actions
    assert bond == BondProvider(provider_id_of(OWNER, OPERATOR), BOND_UDLLM - left_udllm)
    assert missing.amount_udllm == BOND_UDLLM - left_udllm and not missing.is_new


async def test_a_model_of_ones_own_takes_its_bond_on_the_embedded_network_only() -> None:
    for badge, more_udllm in ((BADGE_LOCAL, LOCAL_PARAMS.model_bond_udllm), (BADGE_LOCAL + 1, 0)):
        missing = await missing_on_chain(OwnersChain().chain, bundle(badge), KEYS, brings_model=True)
        assert missing.actions[0] == Transfer(OPERATOR, OPERATOR_MONEY_UDLLM + more_udllm)


async def test_a_worker_that_is_known_and_has_money_takes_nothing() -> None:
    found = OwnersChain(ChatKeyPurse, OPERATOR_MONEY_UDLLM)
    found.is_registered = True
    missing = await missing_on_chain(found.chain, bundle(), KEYS, brings_model=False)
    assert missing.actions == () and not missing.is_new
    await missing.check(found.chain)
    await missing.send(found.chain)
    assert found.sent == []


async def test_a_chat_key_is_refused_with_what_a_screen_cannot_do_but_a_terminal_can() -> None:
    found = OwnersChain(ChatKeyPurse)
    missing = await missing_on_chain(found.chain, bundle(), KEYS, brings_model=False)
    with pytest.raises(WalletLocked) as caught:
        await missing.check(found.chain)
    assert caught.value.hint == "in a terminal: dllm worker on (it asks for the wallet's password)"


async def test_an_account_that_has_too_little_is_refused_with_both_amounts() -> None:
    found = OwnersChain()
    missing = await missing_on_chain(found.chain, bundle(), KEYS, brings_model=False)
    found.balances[OWNER] = missing.amount_udllm + FEE_UDLLM
    await missing.check(found.chain)
    found.balances[OWNER] -= 1
    with pytest.raises(InsufficientFunds, match=r"serving takes \d.* DLLM.*the account has \d"):
        await missing.check(found.chain)
