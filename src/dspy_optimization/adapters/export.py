"""What an optimization came to, as files: the agent, how to use it, the evidence, the report."""

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from dspy_optimization.adapters.dspy.artifact import save_agent
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.how_to_use import how_to_use
from dspy_optimization.adapters.postgres.documents import write
from dspy_optimization.adapters.report import html
from dspy_optimization.adapters.report.facts import Material, report
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.optimization.request import Optimization
from dspy_optimization.optimization.result import OptimizationResult

AGENT, EVIDENCE, REPORT, READ_FIRST = "agent", "evidence.json", "report.html", "README.md"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def result_of(material: Material) -> OptimizationResult:
    """Return the result. Raises `InvalidRequestError` while there is none."""
    if material.result is None:
        raise no_result(material.optimization)
    return material.result


def no_result(optimization: Optimization) -> InvalidRequestError:
    """Return the error of somebody who wants a result before there is one."""
    return InvalidRequestError(
        f"wanted: an optimization with a result; found: {optimization.request.id} is {optimization.status.value}; "
        "possible: dspy-opt runs resume, or one that dspy-opt runs ls shows as completed"
    )


def write_files(folder: Path, material: Material, builder: DspyAgents, made_at: datetime) -> None:
    """Write everything into the folder, which exists. Raises `InvalidRequestError` or `OSError`."""
    result = result_of(material)
    optimized = material.agent.with_candidate(result.optimized)
    # As one agent: what it names has to be there, whatever the settings of this process list by now.
    save_agent(folder / AGENT, builder.elsewhere().build(optimized), result.optimized)
    html.write(report(material, made_at), folder / REPORT)
    evidence = {"request": write(material.optimization.request), "result": write(result)}
    (folder / EVIDENCE).write_text(json.dumps(evidence, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / READ_FIRST).write_text(how_to_use(optimized, result.validated), encoding="utf-8")


def in_new_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder with what `fill` writes into it, all or nothing. Raises what `fill` raises, and `OSError`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fill(partial)
        partial.chmod(0o755)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def zipped(material: Material, builder: DspyAgents, made_at: datetime) -> bytes:
    """Return the files as a zip archive; its entries carry no time, so that the same files are the same bytes."""
    with tempfile.TemporaryDirectory(prefix="dspy-opt-export-") as name:
        folder = Path(name)
        write_files(folder, material, builder, made_at)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, path.read_bytes())
        return content.getvalue()
