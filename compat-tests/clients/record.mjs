// Recordings of real clients for 'sigver replay': each netflux version with the sigver release it was made for,
// through 'sigver record'. See README.md, or --help.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { runContest } from './lib/contest.mjs'
import { COMMON_USAGE, readOptions } from './lib/options.mjs'
import { startOriginal } from './lib/original.mjs'
import { conclude, printResult } from './lib/report.mjs'

const USAGE = `Usage: node record.mjs --server-bin FILE --out DIR [options]

  --server-bin FILE    the program, as 'sigver record'
  --out DIR            where the recordings are written, netflux-VERSION.jsonl; old ones are replaced
  --originals DIR      where the sigver releases are installed (default: ../originals)${COMMON_USAGE}`

const options = readOptions(USAGE, {
  'server-bin': { type: 'string' },
  out: { type: 'string' },
  originals: { type: 'string', default: fileURLToPath(new URL('../originals', import.meta.url)) }
}, (values) => {
  if (!values['server-bin'] || !values.out) {
    throw new Error('--server-bin takes the program, --out a folder')
  }
})

// Connections of one scenario only: the recorder begins a new one when no client is connected.
async function startRecorder (upstream, name, file) {
  rmSync(file, { force: true })
  const args = ['record', '--upstream', upstream, '--listen', '127.0.0.1:0', '--name', name, '--out', file]
  const child = spawn(options['server-bin'], args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = once(child, 'exit')
  const [line] = await once(createInterface(child.stderr), 'line')
  const url = /(ws:\/\/127\.0\.0\.1:\d+)/.exec(line)?.[1]
  if (!url) {
    throw new Error(`${options['server-bin']} does not record: ${line}`)
  }
  return {
    url,
    async stop () {
      child.kill('SIGINT')
      await exited
    }
  }
}

async function record ([spec]) {
  const server = await startOriginal(options.originals, spec.original)
  const file = join(options.out, `netflux-${spec.version}.jsonl`)
  const recorder = await startRecorder(server.url, `netflux-${spec.version}`, file)
  try {
    const contestant = { name: spec.version, server: `sigver ${spec.original}`, url: recorder.url, lineUp: [spec], retries: 0 }
    return (await runContest([contestant], { ...options, onResult: printResult })).entries
  } finally {
    await recorder.stop()
    server.stop()
  }
}

const entries = []
for (const lineUp of options.lineUps) {
  entries.push(...await record(lineUp))
}
process.exitCode = conclude(entries)
