"""Compile kernels while edgeq's wheel is made: where it is installed, the first run of a model compiles nothing.

EDGEQ_BUILD_KERNELS says which:

    native                those of common models for this machine's kind of CPU (the default)
    all                   every kernel for every CPU of `edgeq kernels build --cpu help`: for a release,
                          EDGEQ_BUILD_KERNELS=all pip wheel --no-deps .
    x86-64-v3,cortex-a76  every kernel for these CPUs
    none                  no kernel

Without the native ones edgeq works too: where they cannot be compiled the wheel is made without. An editable
installation has none: its sources change, and kernels with them.
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILING = ("numba", "psutil")  # of edgeq's dependencies
PACKAGED = "edgeq/kernels/prebuilt"


def asked() -> str:
    return os.environ.get("EDGEQ_BUILD_KERNELS") or "native"


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts libraries of kernels into the wheel."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """Packages that must be there to build, in the versions that edgeq asks for."""
        needs = self.metadata.core.dependencies if asked() != "none" else []
        return [need for need in needs if re.split(r"[^\w.-]", need, maxsplit=1)[0] in COMPILING]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or asked() == "none":
            return
        sys.path.insert(0, self.root)  # the edgeq that is being built
        self._folder = tempfile.TemporaryDirectory()
        try:
            paths = self._build(asked(), Path(self._folder.name))
        except Exception as error:  # whatever it is, an installation does not fail for want of speed
            if asked() != "native":
                self.app.abort(f"EDGEQ_BUILD_KERNELS={asked()}: {error}")
            self.app.display_warning(f"no kernels were compiled, they will be when a model first runs: {error}")
            return
        build_data["force_include"].update({str(path): f"{PACKAGED}/{path.name}" for path in paths})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _build(self, which: str, folder: Path) -> list[Path]:
        from edgeq.ops import catalog
        from edgeq.toolchain import cpus, image
        from edgeq.toolchain.build import build

        if which == "native":
            if not image.supported():
                return []
            cpu = cpus.this_cpu()
            work = [(cpu, catalog.common(cpu.isa))]
        else:
            targets = cpus.CPUS if which == "all" else [cpus.cpu(name.strip()) for name in which.split(",")]
            work = [(cpu, catalog.names(cpu.isa)) for cpu in targets]
        paths = []
        for cpu, names in work:
            self.app.display_info(f"compiling {len(names)} kernels for {cpu.name}")
            paths.append(build(cpu, folder, names))
        return paths
