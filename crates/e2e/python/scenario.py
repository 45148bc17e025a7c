"""Drives one version of the official Python SDK, unmodified, and reports each check as a JSON line.

Usage: scenario.py sync|async CHECK...

The checks run in the order given, on sandboxes they share. Which checks a version must pass is decided by the
caller (`src/matrix.rs`); this file only knows how to do each with every supported version. The synchronous and the
asynchronous client run the same code: `settle` waits where there is something to wait for.
"""

import asyncio
import datetime
import hashlib
import inspect
import io
import json
import os
import random
import sys
import time
import traceback
import uuid

import e2b
import httpx

CHECKS = {}


def check(function):
    """Registers a check under its function's name."""
    CHECKS[function.__name__] = function
    return function


async def settle(value):
    """The value itself from the synchronous client, its result from the asynchronous one."""
    return await value if inspect.isawaitable(value) else value


async def until(condition, seconds=10.0):
    """Waits for a condition; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {inspect.getsource(condition).strip()}"
        await asyncio.sleep(0.05)


async def raised(kind, value):
    """The exception of the given kind that an operation ends with."""
    try:
        outcome = await settle(value() if callable(value) else value)
    except kind as error:
        return error
    raise AssertionError(f"want {kind}, got {outcome!r}")


def equal(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def accepts(function, parameter):
    """Whether this version of the client knows a parameter."""
    return parameter in inspect.signature(function).parameters


class Run:
    """What the checks of one run share."""

    def __init__(self, flavour):
        self.asynchronous = flavour == "async"
        self.Sandbox = e2b.AsyncSandbox if self.asynchronous else e2b.Sandbox
        self.tag = uuid.uuid4().hex
        self.metadata = {
            "run": self.tag,
            "user name": "Jürgen & Söhne = 100% ☕",
            "a=b&c": "%20+ /?#",
        }
        self.sandbox = None
        self.short = None
        self.short_created = 0.0
        self.others = []

    async def create(self, **options):
        sandbox = await settle(self.Sandbox.create("base", **options))
        self.others.append(sandbox)
        return sandbox

    async def run(self, command, **options):
        return await settle(self.sandbox.commands.run(command, **options))

    async def out(self, command, **options):
        return (await self.run(command, **options)).stdout.strip()

    async def start(self, command, **options):
        return await settle(self.sandbox.commands.run(command, background=True, **options))

    async def listed(self, **options):
        """All entries of a listing, page by page."""
        paginator = self.Sandbox.list(**options)
        entries = []
        while paginator.has_next:
            entries.extend(await settle(paginator.next_items()))
        return entries

    async def close(self):
        for sandbox in self.others:
            try:
                await settle(sandbox.kill())
            except Exception:  # Whatever a check left half done must not hide its own report.
                traceback.print_exc()


# Life.


@check
async def create(run):
    run.sandbox = await run.create(
        timeout=120, metadata=run.metadata, envs={"GREETING": "hello", "OVERRIDDEN": "create"}
    )
    assert run.sandbox.sandbox_id.isalnum(), run.sandbox.sandbox_id


@check
async def create_short(run):
    run.short = await run.create(timeout=5)
    run.short_created = time.monotonic()
    equal(await settle(run.short.is_running()), True)


@check
async def info(run):
    info = await settle(run.sandbox.get_info())
    equal(info.sandbox_id, run.sandbox.sandbox_id)
    equal(info.metadata, run.metadata)
    equal(getattr(info.state, "value", info.state), "running")
    assert info.template_id and info.cpu_count >= 1 and info.memory_mb >= 128, info
    life = (info.end_at - info.started_at).total_seconds()
    assert 119 <= life <= 121, life
    equal((await settle(run.Sandbox.get_info(run.sandbox.sandbox_id))).sandbox_id, info.sandbox_id)


@check
async def running(run):
    equal(await settle(run.sandbox.is_running()), True)


@check
async def set_timeout(run):
    await settle(run.sandbox.set_timeout(600))
    equal(abs(await seconds_left(run) - 600) < 10, True)


@check
async def connect_keeps_expiry(run):
    """`connect` never shortens a life (2.6 and newer)."""
    await connected(run)
    left = await seconds_left(run)
    assert left > 500, left


@check
async def connect_sets_expiry(run):
    """Before 2.6 `connect` sets the timeout, and so shortens a life."""
    await connected(run)
    left = await seconds_left(run)
    assert abs(left - 300) < 10, left


async def connected(run):
    second = await settle(run.Sandbox.connect(run.sandbox.sandbox_id))
    equal((await settle(second.commands.run("echo $GREETING"))).stdout, "hello\n")


async def seconds_left(run):
    info = await settle(run.sandbox.get_info())
    return (info.end_at - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


@check
async def list_by_metadata(run):
    second = await run.create(timeout=120, metadata=run.metadata)
    query = e2b.SandboxQuery(metadata=run.metadata)
    want = {run.sandbox.sandbox_id, second.sandbox_id}
    equal({entry.sandbox_id for entry in await run.listed(query=query)}, want)
    # One by one, so that a second page must be asked for.
    paged = await run.listed(query=query, limit=1)
    equal((len(paged), {entry.sandbox_id for entry in paged}), (2, want))
    equal(paged[0].metadata, run.metadata)
    other = e2b.SandboxQuery(metadata={**run.metadata, "a=b&c": "else"})
    equal(await run.listed(query=other), [])


@check
async def list_by_state(run):
    metadata = {"run": run.tag}
    live = e2b.SandboxQuery(metadata=metadata, state=[e2b.SandboxState.RUNNING])
    both = e2b.SandboxQuery(metadata=metadata, state=[e2b.SandboxState.RUNNING, e2b.SandboxState.PAUSED])
    paused = e2b.SandboxQuery(metadata=metadata, state=[e2b.SandboxState.PAUSED])
    assert run.sandbox.sandbox_id in {entry.sandbox_id for entry in await run.listed(query=live)}
    assert run.sandbox.sandbox_id in {entry.sandbox_id for entry in await run.listed(query=both)}
    equal(await run.listed(query=paused), [])


@check
async def kill(run):
    second = await run.create(timeout=120)
    equal(await settle(second.kill()), True)
    equal(await settle(second.kill()), False)
    equal(await settle(run.Sandbox.kill(second.sandbox_id)), False)
    equal(await settle(second.is_running()), False)
    # 2.0 has no class of its own for this.
    error = await raised(e2b.SandboxException, lambda: second.get_info())
    assert isinstance(error, e2b.NotFoundException) or str(error).startswith("404: "), error
    # Every version raises this or a subclass of it when the sandbox is gone.
    await raised(e2b.TimeoutException, lambda: second.commands.run("true"))


@check
async def expiry(run):
    """The sandbox of `create_short` is gone on its own, soon after its time."""

    async def gone():
        return not await settle(run.short.is_running())

    await until(gone, seconds=max(0.0, run.short_created + 5 - time.monotonic()) + 3)
    entries = await run.listed()
    assert run.short.sandbox_id not in {entry.sandbox_id for entry in entries}
    # A kill that comes while its end is under way joins that; the next finds nothing.
    await settle(run.short.kill())
    equal(await settle(run.short.kill()), False)


# Commands.


@check
async def run_foreground(run):
    result = await run.run("echo out; echo err >&2")
    equal((result.stdout, result.stderr, result.exit_code), ("out\n", "err\n", 0))
    equal((await run.run("echo 'Grüße ☕'")).stdout, "Grüße ☕\n")


@check
async def run_streams(run):
    """Output arrives while the command runs, not at its end."""
    seen = []
    await run.run(
        "echo one; sleep 0.7; echo two >&2; sleep 0.7; echo three",
        on_stdout=lambda text: seen.append((time.monotonic(), "out", str(text))),
        on_stderr=lambda text: seen.append((time.monotonic(), "err", str(text))),
    )
    equal([entry[1:] for entry in seen], [("out", "one\n"), ("err", "two\n"), ("out", "three\n")])
    assert seen[1][0] - seen[0][0] > 0.4 and seen[2][0] - seen[1][0] > 0.4, seen


@check
async def run_much_output(run):
    result = await run.run("seq 1 200000")
    equal(result.stdout, "".join(f"{number}\n" for number in range(1, 200001)))


@check
async def run_environment(run):
    equal(await run.out("echo $GREETING $OVERRIDDEN", envs={"OVERRIDDEN": "run"}), "hello run")
    equal(await run.out("echo $GREETING $OVERRIDDEN"), "hello create")
    equal(await run.out("echo $E2B_SANDBOX $E2B_SANDBOX_ID"), f"true {run.sandbox.sandbox_id}")


@check
async def run_directory(run):
    equal(await run.out("pwd"), "/home/user")
    equal(await run.out("pwd", cwd="/tmp"), "/tmp")
    await raised(e2b.InvalidArgumentException, lambda: run.run("pwd", cwd="/no/such"))


@check
async def run_as_user(run):
    equal(await run.out("whoami; id -u"), "user\n1000")
    equal(await run.out("whoami; echo $HOME; pwd", user="root"), "root\n/root\n/root")


@check
async def run_sudo(run):
    equal(await run.out("sudo whoami"), "root")
    error = await raised(e2b.CommandExitException, lambda: run.run("sudo sh -c 'echo no >&2; exit 7'"))
    equal((error.exit_code, error.stderr), (7, "no\n"))


@check
async def run_exit_code(run):
    error = await raised(e2b.CommandExitException, lambda: run.run("echo out; echo err >&2; exit 3"))
    equal((error.exit_code, error.stdout, error.stderr), (3, "out\n", "err\n"))
    error = await raised(e2b.CommandExitException, lambda: run.run("no-such-program"))
    equal(error.exit_code, 127)


@check
async def run_timeout(run):
    started = time.monotonic()
    # Old clients give up by themselves after as long a silence; the output makes it the server that ends it.
    await raised(e2b.TimeoutException, lambda: run.run("sleep 0.5; echo; sleep 31.25", timeout=1))
    took = time.monotonic() - started
    assert 0.8 < took < 5, took

    async def ended():
        return "sleep 31.25" not in await run.out("ps -eo args | grep -v grep || true")

    await until(ended)


@check
async def background_wait(run):
    handle = await run.start("sleep 0.3; echo done")
    assert handle.pid > 0
    result = await settle(handle.wait())
    equal((result.stdout, result.exit_code), ("done\n", 0))
    handle = await run.start("exit 5")
    equal((await raised(e2b.CommandExitException, lambda: handle.wait())).exit_code, 5)


@check
async def background_kill(run):
    handle = await run.start("sleep 100")
    equal(await settle(handle.kill()), True)
    await raised(e2b.CommandExitException, lambda: handle.wait())
    equal(await settle(run.sandbox.commands.kill(handle.pid)), False)


@check
async def background_list_and_connect(run):
    first = await run.start("until [ -e /tmp/go ]; do sleep 0.05; done; echo late; exit 4", cwd="/tmp", envs={"A": "1"})
    processes = {process.pid: process for process in await settle(run.sandbox.commands.list())}
    process = processes[first.pid]
    equal((process.cmd, process.args[:2], process.cwd, process.envs["A"]), ("/bin/bash", ["-l", "-c"], "/tmp", "1"))
    second = await settle(run.sandbox.commands.connect(first.pid))
    equal(second.pid, first.pid)
    await settle(first.disconnect())
    await settle(run.sandbox.files.write("/tmp/go", ""))
    error = await raised(e2b.CommandExitException, lambda: second.wait())
    equal((error.stdout, error.exit_code), ("late\n", 4))
    await raised(e2b.NotFoundException, lambda: connect_and_wait(run, 999999))


async def connect_and_wait(run, pid):
    handle = await settle(run.sandbox.commands.connect(pid))
    return await settle(handle.wait())


@check
async def stdin(run):
    """Input reaches a command whose output stream is open."""
    options = {"stdin": True} if accepts(run.sandbox.commands.run, "stdin") else {}
    handle = await run.start("read line; echo got $line", **options)
    await settle(run.sandbox.commands.send_stdin(handle.pid, "some text\n"))
    equal((await settle(handle.wait())).stdout, "got some text\n")


@check
async def stdin_close(run):
    handle = await run.start("cat", stdin=True)
    await settle(run.sandbox.commands.send_stdin(handle.pid, "all of it"))
    await settle(run.sandbox.commands.close_stdin(handle.pid))
    equal((await settle(handle.wait())).stdout, "all of it")


@check
async def stdin_stream(run):
    """Each piece is handed over as it comes, not when the stream ends."""
    handle = await run.start("while read line; do echo $line >> /tmp/pieces; done", stdin=True)

    async def arrived(want):
        async def has():
            return await run.out("cat /tmp/pieces 2>/dev/null || true") == want

        await until(has)

    if run.asynchronous:
        async with run.sandbox.commands.stream_input(handle.pid) as stream:
            await stream.send("one\n")
            await arrived("one")
            await stream.send("two\n")
            await arrived("one\ntwo")
    else:

        def pieces():
            yield "one\n"
            deadline = time.monotonic() + 10
            while run.sandbox.commands.run("cat /tmp/pieces 2>/dev/null || true").stdout != "one\n":
                assert time.monotonic() < deadline, "the first piece did not arrive before the second was sent"
                time.sleep(0.05)
            yield "two\n"

        run.sandbox.commands.stream_input(handle.pid, pieces())
        await arrived("one\ntwo")
    await settle(run.sandbox.commands.close_stdin(handle.pid))
    await settle(handle.wait())


# Files.


@check
async def files_write_and_read(run):
    files = run.sandbox.files
    text = "Zeile 1\nline 2 ☕\n"
    written = await settle(files.write("notes/first.txt", text))
    equal((written.path, written.name), ("/home/user/notes/first.txt", "first.txt"))
    equal(await settle(files.read("/home/user/notes/first.txt")), text)
    data = bytes(range(256)) * 5
    await settle(files.write("/tmp/all bytes + ü.bin", data))
    equal(bytes(await settle(files.read("/tmp/all bytes + ü.bin", format="bytes"))), data)
    await settle(files.write("/tmp/from-stream", io.BytesIO(data)))
    equal(b"".join(await streamed(files, "/tmp/from-stream")), data)
    await settle(files.write("/tmp/empty", ""))
    equal(await settle(files.read("/tmp/empty")), "")
    equal(await run.out("stat -c '%U:%G %a' notes notes/first.txt"), "user:user 755\nuser:user 644")


async def streamed(files, path):
    stream = await settle(files.read(path, format="stream"))
    if hasattr(stream, "__aiter__"):
        return [bytes(chunk) async for chunk in stream]
    return [bytes(chunk) for chunk in stream]


@check
async def files_large(run):
    data = random.Random(7).randbytes(8 * 1024 * 1024)
    await settle(run.sandbox.files.write("/tmp/large", data))
    equal(await run.out("sha256sum < /tmp/large | cut -d' ' -f1"), hashlib.sha256(data).hexdigest())
    equal(b"".join(await streamed(run.sandbox.files, "/tmp/large")), data)


@check
async def files_write_many(run):
    write = getattr(run.sandbox.files, "write_files", run.sandbox.files.write)
    written = await settle(
        write([{"path": "many/a.txt", "data": "A"}, {"path": "/tmp/many/b.bin", "data": b"\x00B"}])
    )
    equal([entry.path for entry in written], ["/home/user/many/a.txt", "/tmp/many/b.bin"])
    equal(await run.out("cat many/a.txt; stat -c %s /tmp/many/b.bin"), "A2")


@check
async def files_octet_stream(run):
    """The newer form of upload, plain and compressed; what is stored is never compressed."""
    files = run.sandbox.files
    for name, options in (("plain", {}), ("gzip", {"gzip": True})):
        text = name * 10000
        await settle(files.write(f"/tmp/{name}", text, use_octet_stream=True, **options))
        equal(await run.out(f"stat -c %s /tmp/{name}"), str(len(text)))
        equal(await settle(files.read(f"/tmp/{name}", **options)), text)


@check
async def files_list(run):
    await run.run("mkdir -p tree/a/b; echo c > tree/a/b/c.txt; echo d > tree/d.txt")
    files = run.sandbox.files

    async def paths(**options):
        return [entry.path.removeprefix("/home/user/tree/") for entry in await settle(files.list("tree", **options))]

    equal(await paths(), ["a", "d.txt"])
    equal(await paths(depth=2), ["a", "a/b", "d.txt"])
    equal(await paths(depth=3), ["a", "a/b", "a/b/c.txt", "d.txt"])
    entries = {entry.name: entry.type.value for entry in await settle(files.list("/home/user/tree"))}
    equal(entries, {"a": "dir", "d.txt": "file"})
    await raised(e2b.NotFoundException, lambda: files.list("/no/such"))


@check
async def files_info(run):
    files = run.sandbox.files
    await run.run("echo 12345 > info.txt; chmod 640 info.txt; ln -sf info.txt info.link")
    info = await settle(files.get_info("info.txt"))
    equal((info.name, info.path, info.type.value, info.size), ("info.txt", "/home/user/info.txt", "file", 6))
    equal((info.mode, info.permissions, info.owner, info.group), (0o640, "-rw-r-----", "user", "user"))
    age = time.time() - info.modified_time.timestamp()
    assert abs(age) < 60, age
    equal((await settle(files.get_info("info.link"))).symlink_target, "/home/user/info.txt")
    equal((await settle(files.get_info("/tmp"))).type.value, "dir")
    await raised(e2b.NotFoundException, lambda: files.get_info("/no/such"))


@check
async def files_exists(run):
    equal(await settle(run.sandbox.files.exists("/etc/passwd")), True)
    equal(await settle(run.sandbox.files.exists("/no/such")), False)


@check
async def files_rename(run):
    files = run.sandbox.files
    await settle(files.write("old name.txt", "x"))
    equal((await settle(files.rename("old name.txt", "deep/er/new.txt"))).path, "/home/user/deep/er/new.txt")
    equal(await settle(files.exists("old name.txt")), False)
    equal(await settle(files.read("deep/er/new.txt")), "x")
    await raised(e2b.NotFoundException, lambda: files.rename("old name.txt", "elsewhere"))


@check
async def files_make_dir(run):
    files = run.sandbox.files
    equal(await settle(files.make_dir("made/of/parts")), True)
    equal(await settle(files.make_dir("made/of/parts")), False)
    equal(await run.out("stat -c '%U %a %F' made/of/parts"), "user 755 directory")


@check
async def files_remove(run):
    files = run.sandbox.files
    await settle(files.write("gone/file", "x"))
    await settle(files.remove("gone"))
    equal(await settle(files.exists("gone")), False)


@check
async def files_missing(run):
    """The kind of the error and its text, which people and programs look at."""
    error = await raised(e2b.NotFoundException, lambda: run.sandbox.files.read("no/such/file"))
    assert "does not exist" in str(error), error


@check
async def files_as_root(run):
    files = run.sandbox.files
    await settle(files.write("secret", "root's", user="root"))
    equal(await settle(files.read("/root/secret", user="root")), "root's")
    equal(await run.out("stat -c %U /root/secret", user="root"), "root")


@check
async def files_metadata(run):
    """What a file was labelled with is told until it is written again without labels."""
    files = run.sandbox.files
    written = await settle(files.write("labelled", "x", metadata={"author": "me"}))
    equal(written.metadata, {"author": "me"})
    equal((await settle(files.get_info("labelled"))).metadata, {"author": "me"})
    await settle(files.write("labelled", "y"))
    equal((await settle(files.get_info("labelled"))).metadata or {}, {})


@check
async def files_watch(run):
    """Changes in a directory, and below it, are told while they happen."""
    files = run.sandbox.files
    await settle(files.make_dir("watched/below"))
    events = []
    if run.asynchronous:
        handle = await files.watch_dir("watched", on_event=events.append, recursive=True)
    else:
        handle = files.watch_dir("watched", recursive=True)
    await settle(files.write("watched/below/new.txt", "x"))

    async def told():
        if not run.asynchronous:
            events.extend(handle.get_new_events())
        seen = {(event.type.value, event.name) for event in events}
        return {("create", "below/new.txt"), ("write", "below/new.txt")} <= seen

    await until(told)
    await settle(handle.stop())


@check
async def files_signed_urls(run):
    """A URL with a signature works for programs that hold no token, and only for what was signed."""
    await settle(run.sandbox.files.write("signed.txt", "by url"))
    down = run.sandbox.download_url("signed.txt", user="user", use_signature_expiration=60)
    up = run.sandbox.upload_url("uploaded.txt", user="user")
    async with httpx.AsyncClient() as http:
        equal((await http.get(down)).text, "by url")
        equal((await http.get(down.replace("signed.txt", "other.txt"))).status_code, 401)
        equal((await http.post(up, files={"file": ("uploaded.txt", b"sent")})).status_code, 200)
    equal(await settle(run.sandbox.files.read("uploaded.txt")), "sent")


# Terminals.


@check
async def pty(run):
    output = bytearray()
    size = e2b.PtySize(rows=24, cols=80)
    options = {"cwd": "/tmp", "envs": {"MARK": "set"}}
    if run.asynchronous:
        handle = await run.sandbox.pty.create(size, on_data=lambda data: output.extend(data), **options)
    else:
        handle = run.sandbox.pty.create(size, **options)

    async def typed(line, file, want):
        await settle(run.sandbox.pty.send_stdin(handle.pid, line.encode()))

        async def written():
            return await run.out(f"cat {file} 2>/dev/null || true") == want

        await until(written)

    await typed("echo $MARK $TERM $(pwd) > /tmp/pty.env\n", "/tmp/pty.env", "set xterm-256color /tmp")
    await typed("stty size > /tmp/pty.1\n", "/tmp/pty.1", "24 80")
    await settle(run.sandbox.pty.resize(handle.pid, e2b.PtySize(rows=30, cols=100)))
    await typed("stty size > /tmp/pty.2\n", "/tmp/pty.2", "30 100")
    await typed("sudo whoami > /tmp/pty.3\n", "/tmp/pty.3", "root")
    await settle(run.sandbox.pty.send_stdin(handle.pid, b"echo visi''ble; exit\n"))
    result = await (handle.wait() if run.asynchronous else settle(handle.wait(on_pty=output.extend)))
    equal(result.exit_code, 0)
    assert b"visible" in output, bytes(output)


@check
async def pty_kill(run):
    size = e2b.PtySize(rows=24, cols=80)
    options = {"on_data": lambda data: None} if run.asynchronous else {}
    handle = await settle(run.sandbox.pty.create(size, **options))
    assert handle.pid in {process.pid for process in await settle(run.sandbox.commands.list())}
    equal(await settle(run.sandbox.pty.kill(handle.pid)), True)
    await raised(e2b.CommandExitException, lambda: handle.wait())
    equal(await settle(run.sandbox.pty.kill(handle.pid)), False)


# Network.


@check
async def get_host(run):
    """A server started inside answers under its own host name, and a closed port says so."""
    await settle(run.sandbox.files.write("site/page.txt", "from inside"))
    url = f"https://{run.sandbox.get_host(8000)}/page.txt"
    async with httpx.AsyncClient() as http:
        closed = await http.get(url)
        equal((closed.status_code, closed.json()["port"]), (502, 8000))
        server = await run.start("python3 -m http.server 8000 --bind 0.0.0.0", cwd="/home/user/site")

        async def open_():
            return (await http.get(url)).status_code == 200

        await until(open_)
        equal((await http.get(url)).text, "from inside")
    await settle(server.kill())


@check
async def no_internet(run):
    """`allow_internet_access=False`: no address is reached, no name resolves, the agent still answers."""
    closed = await run.create(timeout=120, allow_internet_access=False)
    for command in (
        "getent hosts deb.debian.org",
        "timeout 3 bash -c 'echo > /dev/tcp/1.1.1.1/443'",
        "timeout 3 bash -c 'echo > /dev/tcp/8.8.8.8/53'",
    ):
        await raised(e2b.CommandExitException, lambda: closed.commands.run(command))
    equal((await settle(closed.commands.run("echo fine"))).stdout, "fine\n")


@check
async def insecure(run):
    """`secure=False` (before 2.51): no token is handed out and none is needed."""
    sandbox = await run.create(timeout=120, secure=False)
    # "None", or the mark of the generated client for "not sent".
    assert not isinstance(sandbox._envd_access_token, str)
    equal((await settle(sandbox.commands.run("echo open"))).stdout, "open\n")
    await settle(sandbox.files.write("a", "b"))
    equal(await settle(sandbox.files.read("a")), "b")


async def main(flavour, names):
    run = Run(flavour)
    try:
        for name in names:
            started = time.monotonic()
            report = {"check": name, "ok": True, "detail": ""}
            try:
                await asyncio.wait_for(CHECKS[name](run), timeout=90)
            except Exception:  # The report is the result: nothing a check does may end the run.
                report.update(ok=False, detail=traceback.format_exc(limit=-6))
            report["millis"] = round((time.monotonic() - started) * 1000)
            print(json.dumps(report), flush=True)
    finally:
        await run.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
    # A hung background stream of the client must not keep the process.
    sys.stdout.flush()
    os._exit(0)
