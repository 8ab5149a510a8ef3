// HAProxy, nginx and Caddy in front of three nodes of a cluster, with the snippets of docs/howto/cluster.md: pairs of clients meet, on
// whichever nodes they are, also while one node after the other is stopped and replaced. Then Redis is stopped, and each node does what its
// --engine-loss requires. Needs a Redis. Exit 1 if anything fails.

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { canConnect, freePort } from '../clients/lib/ports.mjs'
import { openWebSocket } from './websocket.mjs'

const DOCS = fileURLToPath(new URL('../../docs/howto/cluster.md', import.meta.url))
const SERVER = fileURLToPath(new URL('../../target/release/sigver', import.meta.url))
// Debian has the proxies where only root looks.
const PATH = `${process.env.PATH}:/usr/sbin`
const LIMIT_MS = 10_000
// The grace of the first generation, in which no room is given away.
const GRACE_MS = 5_000
const NODES = ['a', 'b', 'c']
const ENGINE_LOSS = { a: 'continue', b: 'refuse-new', c: 'close' }
// Longer than the loss of Redis that has no consequence, and than closing all rooms takes.
const LOSS_MS = 14_000
// What netflux waits before it comes again.
const REJOIN_MS = 3_000

const { values } = parseArgs({
  options: { 'server-bin': { type: 'string', default: SERVER }, redis: { type: 'string', default: 'redis-server' } }
})
const directory = mkdtempSync(join(tmpdir(), 'sigver-cluster-'))
const children = []
process.once('exit', () => {
  children.forEach((child) => child.kill('SIGTERM'))
  rmSync(directory, { recursive: true, force: true })
})

function start (command) {
  const env = { ...process.env, PATH, HOME: directory, XDG_CONFIG_HOME: directory, XDG_DATA_HOME: directory }
  const child = spawn(command[0], command.slice(1), { env, stdio: ['ignore', 'ignore', 'pipe'] })
  children.push(child)
  child.errors = ''
  child.stderr.setEncoding('utf8').on('data', (text) => { child.errors += text })
  child.once('error', (error) => { child.errors += error.message })
  return child
}

async function listens (child, port) {
  const deadline = Date.now() + LIMIT_MS
  while (!(await canConnect(port))) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`${child.spawnfile} does not listen: ${child.errors}`)
    await sleep(50)
  }
}

function startNode (name) {
  const { port, links, admin } = nodes[name]
  nodes[name].child = start([values['server-bin'], '-h', '127.0.0.1', '-p', `${port}`, '--node-port', `${links}`, '--node-name', name,
    '--cluster', `redis://127.0.0.1:${redis}`, '--control', 'off', '--drain-timeout', '2', '--admin', `127.0.0.1:${admin}`, '--engine-loss', ENGINE_LOSS[name]])
  return listens(nodes[name].child, port)
}

// The snippet in a fenced block of this language, with the nodes' addresses: the line of the first node stands for all.
function snippet (language, changes) {
  const [, text] = readFileSync(DOCS, 'utf8').match(new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``)) ?? []
  return Object.entries({ '10.0.0.2:8000': `127.0.0.1:${nodes.a.port}`, '10.0.0.3:8000': `127.0.0.1:${nodes.b.port}`, ...changes })
    .reduce((text, [from, to]) => {
      if (!text.includes(from)) throw new Error(`the block '${language}' has no ${from}`)
      return text.replaceAll(from, to)
    }, text)
}

const third = () => `127.0.0.1:${nodes.c.port}`
const proxies = {
  HAProxy: {
    serve: (file) => ['haproxy', '-db', '-f', file],
    config: (port) => `${snippet('haproxy', { 'bind :80': `bind 127.0.0.1:${port}` })}    server c ${third()} check inter 1s\n`
  },
  nginx: {
    serve: (file) => ['nginx', '-p', directory, '-c', file],
    config: (port) => `daemon off; worker_processes 1; pid ${directory}/nginx.pid; error_log stderr;
events {}
http {
    access_log off;
    ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/${name};`).join(' ')}
    ${snippet('nginx', { 'listen 80': `listen 127.0.0.1:${port}`, 'least_conn;': `least_conn; server ${third()} max_fails=1 fail_timeout=2s;` })}
}`
  },
  Caddy: {
    serve: (file) => ['caddy', 'run', '--adapter', 'caddyfile', '--config', file],
    config: (port) => `{
    admin off
}
${snippet('caddyfile', { 'example.org': `http://127.0.0.1:${port}`, 'reverse_proxy ': `reverse_proxy ${third()} ` })}`
  }
}

function within (what, promise, limit = LIMIT_MS) {
  const late = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`no ${what} within ${limit} ms`)), limit).unref()
  })
  return Promise.race([promise, late])
}

// Two clients of sigver 20 in a new room: one is first, and the other is not.
async function pair (port) {
  const path = `/${Math.random()}`
  const sockets = []
  try {
    for (const expected of ['2001', '2000']) {
      const socket = await within('upgrade', openWebSocket(port, path))
      sockets.push(socket)
      socket.send(Buffer.from('1a02080b', 'hex'))
      const answer = await within('answer', socket.receive())
      if (answer.toString('hex') !== expected) throw new Error(`${answer.toString('hex')} instead of ${expected}`)
    }
  } finally {
    sockets.forEach((socket) => socket.close())
  }
}

// As a real client does: once more after some seconds if a node ended in between.
async function pairs (name, port, until) {
  const counts = { met: 0, 'came again': 0 }
  const failures = []
  const running = []
  while (!until.done) {
    running.push((async () => {
      try {
        await pair(port)
      } catch {
        counts['came again']++
        await sleep(REJOIN_MS)
        await pair(port).catch((error) => failures.push(`${name}: ${error.message}`))
      }
      counts.met++
    })())
    await sleep(60)
  }
  await Promise.all(running)
  return { name, counts, failures }
}

// A client of sigver 9, which sends no heartbeats, in a new room.
async function first (name) {
  const socket = await within('upgrade', openWebSocket(nodes[name].port, '/'))
  socket.send(JSON.stringify({ open: `${Math.random()}` }))
  return socket
}

async function admin (name, path) {
  const response = await fetch(`http://127.0.0.1:${nodes[name].admin}/${path}`)
  return { status: response.status, text: await response.text() }
}

// What the nodes report and do while Redis answers, and when it does not for longer than a restart takes.
async function loss () {
  const failures = []
  const expect = (what, found, wanted) => {
    if (found !== wanted) failures.push(`${what}: ${found}, not ${wanted}`)
  }
  const members = {}
  for (const name of NODES) {
    members[name] = await first(name)
    expect('a first member', JSON.parse(await within('answer', members[name].receive())).opened, true)
    expect(`readyz of ${name}`, (await admin(name, 'readyz')).text, 'ready\n')
    const { cluster } = JSON.parse((await admin(name, 'status')).text)
    expect(`nodes of ${name}`, cluster.nodes.map(({ node_name: other, linked }) => `${other} ${linked}`).join(), NODES.filter((other) => other !== name).map((other) => `${other} true`).join())
    expect(`rooms of ${name}`, cluster.rooms, 1)
    expect(`metrics of ${name}`, /^sigver_cluster_engine_up 1$/m.test((await admin(name, 'metrics')).text), true)
  }
  const ended = new Promise((resolve) => server.once('exit', resolve))
  server.kill('SIGKILL')
  await ended
  await sleep(LOSS_MS)
  for (const name of NODES) {
    const { status, text } = await admin(name, 'readyz')
    expect(`readyz of ${name}`, `${status} ${/Redis does not answer/.test(text)}`, `${name === 'c' ? 503 : 200} true`)
    expect(`metrics of ${name}`, /^sigver_cluster_engine_up 0$/m.test((await admin(name, 'metrics')).text), true)
  }
  const soon = (promise) => Promise.race([promise, sleep(3_000).then(() => 'nothing')])
  const newcomers = Object.fromEntries(await Promise.all(NODES.map(async (name) => [name, await first(name)])))
  const closes = await Promise.all([...NODES.map((name) => soon(newcomers[name].closing)), soon(members.c.closing), ...['a', 'b'].map((name) => soon(members[name].closing))])
  expect('newcomers to new rooms, and members', closes.join(), 'nothing,1013,1013,1012,nothing,nothing')
  expect('a newcomer that waits', await within('close', newcomers.a.closing), 1013)
  console.log('loss of Redis: continue, refuse-new and close do what is documented')
  return { failures }
}

const redis = await freePort()
const server = start([values.redis, '--port', `${redis}`, '--bind', '127.0.0.1', '--save', '', '--dir', directory])
await listens(server, redis)
const nodes = {}
for (const name of NODES) {
  nodes[name] = { port: await freePort(), links: await freePort(), admin: await freePort() }
}
await Promise.all(NODES.map(startNode))
const ports = {}
for (const [name, { serve, config }] of Object.entries(proxies)) {
  ports[name] = await freePort()
  const file = join(directory, `${name}.conf`)
  writeFileSync(file, config(ports[name]))
  await listens(start(serve(file)), ports[name])
}
await sleep(GRACE_MS)
const until = { done: false }
const load = Object.entries(ports).map(([name, port]) => pairs(name, port, until))
await sleep(2_000)
for (const name of NODES) {
  const ended = new Promise((resolve) => nodes[name].child.once('exit', resolve))
  nodes[name].child.kill('SIGTERM')
  await within('end of a node', ended)
  await startNode(name)
  await sleep(2_000)
}
until.done = true
const results = await Promise.all(load)
for (const { name, counts } of results) {
  console.log(`${name}: ${counts.met} pairs met through three nodes, which were replaced in between; ${counts['came again']} came again`)
}
const failures = [...results, await loss()].flatMap(({ failures }) => failures)
failures.slice(0, 10).forEach((failure) => console.log(`FAIL  ${failure}`))
process.exit(failures.length > 0 ? 1 : 0)
