"""Why the chain refuses a transaction: each reason with its own code, name and words [format].

    TransactionRefused
    ├── MalformedTransaction 2     ├── UnknownFieldInTransaction 3   ├── WrongChain 4
    ├── BadSignature 5             ├── WrongSequence 6               ├── SequenceGap 7
    ├── Expired 8                  ├── FeeTooLow 9                   ├── InsufficientFunds 10
    ├── TooLarge 11                ├── ChatKeyNotAllowed 12          ├── ChatKeyCapExceeded 13
    ├── NotAuthorised 20           ├── BadValue 21                   ├── AlreadyExists 22
    ├── UnknownModel 30            ├── UnknownProvider 31            ├── UnknownOffer 32
    ├── BondTooSmall 33            ├── PriceAboveReserve 34          ├── NotContradictory 35
    ├── NoRoute 40                 ├── UnknownSession 41             ├── SessionClosed 42
    ├── VoucherNotHigher 43        ├── VoucherForAnotherSession 44   ├── VoucherForAnotherRoute 45
    ├── DepositExceeded 46         ├── BadVoucherSignature 47        ├── VoucherMispriced 48
    ├── GraceNotOver 49            ├── BadAck 50                     ├── UnknownValidator 60
    ├── StakeTooSmall 61           ├── LastValidator 62              ├── ValidatorJailed 63
    └── BadConsensusKey 64         └── OneSeat 65

Code 0 is success; 1 is never used by the application, so that an engine's own failure stands out.
"""

from __future__ import annotations

from dllm_protocol.errors import TransactionRefused

REFUSALS: dict[int, type[TransactionRefused]] = {}
"""ABCI code → class, filled by `_refusal`."""


def _refusal(abci_code: int, name: str, words: str) -> type[TransactionRefused]:
    made = type(
        name,
        (TransactionRefused,),
        {
            "__doc__": words,
            "__module__": __name__,
            "abci_code": abci_code,
            "code": "E_TX_" + "".join(f"_{c}" if c.isupper() else c.upper() for c in name).lstrip("_"),
        },
    )
    if abci_code in REFUSALS:
        raise ValueError(f"code {abci_code} is given twice")
    REFUSALS[abci_code] = made
    return made


MalformedTransaction = _refusal(2, "MalformedTransaction", "The bytes are not a canonical transaction.")
UnknownFieldInTransaction = _refusal(
    3, "UnknownFieldInTransaction", "A field or action this version does not know."
)
WrongChain = _refusal(4, "WrongChain", "Signed for another chain.")
BadSignature = _refusal(5, "BadSignature", "The signature is not the named key's.")
WrongSequence = _refusal(6, "WrongSequence", "The sequence was used already.")
SequenceGap = _refusal(7, "SequenceGap", "An earlier sequence is still missing.")
Expired = _refusal(8, "Expired", "The timeout height is over.")
FeeTooLow = _refusal(9, "FeeTooLow", "The fee is below the transaction's weight.")
InsufficientFunds = _refusal(10, "InsufficientFunds", "The balance does not cover it.")
TooLarge = _refusal(11, "TooLarge", "More bytes than a transaction may have.")
ChatKeyNotAllowed = _refusal(12, "ChatKeyNotAllowed", "The key is not the account's, or may not do this.")
ChatKeyCapExceeded = _refusal(13, "ChatKeyCapExceeded", "The chat key's cap is used up.")
NotAuthorised = _refusal(20, "NotAuthorised", "Somebody else's to do.")
BadValue = _refusal(21, "BadValue", "A value that makes no sense here.")
AlreadyExists = _refusal(22, "AlreadyExists", "It is there already.")
UnknownModel = _refusal(30, "UnknownModel", "No such model in the registry.")
UnknownProvider = _refusal(31, "UnknownProvider", "No such provider.")
UnknownOffer = _refusal(32, "UnknownOffer", "The provider has no such offer.")
BondTooSmall = _refusal(33, "BondTooSmall", "The bond is below the minimum.")
PriceAboveReserve = _refusal(34, "PriceAboveReserve", "The ask is above the model's reserve price.")
NotContradictory = _refusal(35, "NotContradictory", "The two acks can both be honest.")
NoRoute = _refusal(40, "NoRoute", "No offers cover the model at this price.")
UnknownSession = _refusal(41, "UnknownSession", "No such session.")
SessionClosed = _refusal(42, "SessionClosed", "The session is over.")
VoucherNotHigher = _refusal(43, "VoucherNotHigher", "A voucher as high or higher was claimed already.")
VoucherForAnotherSession = _refusal(
    44, "VoucherForAnotherSession", "The voucher names another chain or session."
)
VoucherForAnotherRoute = _refusal(45, "VoucherForAnotherRoute", "The voucher names another route or payees.")
DepositExceeded = _refusal(46, "DepositExceeded", "The voucher comes to more than the deposit.")
BadVoucherSignature = _refusal(47, "BadVoucherSignature", "The session key did not sign this voucher.")
VoucherMispriced = _refusal(48, "VoucherMispriced", "The amount is not the route's price of the rows.")
GraceNotOver = _refusal(49, "GraceNotOver", "The other side may still claim.")
BadAck = _refusal(50, "BadAck", "The ack does not belong to this session, voucher or provider.")
UnknownValidator = _refusal(60, "UnknownValidator", "Nobody stakes on this consensus key.")
StakeTooSmall = _refusal(61, "StakeTooSmall", "The stake is below the minimum.")
LastValidator = _refusal(62, "LastValidator", "A chain needs somebody to sign its blocks.")
ValidatorJailed = _refusal(63, "ValidatorJailed", "The key signed twice and is of no use any more.")
BadConsensusKey = _refusal(64, "BadConsensusKey", "No sound key, or it did not agree to this owner.")
OneSeat = _refusal(65, "OneSeat", "The chain has one validator by its genesis.")


def refusal_from_code(abci_code: int, log: str) -> TransactionRefused:
    """The error that a result's code and log stand for (unknown codes give the plain base class)."""
    return REFUSALS.get(abci_code, TransactionRefused)(log)
