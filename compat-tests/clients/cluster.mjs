// Pages with netflux at different nodes of a cluster: pairs of all versions, old and new, and crowds that are kept apart by generation.
// Starts a Redis, the nodes, and a proxy that sends each connection to the next node. See README.md, or --help.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { bundlePath } from './lib/bundles.mjs'
import { runCrowds } from './lib/crowd.mjs'
import { startGateway } from './lib/gateway.mjs'
import { complaints, conclusion } from './lib/matrix.mjs'
import { nameLineUp, parse, positive } from './lib/options.mjs'
import { runPairs } from './lib/pairs.mjs'
import { canConnect, freePort } from './lib/ports.mjs'
import { findVersion, VERSIONS } from './lib/versions.mjs'

const USAGE = `Usage: node cluster.mjs --server-bin FILE [options]

  --redis FILE         the Redis server, or Valkey's (default: redis-server)
  --limit MS           longest wait for anything (default: 15000)`

const OPTIONS = {
  'server-bin': { type: 'string' },
  redis: { type: 'string', default: 'redis-server' },
  limit: { type: 'string', default: '15000' }
}

// Member and joiner of one version each, and of these.
const MIXED = ['0.10.3:4.3.1', '4.3.1:0.10.8', '1.0.0-rc.14:3.0.0', '3.0.0:1.1.0-beta.8', '1.1.0-beta.7:4.3.0', '4.3.0:1.0.0-rc.3']
const CROWD = '0.10.8+beta.8+4.3.1'
const NODES = 3
// The grace of the first generation, in which no room is given away.
const GRACE_MS = 5_000

const options = parse(USAGE, OPTIONS, (values) => {
  if (values['server-bin'] === undefined) {
    throw new Error('--server-bin is missing')
  }
  const pairs = [...Object.keys(VERSIONS).map((name) => `${name}:${name}`), ...MIXED].map((pair) => {
    const [member, joiner] = pair.split(':').map(findVersion)
    return { member, joiner }
  })
  pairs.forEach(({ member, joiner }) => [member, joiner].forEach(bundlePath))
  return { ...values, pairs, limit: positive(values, 'limit') }
})

const directory = mkdtempSync(join(tmpdir(), 'sigver-cluster-'))
const redisPort = await freePort()
const redis = spawn(options.redis, ['--port', `${redisPort}`, '--bind', '127.0.0.1', '--save', '', '--dir', directory], { stdio: 'ignore' })
process.once('exit', () => {
  redis.kill('SIGKILL')
  rmSync(directory, { recursive: true, force: true })
})
for (const deadline = Date.now() + 10_000; !(await canConnect(redisPort)); await sleep(50)) {
  if (Date.now() > deadline) throw new Error(`${options.redis} does not listen`)
}

// Starts nodes with these arguments, and a proxy that sends each connection to the next of them.
async function startCluster (name, args) {
  const nodes = []
  for (let index = 0; index < NODES; index++) {
    nodes.push(await startGateway(options['server-bin'], ['-h', '127.0.0.1', '-p', `${await freePort()}`, '--node-port', `${await freePort()}`,
      '--log', 'error', '--cluster', `redis://127.0.0.1:${redisPort}`, '--cluster-name', name, ...args]))
  }
  await sleep(GRACE_MS)
  let count = 0
  const proxy = createServer((client) => {
    const node = connect(nodes[count++ % NODES].port, '127.0.0.1')
    for (const [from, to] of [[client, node], [node, client]]) {
      from.setNoDelay(true)
      from.pipe(to)
      from.on('error', () => to.destroy())
      from.on('close', () => to.destroy())
    }
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const stop = async () => {
    proxy.close()
    await Promise.all(nodes.map((node) => node.stop()))
  }
  return { signaling: `ws://127.0.0.1:${proxy.address().port}`, stop }
}

const print = (lines) => lines.forEach((line) => console.log(line))

// One pair at a time, so that its two pages are at two nodes.
const shared = await startCluster('shared', [])
const pairs = await runPairs(options.pairs, { ...options, ...shared, parallel: 1, onResult: (result) => print(complaints(result)) })
await shared.stop()
print(conclusion(pairs))

const apart = await startCluster('apart', ['--rooms', 'by-generation'])
const crowds = await runCrowds([CROWD.split('+').map(findVersion)], { ...options, ...apart, onResult: ({ specs, passed, attempts }) => {
  const { reason, delivered, expected, log } = attempts.at(-1)
  console.log(`${passed ? 'ok    ' : 'FAILED'} ${nameLineUp(specs)}, two each: messages ${delivered}/${expected}${passed ? '' : `: ${reason}`}`)
  if (!passed) print(log)
} })
await apart.stop()

const passed = [...pairs, ...crowds].filter((result) => result.passed).length
console.log(`cluster: ${passed} of ${pairs.length + crowds.length}`)
process.exit(passed === pairs.length + crowds.length ? 0 : 1)
