"""What docs/sdk.md tells people to type is typed here."""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from sdk_service import AT, ID, Reply, Service, problem

PAGE = Path(__file__).parents[3] / "docs" / "sdk.md"
HERE = f"/optimizations/{ID}"


def test_the_page_runs(service: Service, tmp_path: Path) -> None:
    """All blocks, one after the other, as one program."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("agent/agent.json", "{}")
    target = {"type": "agent", "id": "orders"}
    summary = {"optimization_id": ID, "target": target, "status": "completed", "progress": 1, "created_at": AT}
    status = {"optimization_id": ID, "status": "completed", "progress": 1, "results": {"verdict": "improved"}}
    dataset = {"id": "d1", "name": "orders"}
    service.on("POST /estimate", {"calls": 1234})
    service.on("POST /optimize", Reply(body={"optimization_id": ID, "status": "queued"}, status=202))
    service.on(f"GET {HERE}/status", status)
    service.on(f"GET {HERE}/diff", {"from": "a", "to": "b", "components": [{"component": "predict"}]})
    service.on(f"GET {HERE}/examples", {"items": [], "next_cursor": None})
    service.on(f"GET {HERE}/report", Reply(body=b"<html>", media_type="text/html"))
    service.on(f"GET {HERE}/artifact", Reply(body=archive.getvalue(), media_type="application/zip"))
    service.on("GET /optimizations", {"items": [summary], "next_cursor": None})
    service.on("POST /datasets", Reply(body=dataset, status=201))
    service.on("POST /datasets/check", {"usable": True, "sentence": "It can show it."})
    service.on("POST /agents", Reply(body={"name": "orders", "version": "v1"}, status=201))
    service.on("GET /algorithms/available", {"items": [{"name": "gepa"}]})
    service.on("GET /models", {"items": [{"role": "task", "model": "smollm2"}]})
    service.on("POST /models/task/test", {"role": "task", "ok": True})
    service.on("GET /system", {"queue": {"lanes": [], "bound": 100}, "workers": []})
    service.on(f"POST {HERE}/pause", problem(409, "wanted: running; found: completed; possible: nothing"))
    schedule = {"id": ID, "name": "nightly", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "is_paused": False}
    service.on("POST /schedules", Reply(body={**schedule, "upcoming": [AT]}, status=201))
    service.on("GET /schedules", {"items": [schedule], "next_cursor": None})
    service.on(f"POST /schedules/{ID}/pause", {**schedule, "is_paused": True})
    service.on(f"POST /schedules/{ID}/resume", schedule)
    service.on(f"POST /schedules/{ID}/fire", Reply(body={"optimization_id": ID, "status": "queued"}, status=202))
    service.on(f"DELETE /schedules/{ID}", Reply(body=b"", status=204))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={"DSPY_OPT_URL": service.url},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "improved None None" in done.stdout
    assert "[('nightly', None, None)]" in done.stdout
    assert "wanted: running; found: completed; possible: nothing" in done.stdout
    assert ["orders-optimized", "report.html"] == sorted(one.name for one in tmp_path.iterdir())
