"""What joining and sharing a network fail with.

VerificationFailed
├── BundleRefused          (in `dllm_chat.session.networks`) damaged, or not signed by whom it says
├── InvitationRefused      (in `dllm_protocol.invitation`) what an invitation leads to is not what it says
└── RootNotAgreed          two sources do not show one header for a trust root
UsageRefused
├── BadInvitation          (in `dllm_protocol.invitation`) a code with a typing error
└── WitnessNeeded          nobody from outside the bundle would notice if its nodes lied
"""

from __future__ import annotations

from dllm_protocol.errors import UsageRefused, VerificationFailed


class RootNotAgreed(VerificationFailed):
    """Two sources show different headers where one is wanted as a trust root."""

    code = "E_ROOT_NOT_AGREED"


class WitnessNeeded(UsageRefused):
    """All nodes that would be asked were chosen by one publisher."""

    code = "E_WITNESS_NEEDED"
