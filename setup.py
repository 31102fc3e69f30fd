"""Puts the sample configs into the wheel: `python -m harness init` writes them where there is no checkout."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSamples(build_py):
    """Copies configs/ to harness/samples."""

    def run(self) -> None:
        """Build the package, then add the configs."""
        super().run()
        if self.editable_mode:
            # The checkout's own folder is read.
            return
        source = Path(__file__).parent / "configs"
        for file in sorted(source.rglob("*.yaml")):
            target = Path(self.build_lib) / "harness" / "samples" / file.relative_to(source)
            self.mkpath(str(target.parent))
            self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithSamples})
