"""Names that a package takes from its own modules are documented where they are defined, once."""

from __future__ import annotations

from typing import Any

import griffe


class Reexports(griffe.Extension):
    """Drop such names from packages before pages are made of them."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Go through a package and those inside it."""
        for name, member in list(pkg.members.items()):
            if member.is_alias:
                pkg.del_member(name)
            elif member.is_module and member.is_init_module:
                self.on_package(pkg=member)
