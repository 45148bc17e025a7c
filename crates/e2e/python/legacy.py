"""The same for clients before 2.0, which have another interface: the little that is promised for them.

Usage: legacy.py CHECK...
"""

import json
import sys
import time
import traceback

import e2b

sandbox = None


def create():
    global sandbox
    sandbox = e2b.Sandbox("base", timeout=60)


def run_foreground():
    result = sandbox.commands.run("echo hi; echo err >&2")
    assert (result.stdout, result.stderr, result.exit_code) == ("hi\n", "err\n", 0), result


def files_write_and_read():
    sandbox.files.write("notes/first.txt", "Zeile ☕")
    assert sandbox.files.read("/home/user/notes/first.txt") == "Zeile ☕"
    assert [entry.name for entry in sandbox.files.list("notes")] == ["first.txt"]


def kill():
    assert sandbox.is_running() is True
    assert e2b.Sandbox.kill(sandbox.sandbox_id) is True
    assert e2b.Sandbox.kill(sandbox.sandbox_id) is False
    assert sandbox.is_running() is False


for name in sys.argv[1:]:
    started = time.monotonic()
    report = {"check": name, "ok": True, "detail": ""}
    try:
        globals()[name]()
    except Exception:  # The report is the result: nothing a check does may end the run.
        report.update(ok=False, detail=traceback.format_exc(limit=-6))
    report["millis"] = round((time.monotonic() - started) * 1000)
    print(json.dumps(report), flush=True)
