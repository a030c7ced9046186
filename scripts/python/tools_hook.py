"""Puts the tools into the wheel: what FLOWLENS_STAGE holds as `make install` lays it out goes under the environment's bin and share, and
the wheel's tag says of which glibc on the tools run, read from the binaries themselves."""

import os
import re
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What every Linux has: the libraries that the manylinux policies allow and our tools use.
SYSTEM = re.compile(r"(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux-x86-64|ld-linux-aarch64)\.so\.[0-9]+")
MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


class ToolsHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        stage = os.environ.get("FLOWLENS_STAGE")
        if stage is None:
            return
        tools = sorted((Path(stage) / "bin").iterdir())
        if not tools:
            raise RuntimeError(f"{stage}/bin holds no tool")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform(tools)}"
        build_data["shared_scripts"] |= {str(tool): tool.name for tool in tools}
        build_data["shared_data"][str(Path(stage) / "share")] = "share"


def platform(tools: list[Path]) -> str:
    """The manylinux tag that holds for all tools."""
    needed = [_needs(tool) for tool in tools]
    machines = {machine for machine, _ in needed}
    if len(machines) != 1:
        raise RuntimeError(f"tools of several machines: {sorted(machines)}")
    major, minor = max(glibc for _, glibc in needed)
    return f"manylinux_{major}_{minor}_{machines.pop()}"


def _needs(tool: Path) -> tuple[str, tuple[int, int]]:
    """The machine and the least glibc of a binary; a library that a system may lack is refused."""
    with open(tool, "rb") as file:
        elf = ELFFile(file)
        libraries = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        foreign = [name for name in libraries if not SYSTEM.fullmatch(name)]
        if foreign:
            raise RuntimeError(f"{tool}: needs {', '.join(foreign)} at run time")
        versions = [
            tuple(int(part) for part in found[1].split(".")[:2])
            for section in elf.iter_sections() if isinstance(section, GNUVerNeedSection)
            for _, symbols in section.iter_versions() for symbol in symbols
            if (found := re.fullmatch(r"GLIBC_([0-9.]+)", symbol.name))
        ]
        return MACHINES[elf["e_machine"]], max(versions)
