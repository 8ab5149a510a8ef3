// Reverse proxies in front of the gateway, with the snippets of docs/howto/reverse-proxy.md: through each a health check, a
// pair on WebSockets, the key in a path, an event stream, and the limit of a client's address. Prints a table; exit 1 if anything fails. See README.md.

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { connect as connectTo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { canConnect, freePort } from '../clients/lib/ports.mjs'
import { openWebSocket } from './websocket.mjs'

const DOCS = fileURLToPath(new URL('../../docs/howto/reverse-proxy.md', import.meta.url))
const SERVER = fileURLToPath(new URL('../../target/release/sigver', import.meta.url))
const USAGE = `Usage: node run.mjs [--server-bin FILE] [--limit MS]

  --server-bin FILE    the gateway (default: target/release/sigver)
  --limit MS           longest wait for anything (default: 10000)`
// Debian has the proxies where only root looks.
const PATH = `${process.env.PATH}:/usr/sbin`
// Connections of one address. Above those of all other checks together, whose clients have the address of the proxy.
const PER_ADDRESS = 40

const { values } = parseArgs({
  options: {
    'server-bin': { type: 'string', default: SERVER },
    limit: { type: 'string', default: '10000' },
    help: { type: 'boolean', short: 'h', default: false }
  }
})
if (values.help) {
  console.log(USAGE)
  process.exit()
}
const limit = Number(values.limit)
const directory = mkdtempSync(join(tmpdir(), 'sigver-proxies-'))
const children = []
process.once('exit', () => {
  children.forEach((child) => child.kill('SIGTERM'))
  rmSync(directory, { recursive: true, force: true })
})

// The snippet in a fenced block of this language, the first or another one, for other addresses than the documented ones.
function snippet (language, changes, at = 0) {
  const blocks = [...readFileSync(DOCS, 'utf8').matchAll(new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``, 'g'))]
  const [, text] = blocks[at] ?? []
  if (text === undefined) {
    throw new Error(`${DOCS} has no block '${language}'`)
  }
  return Object.entries(changes).reduce((text, [from, to]) => {
    if (!text.includes(from)) {
      throw new Error(`the block '${language}' has no ${from}`)
    }
    return text.replaceAll(from, to)
  }, text)
}

const nginx = (port, location) => `daemon off; worker_processes 1; pid ${directory}/nginx-${port}.pid; error_log stderr;
events {}
http {
    access_log off;
    ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/${name}-${port};`).join(' ')}
    server { listen 127.0.0.1:${port}; ${location} }
}`

// `name`, the command that prints the version, the one that serves with the configuration `file`, and that configuration.
const proxies = [
  {
    name: 'nginx',
    version: ['nginx', '-v'],
    serve: (file) => ['nginx', '-p', directory, '-c', file],
    config: (port, server) => nginx(port, snippet('nginx', { '127.0.0.1:8000': server }))
  },
  {
    // As it is without the lines about buffering, HTTP/1.1 and the client's address.
    name: 'nginx, its defaults',
    hidesClients: true,
    version: ['nginx', '-v'],
    serve: (file) => ['nginx', '-p', directory, '-c', file],
    config: (port, server) => nginx(port, `location / {
        proxy_pass http://${server};
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }`)
  },
  {
    name: 'Caddy',
    version: ['caddy', 'version'],
    serve: (file) => ['caddy', 'run', '--adapter', 'caddyfile', '--config', file],
    config: (port, server) => `{
    admin off
}
${snippet('caddyfile', { 'example.org': `http://127.0.0.1:${port}`, '127.0.0.1:8000': server })}`
  },
  {
    name: 'HAProxy',
    version: ['haproxy', '-v'],
    serve: (file) => ['haproxy', '-db', '-f', file],
    config: (port, server) => `global
    stats socket ${directory}/haproxy.sock
${snippet('haproxy', { 'bind :80': `bind 127.0.0.1:${port}`, '127.0.0.1:8000': server })}`,
    ownCheck: haproxyCheck
  },
  {
    name: 'HAProxy, PROXY protocol',
    version: ['haproxy', '-v'],
    serve: (file) => ['haproxy', '-db', '-f', file],
    config: (port, server) => snippet('haproxy', { 'bind :443': `bind 127.0.0.1:${port}`, '127.0.0.1:8443': server }, 1)
  },
  {
    name: 'Apache',
    version: ['apache2', '-v'],
    serve: (file) => ['apache2', '-DFOREGROUND', '-f', file],
    config: (port, server) => `ServerRoot ${directory}
ServerName localhost
PidFile ${directory}/apache.pid
ErrorLog ${directory}/apache.log
Listen 127.0.0.1:${port}
User www-data
Group www-data
${['mpm_event', 'authz_core', 'proxy', 'proxy_http'].map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n')}
${snippet('apache', { '127.0.0.1:8000': server })}`
  }
]

function start (command, name) {
  const child = spawn(command[0], command.slice(1), {
    env: { ...process.env, PATH, HOME: directory, XDG_CONFIG_HOME: directory, XDG_DATA_HOME: directory, SIGVER_CONTROL: 'off' },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  children.push(child)
  const output = []
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => output.push(text))
  }
  child.once('error', (error) => output.push(error.message))
  return { name, child, output: () => output.join('').trim() }
}

async function listens (process, port) {
  const deadline = Date.now() + limit
  while (!(await canConnect(port))) {
    if (process.child.exitCode !== null || Date.now() > deadline) {
      throw new Error(`${process.name} does not listen: ${process.output()}`)
    }
    await sleep(50)
  }
}

function within (what, promise) {
  const late = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`no ${what} within ${limit} ms`)), limit).unref()
  })
  return Promise.race([promise, late])
}

function request (port, options, body) {
  return within('response', new Promise((resolve, reject) => {
    const sent = http.request({ host: '127.0.0.1', port, agent: false, ...options }, resolve)
    sent.once('error', reject)
    sent.end(body)
  }))
}

async function bodyOf (response) {
  const chunks = []
  for await (const chunk of response) {
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function expect (what, actual, expected) {
  if (actual !== expected) {
    throw new Error(`${what}: expected ${expected}, got ${actual}`)
  }
}

async function healthCheck (port) {
  for (const method of ['GET', 'HEAD', 'OPTIONS']) {
    const response = await request(port, { method, path: '/' })
    expect(method, response.statusCode, 200)
    await within('end of the response', bodyOf(response))
  }
  return 'yes'
}

// What HAProxy itself finds out by asking the server.
async function haproxyCheck () {
  const deadline = Date.now() + limit
  for (;;) {
    const answer = await new Promise((resolve, reject) => {
      let text = ''
      const socket = connectTo(`${directory}/haproxy.sock`, () => socket.write('show stat\n'))
      socket.on('data', (data) => { text += data }).once('end', () => resolve(text)).once('error', reject)
    })
    const rows = answer.split('\n').map((line) => line.split(','))
    const column = rows[0].indexOf('check_status')
    const status = rows.find((row) => row[1] === 'sigver')?.[column]
    if (status === 'L7OK') {
      return 'up'
    }
    if (Date.now() > deadline) {
      throw new Error(`HAProxy's check: ${status}`)
    }
    await sleep(100)
  }
}

async function webSocketPair (port) {
  const key = `pair ${Math.random()}`
  const opener = await within('upgrade', openWebSocket(port, '/'))
  opener.send(JSON.stringify({ open: key }))
  expect('opener', JSON.parse(await within('answer', opener.receive())).opened, true)
  const joiner = await within('upgrade', openWebSocket(port, '/'))
  joiner.send(JSON.stringify({ join: key }))
  expect('joiner', JSON.parse(await within('answer', joiner.receive())).isKeyOk, true)
  const sdp = 'x'.repeat(3000)
  joiner.send(JSON.stringify({ data: { offer: sdp } }))
  const offer = JSON.parse(await within('offer', opener.receive()))
  expect('offer', offer.data.offer, sdp)
  opener.send(JSON.stringify({ id: offer.id, data: { answer: sdp } }))
  expect('answer', JSON.parse(await within('answer', joiner.receive())).data.answer, sdp)
  opener.close()
  joiner.close()
  return 'yes'
}

// A key with escapes must reach the server as the client wrote it: a client without the proxy is in the room already.
async function keyInPath (port, serverPort) {
  const path = `/a%2Fb%20c//d?e=${Math.random()}`.replace('?e=0.', '-')
  const connect = Buffer.from('1a02080b', 'hex')
  const member = await within('upgrade', openWebSocket(serverPort, path))
  member.send(connect)
  expect('first', (await within('answer', member.receive())).toString('hex'), '2001')
  const joiner = await within('upgrade', openWebSocket(port, path))
  joiner.send(connect)
  expect('second', (await within('answer', joiner.receive())).toString('hex'), '2000')
  member.close()
  joiner.close()
  return 'yes'
}

async function eventStream (port) {
  const began = Date.now()
  const stream = await request(port, { path: '/', headers: { Accept: 'text/event-stream' } })
  let text = ''
  let wake = () => {}
  stream.setEncoding('utf8').on('data', (data) => {
    text += data
    wake()
  }).on('error', () => {})
  const event = async (pattern) => {
    for (;;) {
      const found = text.match(pattern)
      if (found) {
        return found[1]
      }
      await new Promise((resolve) => { wake = resolve })
    }
  }
  const id = await within('event', event(/event: auth\ndata: (\d+)\n\n/))
  const took = Date.now() - began
  const sent = await request(port, { method: 'POST', path: '/' }, `${id}@${JSON.stringify({ open: `events ${id}` })}`)
  expect('POST', sent.statusCode, 200)
  expect('opened', await within('event', event(/"opened":(true)/)), 'true')
  stream.destroy()
  return `${took} ms`
}

// A client with another address than the proxy opens as many WebSockets as an address may; others still may.
async function addressLimit (port, number) {
  const address = (last) => `127.0.${100 + number}.${last}`
  const open = []
  for (let count = 0; count < PER_ADDRESS; count++) {
    open.push(await within('upgrade', openWebSocket(port, '/', address(1))))
  }
  const refused = await within('refusal', openWebSocket(port, '/', address(1))).catch((error) => error)
  expect('one more', refused.status, 429)
  open.push(await within('upgrade', openWebSocket(port, '/', address(2))))
  open.forEach((socket) => socket.close())
  return 'yes'
}

async function check (proxy, serverPort, number) {
  const version = spawnSync(proxy.version[0], proxy.version.slice(1), { encoding: 'utf8', env: { ...process.env, PATH } })
  if (version.error) {
    throw new Error(`${proxy.version[0]} is not installed: run compat-tests/proxies/setup`)
  }
  const port = await freePort()
  const file = join(directory, `${proxy.name.replace(/\W/g, '')}.conf`)
  writeFileSync(file, proxy.config(port, `127.0.0.1:${serverPort}`))
  await listens(start(proxy.serve(file), proxy.name), port)
  const checks = {
    'health check': () => healthCheck(port),
    'its own': () => proxy.ownCheck?.() ?? '',
    'WebSocket pair': () => webSocketPair(port),
    'key in the path': () => keyInPath(port, serverPort),
    'event stream': () => eventStream(port),
    'address of the client': () => proxy.hidesClients ? '' : addressLimit(port, number)
  }
  const row = { proxy: proxy.name, version: `${version.stdout}${version.stderr}`.match(/\d+\.\d+(\.\d+)?/)?.[0] }
  for (const [name, run] of Object.entries(checks)) {
    try {
      row[name] = await run()
    } catch (error) {
      row[name] = 'FAILED'
      failures.push(`${proxy.name}, ${name}: ${error.message}`)
    }
  }
  return row
}

function table (rows) {
  const names = Object.keys(rows[0])
  const widths = names.map((name) => Math.max(name.length, ...rows.map((row) => row[name].length)))
  const line = (cells) => `| ${cells.map((cell, at) => cell.padEnd(widths[at])).join(' | ')} |`
  return [line(names), line(widths.map((width) => '-'.repeat(width))), ...rows.map((row) => line(names.map((name) => row[name])))]
}

const failures = []
const serverPort = await freePort()
const trust = ['--trusted-proxies', '127.0.0.1', '--proxy-protocol', 'optional', '--max-connections-per-address', String(PER_ADDRESS)]
await listens(start([values['server-bin'], '-h', '127.0.0.1', '-p', String(serverPort), ...trust], 'the gateway'), serverPort)
const rows = await Promise.all(proxies.map((proxy, number) => check(proxy, serverPort, number)))
console.log(table(rows).join('\n'))
failures.forEach((failure) => console.log(`FAIL  ${failure}`))
process.exit(failures.length > 0 ? 1 : 0)
