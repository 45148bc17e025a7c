// The same for clients before 2.0: the little that is promised for them.
//
// Usage: legacy.mjs CHECK...

import assert from 'node:assert/strict'
import { Sandbox } from 'e2b'
import { report } from './report.mjs'

let sandbox

const checks = {
  async create() {
    sandbox = await Sandbox.create('base', { timeoutMs: 60_000 })
  },

  async run_foreground() {
    const result = await sandbox.commands.run('echo hi; echo err >&2')
    assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['hi\n', 'err\n', 0])
  },

  async files_write_and_read() {
    await sandbox.files.write('notes/first.txt', 'Zeile ☕')
    assert.equal(await sandbox.files.read('/home/user/notes/first.txt'), 'Zeile ☕')
    assert.deepEqual((await sandbox.files.list('notes')).map((entry) => entry.name), ['first.txt'])
  },

  async kill() {
    assert.equal(await sandbox.isRunning(), true)
    assert.equal(await Sandbox.kill(sandbox.sandboxId), true)
    assert.equal(await Sandbox.kill(sandbox.sandboxId), false)
    assert.equal(await sandbox.isRunning(), false)
  },
}

await report(checks, process.argv.slice(2))
process.exit(0)
