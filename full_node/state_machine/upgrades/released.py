"""What this program runs. A release that changes the rules raises `app_version` and names its upgrades here.

For each network that is to go on under it: the height that its operators agreed on, and the migration of its state,
which is tested with a copy of that network's state before the release.
"""

from __future__ import annotations

from full_node.state_machine.upgrades.plan import Release

RELEASE = Release(app_version=0)
