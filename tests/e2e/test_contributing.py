"""The contribute-GPU toggle: the person's own worker serves strangers, earns, and goes without a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from benchmarks.random_model import make_random_llama
from dllm_chat.embedded.chain import LOCAL_PARAMS
from dllm_protocol.address import PROVIDER_SUFFIX, decode_address
from dllm_protocol.units import UDLLM_PER_DLLM
from tests.e2e.machine import END_S, ENGINE, GREEDY, PATIENCE_S, WORKER, Machine, ask, soon

QUESTION = "What is DLLM?"


def own_status(machine: Machine) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads((machine.embedded / "worker-own" / "status.json").read_text())
    except OSError:
        return {}
    return found


async def test_the_own_worker_serves_and_earns_and_leaves_no_process(machine: Machine) -> None:
    async with machine.terminal() as service:
        chain = service.chain
        assert (await service.worker_status()).state == "off"
        await service.worker_on()
        await soon(
            lambda: own_status(machine).get("state") == "serving", PATIENCE_S, "the own worker serving"
        )
        status = await service.worker_status()
        assert status.running and status.state == "serving" and status.model == "guide"

        # Registered under the person's own account, with its bond, by proof.
        provider = decode_address(status.provider, chain.prefix + PROVIDER_SUFFIX)
        proved = await chain.reads.provider(provider)
        assert proved is not None and proved.owner == chain.purse.account
        assert proved.bond_udllm == LOCAL_PARAMS.provider_bond_udllm
        account = await chain.reads.account(chain.purse.account)
        assert account is not None and account.balance_udllm < 1_000 * UDLLM_PER_DLLM - proved.bond_udllm

        # Asked for it by leaving out the other two.
        book = await chain.reads.offer_book("guide")
        deadline = 20
        while provider not in {entry.provider for entry in book.entries}:
            await chain.reads.client.clock.sleep(0.3)
            deadline -= 1
            assert deadline, "its offer never came into a book"
            book = await chain.reads.offer_book("guide")
        others = tuple(sorted({entry.provider for entry in book.entries} - {provider}))
        answer = (await ask(service, QUESTION, options=replace(GREEDY, exclude=others))).answer
        assert [share.address for share in answer.providers] == [status.provider]
        await soon(
            lambda: int(str(own_status(machine)["earned_unclaimed_udllm"])) > 0, PATIENCE_S, "earnings shown"
        )
        assert (await service.balance()).earned_unclaimed_udllm > 0
        assert (await service.worker_status()).earned_udllm > 0

        (pid,) = machine.pids(WORKER, "worker-own ")
        await service.worker_off()
        assert not machine.pids(WORKER, "worker-own ")
        await soon(lambda: len(machine.pids(ENGINE)) == 2, END_S, "the end of its engine")
        assert pid not in machine.processes()
        assert (await service.worker_status()).state == "off"
        # On its way out it claimed what it was owed; its owner has that, by proof.
        session = await chain.reads.session(
            chain.sessions.store.all(service.chain_id, chain.purse.account, open_only=True)[0].route.session
        )
        assert session is not None and session.spent_udllm > 0

        # On again: the same provider, no second bond.
        await service.worker_on()
        await soon(
            lambda: own_status(machine).get("state") == "serving", PATIENCE_S, "the own worker serving again"
        )
        assert (await service.worker_status()).provider == status.provider
        await service.worker_off()


async def test_a_model_of_ones_own_is_registered_and_served_in_the_packages_place(
    machine: Machine, tmp_path: Path
) -> None:

    model = make_random_llama(
        tmp_path / "My Own Model.gguf",
        layers=2,
        n_embd=64,
        n_ff=128,
        heads=2,
        kv_heads=2,
        vocab_size=512,
        seed=9,
    )
    async with machine.terminal(model_file=str(model)) as service:
        assert await service.default_model() == "my-own-model"
        first = (await ask(service, QUESTION, options=replace(GREEDY, max_tokens=200))).answer
        assert first.model == "my-own-model"
        assert first.completion_tokens > 60 or first.finish_reason == "stop"
