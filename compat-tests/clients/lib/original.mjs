// Starts a Node.js sigver release from an installation of all of them (packages named sigver-VERSION).

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { canConnect, freePort } from './ports.mjs'

const BIND = fileURLToPath(new URL('../../originals/bind.js', import.meta.url))
const START_LIMIT_MS = 10_000

// `retries`: 7.6.4 closes the opener's socket when a late candidate meets a leaving joiner.
const RELEASES = {
  '7.1.0': { entry: 'server.es5.js', bound: true },
  '7.6.4': { entry: 'bin/index.es5.min.js', retries: 3 },
  '8.1.0': { entry: 'server.js' },
  '9.1.0': { entry: 'server.js' },
  '10.1.0': { entry: 'server.js' },
  '15.0.4': { entry: 'server.js' },
  '18.0.0': { entry: 'server.js' },
  '20.1.0': { entry: 'dist/server.js' }
}

export function retriesFor (release) {
  return RELEASES[release].retries ?? 0
}

// A release whose port is hard-coded gets it from a preload.
function commandLine (directory, release, port, more) {
  const { entry, bound } = RELEASES[release]
  const script = join(directory, 'node_modules', `sigver-${release}`, entry)
  if (!existsSync(script)) {
    throw new Error(`sigver ${release} is not installed: ${script} is missing`)
  }
  return bound ? ['-r', BIND, script] : [script, '-h', '127.0.0.1', '-p', String(port), ...more]
}

export async function startOriginal (directory, release, more = []) {
  const port = await freePort()
  const node = join(directory, 'node_modules', 'node8', 'bin', 'node')
  const child = spawn(node, commandLine(directory, release, port, more), {
    env: { PATH: process.env.PATH, ORIGINAL_PORT: String(port) },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  const output = []
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => output.push(text))
  }
  let failure
  child.once('error', (error) => { failure = error.message })
  child.once('exit', (code, signal) => { failure ??= `ended with ${code ?? signal}` })

  const deadline = Date.now() + START_LIMIT_MS
  while (!(await canConnect(port))) {
    if (failure || Date.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error(`sigver ${release} does not start: ${failure ?? 'no port opened'}\n${output.join('')}`)
    }
    await sleep(50)
  }
  return {
    release,
    url: `ws://127.0.0.1:${port}`,
    output: () => output.join(''),
    // The reason if the server is no longer running.
    failure: () => failure,
    stop () {
      process.off('exit', kill)
      kill()
    }
  }
}
