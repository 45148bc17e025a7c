// Drives one version of the official JavaScript SDK, unmodified, and reports each check as a JSON line.
//
// Usage: scenario.mjs CHECK...
//
// The checks run in the order given, on sandboxes they share. Which checks a version must pass is decided by the
// caller (`src/matrix.rs`); this file only knows how to do each with every supported version. The names are those of
// `python/scenario.py`.

import assert from 'node:assert/strict'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import * as e2b from 'e2b'
import { report } from './report.mjs'

const { Sandbox, CommandExitError, InvalidArgumentError, NotFoundError, TimeoutError } = e2b
const tag = randomUUID()
const metadata = { run: tag, 'user name': 'Jürgen & Söhne = 100% ☕', 'a=b&c': '%20+ /?#' }

const others = []
let sandbox
let short
let shortCreated

const equal = assert.deepEqual
const sleep = (millis) => new Promise((resolve) => setTimeout(resolve, millis))

async function create(options) {
  const created = await Sandbox.create('base', options)
  others.push(created)
  return created
}

const out = async (command, options) => (await sandbox.commands.run(command, options)).stdout.trim()
const start = (command, options) => sandbox.commands.run(command, { background: true, ...options })
const secondsLeft = async () => ((await sandbox.getInfo()).endAt - Date.now()) / 1000

/** Waits for a condition; fails when it does not come true in time. */
async function until(condition, millis = 10_000) {
  const deadline = performance.now() + millis
  while (!(await condition())) {
    assert(performance.now() < deadline, `not within ${millis} ms: ${condition}`)
    await sleep(50)
  }
}

/** The error of one of the given kinds that an operation ends with. */
async function raised(kinds, operation) {
  let outcome
  try {
    outcome = await operation()
  } catch (error) {
    if ([kinds].flat().some((kind) => kind && error instanceof kind)) return error
    throw error
  }
  throw new Error(`no error but ${JSON.stringify(outcome)}`)
}

/** All entries of a listing, page by page. */
async function listed(options) {
  const paginator = Sandbox.list(options)
  const entries = []
  while (paginator.hasNext) entries.push(...(await paginator.nextItems()))
  return entries
}

const ids = (entries) => entries.map((entry) => entry.sandboxId).sort()

async function bytes(stream) {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function connected() {
  const second = await Sandbox.connect(sandbox.sandboxId)
  equal((await second.commands.run('echo $GREETING')).stdout, 'hello\n')
}

const life = {
  async create() {
    sandbox = await create({ timeoutMs: 120_000, metadata, envs: { GREETING: 'hello', OVERRIDDEN: 'create' } })
    assert.match(sandbox.sandboxId, /^[a-z0-9]+$/)
  },

  async create_short() {
    short = await create({ timeoutMs: 5_000 })
    shortCreated = performance.now()
    equal(await short.isRunning(), true)
  },

  async info() {
    const info = await sandbox.getInfo()
    equal(info.sandboxId, sandbox.sandboxId)
    equal(info.metadata, metadata)
    equal(info.state, 'running')
    assert(info.templateId && info.cpuCount >= 1 && info.memoryMB >= 128, JSON.stringify(info))
    const seconds = (info.endAt - info.startedAt) / 1000
    assert(seconds >= 119 && seconds <= 121, `${seconds}`)
    equal((await Sandbox.getInfo(sandbox.sandboxId)).sandboxId, info.sandboxId)
  },

  async running() {
    equal(await sandbox.isRunning(), true)
  },

  async set_timeout() {
    await sandbox.setTimeout(600_000)
    const left = await secondsLeft()
    assert(Math.abs(left - 600) < 10, `${left}`)
  },

  // `connect` never shortens a life (2.6 and newer).
  async connect_keeps_expiry() {
    await connected()
    const left = await secondsLeft()
    assert(left > 500, `${left}`)
  },

  // Before 2.6 `connect` sets the timeout, and so shortens a life.
  async connect_sets_expiry() {
    await connected()
    const left = await secondsLeft()
    assert(Math.abs(left - 300) < 10, `${left}`)
  },

  async list_by_metadata() {
    const second = await create({ timeoutMs: 120_000, metadata })
    const want = [sandbox.sandboxId, second.sandboxId].sort()
    equal(ids(await listed({ query: { metadata } })), want)
    // One by one, so that a second page must be asked for.
    const paged = await listed({ query: { metadata }, limit: 1 })
    equal(ids(paged), want)
    equal(paged[0].metadata, metadata)
    equal(await listed({ query: { metadata: { ...metadata, 'a=b&c': 'else' } } }), [])
  },

  async list_by_state() {
    const of = async (state) => ids(await listed({ query: { metadata: { run: tag }, state } }))
    assert((await of(['running'])).includes(sandbox.sandboxId))
    assert((await of(['running', 'paused'])).includes(sandbox.sandboxId))
    equal(await of(['paused']), [])
  },

  async kill() {
    const second = await create({ timeoutMs: 120_000 })
    const id = second.sandboxId
    // The method of an instance returns nothing in old versions.
    equal(await Sandbox.kill(id), true)
    equal(await Sandbox.kill(id), false)
    await second.kill()
    equal(await second.isRunning(), false)
    // 2.0 has no class of its own for this.
    const error = await raised(e2b.SandboxError, () => second.getInfo())
    assert(error instanceof NotFoundError || /^(404|Sandbox .* not found)/.test(error.message), error.stack)
    await raised([TimeoutError, NotFoundError], () => second.commands.run('true'))
  },

  // The sandbox of `create_short` is gone on its own, soon after its time.
  async expiry() {
    const left = Math.max(0, shortCreated + 5_000 - performance.now())
    await until(async () => !(await short.isRunning()), left + 3_000)
    assert(!ids(await listed()).includes(short.sandboxId))
    // A kill that comes while its end is under way joins that; the next finds nothing.
    await Sandbox.kill(short.sandboxId)
    equal(await Sandbox.kill(short.sandboxId), false)
  },

  // Twenty at once, each of them usable.
  async burst() {
    const made = await Promise.all(Array.from({ length: 20 }, () => create({ timeoutMs: 120_000 })))
    equal(new Set(ids(made)).size, 20)
    const answers = await Promise.all(made.map((each) => each.commands.run('echo $E2B_SANDBOX_ID')))
    equal(answers.map((answer) => answer.stdout.trim()).sort(), ids(made))
    await Promise.all(made.map((each) => each.kill()))
  },
}

const commands = {
  async run_foreground() {
    const result = await sandbox.commands.run('echo out; echo err >&2')
    equal([result.stdout, result.stderr, result.exitCode], ['out\n', 'err\n', 0])
    equal((await sandbox.commands.run("echo 'Grüße ☕'")).stdout, 'Grüße ☕\n')
  },

  // Output arrives while the command runs, not at its end.
  async run_streams() {
    const seen = []
    await sandbox.commands.run('echo one; sleep 0.7; echo two >&2; sleep 0.7; echo three', {
      onStdout: (text) => void seen.push([performance.now(), 'out', text]),
      onStderr: (text) => void seen.push([performance.now(), 'err', text]),
    })
    equal(seen.map((entry) => entry.slice(1)), [['out', 'one\n'], ['err', 'two\n'], ['out', 'three\n']])
    assert(seen[1][0] - seen[0][0] > 400 && seen[2][0] - seen[1][0] > 400, JSON.stringify(seen))
  },

  async run_much_output() {
    const want = Array.from({ length: 200_000 }, (_, index) => `${index + 1}\n`).join('')
    assert((await sandbox.commands.run('seq 1 200000')).stdout === want)
  },

  async run_environment() {
    equal(await out('echo $GREETING $OVERRIDDEN', { envs: { OVERRIDDEN: 'run' } }), 'hello run')
    equal(await out('echo $GREETING $OVERRIDDEN'), 'hello create')
    equal(await out('echo $E2B_SANDBOX $E2B_SANDBOX_ID'), `true ${sandbox.sandboxId}`)
  },

  async run_directory() {
    equal(await out('pwd'), '/home/user')
    equal(await out('pwd', { cwd: '/tmp' }), '/tmp')
    await raised(InvalidArgumentError, () => out('pwd', { cwd: '/no/such' }))
  },

  async run_as_user() {
    equal(await out('whoami; id -u'), 'user\n1000')
    equal(await out('whoami; echo $HOME; pwd', { user: 'root' }), 'root\n/root\n/root')
  },

  async run_sudo() {
    equal(await out('sudo whoami'), 'root')
    const error = await raised(CommandExitError, () => out("sudo sh -c 'echo no >&2; exit 7'"))
    equal([error.exitCode, error.stderr], [7, 'no\n'])
  },

  async run_exit_code() {
    const error = await raised(CommandExitError, () => out('echo out; echo err >&2; exit 3'))
    equal([error.exitCode, error.stdout, error.stderr], [3, 'out\n', 'err\n'])
    equal((await raised(CommandExitError, () => out('no-such-program'))).exitCode, 127)
  },

  async run_timeout() {
    const started = performance.now()
    await raised(TimeoutError, () => out('sleep 0.5; echo; sleep 31.25', { timeoutMs: 1_000 }))
    const took = performance.now() - started
    assert(took > 800 && took < 5_000, `${took}`)
    await until(async () => !(await out('ps -eo args | grep -v grep || true')).includes('sleep 31.25'))
  },

  async background_wait() {
    const handle = await start('sleep 0.3; echo done')
    assert(handle.pid > 0)
    const result = await handle.wait()
    equal([result.stdout, result.exitCode], ['done\n', 0])
    const failing = await start('exit 5')
    equal((await raised(CommandExitError, () => failing.wait())).exitCode, 5)
  },

  async background_kill() {
    const handle = await start('sleep 100')
    equal(await handle.kill(), true)
    await raised(CommandExitError, () => handle.wait())
    equal(await sandbox.commands.kill(handle.pid), false)
  },

  async background_list_and_connect() {
    const command = 'until [ -e /tmp/go ]; do sleep 0.05; done; echo late; exit 4'
    const first = await start(command, { cwd: '/tmp', envs: { A: '1' } })
    const process = (await sandbox.commands.list()).find((each) => each.pid === first.pid)
    equal([process.cmd, process.args, process.cwd, process.envs.A], ['/bin/bash', ['-l', '-c', command], '/tmp', '1'])
    const second = await sandbox.commands.connect(first.pid)
    equal(second.pid, first.pid)
    await first.disconnect()
    await sandbox.files.write('/tmp/go', '')
    const error = await raised(CommandExitError, () => second.wait())
    equal([error.stdout, error.exitCode], ['late\n', 4])
    await raised(NotFoundError, () => sandbox.commands.connect(999_999))
  },

  // Input reaches a command whose output stream is open.
  async stdin() {
    const handle = await start('read line; echo got $line', { stdin: true })
    await sandbox.commands.sendStdin(handle.pid, 'some text\n')
    equal((await handle.wait()).stdout, 'got some text\n')
  },

  async stdin_close() {
    const handle = await start('cat', { stdin: true })
    await sandbox.commands.sendStdin(handle.pid, 'all of it')
    await sandbox.commands.closeStdin(handle.pid)
    equal((await handle.wait()).stdout, 'all of it')
  },
}

const files = {
  async files_write_and_read() {
    const text = 'Zeile 1\nline 2 ☕\n'
    const written = await sandbox.files.write('notes/first.txt', text)
    equal([written.path, written.name], ['/home/user/notes/first.txt', 'first.txt'])
    equal(await sandbox.files.read('/home/user/notes/first.txt'), text)
    const data = Uint8Array.from({ length: 1280 }, (_, index) => index % 256)
    await sandbox.files.write('/tmp/all bytes + ü.bin', data.buffer)
    equal(await sandbox.files.read('/tmp/all bytes + ü.bin', { format: 'bytes' }), data)
    await sandbox.files.write('/tmp/from-stream', new Blob([data]).stream())
    equal(await bytes(await sandbox.files.read('/tmp/from-stream', { format: 'stream' })), Buffer.from(data))
    equal(Buffer.from(await (await sandbox.files.read('/tmp/from-stream', { format: 'blob' })).arrayBuffer()), Buffer.from(data))
    await sandbox.files.write('/tmp/empty', '')
    equal(await sandbox.files.read('/tmp/empty'), '')
    equal(await out("stat -c '%U:%G %a' notes notes/first.txt"), 'user:user 755\nuser:user 644')
  },

  async files_large() {
    const data = randomBytes(8 * 1024 * 1024)
    await sandbox.files.write('/tmp/large', new Blob([data]))
    equal(await out("sha256sum < /tmp/large | cut -d' ' -f1"), createHash('sha256').update(data).digest('hex'))
    assert((await bytes(await sandbox.files.read('/tmp/large', { format: 'stream' }))).equals(data))
  },

  async files_write_many() {
    const written = await sandbox.files.write([
      { path: 'many/a.txt', data: 'A' },
      { path: '/tmp/many/b.bin', data: Uint8Array.from([0, 66]).buffer },
    ])
    equal(written.map((entry) => entry.path), ['/home/user/many/a.txt', '/tmp/many/b.bin'])
    equal(await out('cat many/a.txt; stat -c %s /tmp/many/b.bin'), 'A2')
  },

  // The newer form of upload, plain and compressed; what is stored is never compressed.
  async files_octet_stream() {
    for (const [name, options] of [['plain', {}], ['gzip', { gzip: true }]]) {
      const text = name.repeat(10_000)
      await sandbox.files.write(`/tmp/${name}`, text, { useOctetStream: true, ...options })
      equal(await out(`stat -c %s /tmp/${name}`), `${text.length}`)
      equal(await sandbox.files.read(`/tmp/${name}`, options), text)
    }
  },

  async files_list() {
    await out('mkdir -p tree/a/b; echo c > tree/a/b/c.txt; echo d > tree/d.txt')
    const paths = async (options) =>
      (await sandbox.files.list('tree', options)).map((entry) => entry.path.replace('/home/user/tree/', ''))
    equal(await paths(), ['a', 'd.txt'])
    equal(await paths({ depth: 2 }), ['a', 'a/b', 'd.txt'])
    equal(await paths({ depth: 3 }), ['a', 'a/b', 'a/b/c.txt', 'd.txt'])
    const entries = (await sandbox.files.list('/home/user/tree')).map((entry) => [entry.name, entry.type])
    equal(entries, [['a', 'dir'], ['d.txt', 'file']])
    await raised(NotFoundError, () => sandbox.files.list('/no/such'))
  },

  async files_info() {
    await out('echo 12345 > info.txt; chmod 640 info.txt; ln -sf info.txt info.link')
    const info = await sandbox.files.getInfo('info.txt')
    equal([info.name, info.path, info.type, info.size], ['info.txt', '/home/user/info.txt', 'file', 6])
    equal([info.mode, info.permissions, info.owner, info.group], [0o640, '-rw-r-----', 'user', 'user'])
    assert(Math.abs(Date.now() - info.modifiedTime) < 60_000, `${info.modifiedTime}`)
    equal((await sandbox.files.getInfo('info.link')).symlinkTarget, '/home/user/info.txt')
    equal((await sandbox.files.getInfo('/tmp')).type, 'dir')
    await raised(NotFoundError, () => sandbox.files.getInfo('/no/such'))
  },

  async files_exists() {
    equal(await sandbox.files.exists('/etc/passwd'), true)
    equal(await sandbox.files.exists('/no/such'), false)
  },

  async files_rename() {
    await sandbox.files.write('old name.txt', 'x')
    equal((await sandbox.files.rename('old name.txt', 'deep/er/new.txt')).path, '/home/user/deep/er/new.txt')
    equal(await sandbox.files.exists('old name.txt'), false)
    equal(await sandbox.files.read('deep/er/new.txt'), 'x')
    await raised(NotFoundError, () => sandbox.files.rename('old name.txt', 'elsewhere'))
  },

  async files_make_dir() {
    equal(await sandbox.files.makeDir('made/of/parts'), true)
    equal(await sandbox.files.makeDir('made/of/parts'), false)
    equal(await out("stat -c '%U %a %F' made/of/parts"), 'user 755 directory')
  },

  async files_remove() {
    await sandbox.files.write('gone/file', 'x')
    await sandbox.files.remove('gone')
    equal(await sandbox.files.exists('gone'), false)
  },

  // The kind of the error and its text, which people and programs look at.
  async files_missing() {
    const error = await raised(NotFoundError, () => sandbox.files.read('no/such/file'))
    assert.match(error.message, /does not exist/)
  },

  async files_as_root() {
    await sandbox.files.write('secret', "root's", { user: 'root' })
    equal(await sandbox.files.read('/root/secret', { user: 'root' }), "root's")
    equal(await out('stat -c %U /root/secret', { user: 'root' }), 'root')
  },

  // What a file was labelled with is told until it is written again without labels.
  async files_metadata() {
    const written = await sandbox.files.write('labelled', 'x', { metadata: { author: 'me' } })
    equal(written.metadata, { author: 'me' })
    equal((await sandbox.files.getInfo('labelled')).metadata, { author: 'me' })
    await sandbox.files.write('labelled', 'y')
    equal((await sandbox.files.getInfo('labelled')).metadata ?? {}, {})
  },

  // Changes in a directory, and below it, are told while they happen.
  async files_watch() {
    await sandbox.files.makeDir('watched/below')
    const seen = new Set()
    const handle = await sandbox.files.watchDir(
      'watched',
      (event) => void seen.add(`${event.type} ${event.name}`),
      { recursive: true }
    )
    await sandbox.files.write('watched/below/new.txt', 'x')
    await until(() => seen.has('create below/new.txt') && seen.has('write below/new.txt'))
    await handle.stop()
  },

  // A URL with a signature works for programs that hold no token, and only for what was signed.
  async files_signed_urls() {
    await sandbox.files.write('signed.txt', 'by url')
    const down = await sandbox.downloadUrl('signed.txt', { user: 'user', useSignatureExpiration: 60 })
    const up = await sandbox.uploadUrl('uploaded.txt', { user: 'user' })
    equal(await (await fetch(down)).text(), 'by url')
    equal((await fetch(down.replace('signed.txt', 'other.txt'))).status, 401)
    const form = new FormData()
    form.append('file', new Blob(['sent']), 'uploaded.txt')
    equal((await fetch(up, { method: 'POST', body: form })).status, 200)
    equal(await sandbox.files.read('uploaded.txt'), 'sent')
  },
}

const terminals = {
  async pty() {
    let output = ''
    const decoder = new TextDecoder()
    const handle = await sandbox.pty.create({
      rows: 24,
      cols: 80,
      cwd: '/tmp',
      envs: { MARK: 'set' },
      onData: (data) => void (output += decoder.decode(data, { stream: true })),
    })
    const type = (line) => sandbox.pty.sendInput(handle.pid, new TextEncoder().encode(line))
    const typed = async (line, file, want) => {
      await type(line)
      await until(async () => (await out(`cat ${file} 2>/dev/null || true`)) === want)
    }
    await typed('echo $MARK $TERM $(pwd) > /tmp/pty.env\n', '/tmp/pty.env', 'set xterm-256color /tmp')
    await typed('stty size > /tmp/pty.1\n', '/tmp/pty.1', '24 80')
    await sandbox.pty.resize(handle.pid, { rows: 30, cols: 100 })
    await typed('stty size > /tmp/pty.2\n', '/tmp/pty.2', '30 100')
    await typed('sudo whoami > /tmp/pty.3\n', '/tmp/pty.3', 'root')
    await type("echo visi''ble; exit\n")
    equal((await handle.wait()).exitCode, 0)
    assert.match(output, /visible/)
  },

  async pty_kill() {
    const handle = await sandbox.pty.create({ rows: 24, cols: 80, onData: () => {} })
    assert((await sandbox.commands.list()).some((each) => each.pid === handle.pid))
    equal(await sandbox.pty.kill(handle.pid), true)
    await raised(CommandExitError, () => handle.wait())
    equal(await sandbox.pty.kill(handle.pid), false)
  },
}

const network = {
  // A server started inside answers under its own host name, and a closed port says so.
  async get_host() {
    await sandbox.files.write('site/page.txt', 'from inside')
    const url = `https://${sandbox.getHost(8000)}/page.txt`
    const closed = await fetch(url)
    equal([closed.status, (await closed.json()).port], [502, 8000])
    const server = await start('python3 -m http.server 8000 --bind 0.0.0.0', { cwd: '/home/user/site' })
    await until(async () => (await fetch(url)).status === 200)
    equal(await (await fetch(url)).text(), 'from inside')
    await server.kill()
  },

  // `allowInternetAccess: false`: no address is reached, no name resolves, the agent still answers.
  async no_internet() {
    const closed = await create({ timeoutMs: 120_000, allowInternetAccess: false })
    for (const command of [
      'getent hosts deb.debian.org',
      "timeout 3 bash -c 'echo > /dev/tcp/1.1.1.1/443'",
      "timeout 3 bash -c 'echo > /dev/tcp/8.8.8.8/53'",
    ]) {
      await raised(CommandExitError, () => closed.commands.run(command))
    }
    equal((await closed.commands.run('echo fine')).stdout, 'fine\n')
  },

  // `secure: false` (before 2.51): no token is handed out and none is needed.
  async insecure() {
    const open = await create({ timeoutMs: 120_000, secure: false })
    equal(open.envdAccessToken, undefined)
    equal((await open.commands.run('echo open')).stdout, 'open\n')
    await open.files.write('a', 'b')
    equal(await open.files.read('a'), 'b')
  },
}

try {
  await report({ ...life, ...commands, ...files, ...terminals, ...network }, process.argv.slice(2))
} finally {
  await Promise.allSettled(others.map((each) => each.kill()))
}
// A hung background stream of the client must not keep the process.
process.exit(0)
