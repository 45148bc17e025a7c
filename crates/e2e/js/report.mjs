// Runs checks in the order given and prints one JSON line for each.

const DEADLINE_MS = 90_000

export async function report(checks, names) {
  for (const name of names) {
    const started = performance.now()
    const line = { check: name, ok: true, detail: '' }
    let timer
    try {
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not within ${DEADLINE_MS} ms`)), DEADLINE_MS)
      })
      await Promise.race([checks[name](), late])
    } catch (error) {
      // The report is the result: nothing a check does may end the run.
      line.ok = false
      line.detail = String(error?.stack ?? error)
    }
    clearTimeout(timer)
    line.millis = Math.round(performance.now() - started)
    process.stdout.write(JSON.stringify(line) + '\n')
  }
}
