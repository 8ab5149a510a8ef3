// The page of the admin listener in Chromium, while clients use the gateway. See README.md, or --help.

import { mkdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { openBrowser } from './lib/browser.mjs'
import { openBufferingProxy, openPathReplacer } from './lib/faulty.mjs'
import { startGateway } from './lib/gateway.mjs'
import { freePort } from './lib/ports.mjs'

const USAGE = `Usage: node admin.mjs --server-bin FILE [--screenshots DIR] [--limit MS]

  --server-bin FILE    program of the gateway
  --screenshots DIR    where screenshots are kept (default: ../../target/admin-page)
  --limit MS           longest wait for anything (default: 30000)`

const { values } = parseArgs({
  options: {
    'server-bin': { type: 'string' },
    screenshots: { type: 'string', default: fileURLToPath(new URL('../../target/admin-page', import.meta.url)) },
    limit: { type: 'string', default: '30000' },
    help: { type: 'boolean', short: 'h', default: false }
  }
})
if (values.help || values['server-bin'] === undefined) {
  console.log(USAGE)
  process.exit(values.help ? 0 : 2)
}
const limit = Number(values.limit)
const DIALECTS = ['sigver-9', 'sigver-18', 'sigver-20']
// Every dialect as a member, and as the joiner of the one before; of 15.1, a member cannot be distinguished from one of 15.
const RING = ['1', '4', '5', '6', '7', '7.6', '8', '9', '11', '13', '15', '16', '18', '19', '20'].map((version) => `sigver-${version}`)
const PAIRS = [
  ...DIALECTS.flatMap((member) => DIALECTS.map((joiner) => [member, joiner])),
  ...RING.map((member, at) => [member, RING[(at + 1) % RING.length]]),
  ...RING.filter((dialect) => !DIALECTS.includes(dialect)).map((dialect) => [dialect, dialect]),
  ['sigver-20', 'sigver-15.1']
]
const SCREENS = {
  light: { colorScheme: 'light', viewport: { width: 1180, height: 900 } },
  dark: { colorScheme: 'dark', viewport: { width: 1180, height: 900 } },
  phone: { colorScheme: 'light', viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true }
}

let failures = 0
async function check (name, test) {
  try {
    await test()
    console.log(`ok    ${name}`)
  } catch (error) {
    failures += 1
    console.log(`FAIL  ${name}\n      ${error.message.split('\n').slice(0, 8).join('\n      ')}`)
  }
}

function expect (actual, expected) {
  const [a, b] = [actual, expected].map((value) => JSON.stringify(value))
  if (a !== b) {
    throw new Error(`expected ${b}\n     got ${a}`)
  }
}

// Clients in a room each, and one room that mixes generations.
function openClients (url) {
  const open = (path, first) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url + path)
    socket.onopen = () => {
      socket.send(first)
      resolve(socket)
    }
    socket.onerror = () => reject(new Error(`no WebSocket on ${path}`))
  })
  const connect = new Uint8Array([0x1a, 0x02, 0x08, 0x0b])
  window.clients = [
    ...['a', 'b', 'c'].map((key) => open('/', JSON.stringify({ open: key }))),
    ...['d', 'e', 'f', 'g', 'mixed'].map((key) => open(`/${key}`, connect))
  ]
  return Promise.all(window.clients)
    .then(() => open('/', JSON.stringify({ join: 'mixed' })))
    .then(() => window.clients.length + 1)
}

// Answers for the page as of a node that has run for twenty days: an hour of samples, a dialect that left, a cluster without
// Redis, and a bridge.
async function age (page) {
  const ago = (ms) => new Date(Date.now() - ms).toISOString().replace(/\.\d+/, '')
  await page.route('**/status', async (route) => {
    const response = await route.fetch()
    const status = await response.json()
    const left = status.dialects.find(({ name }) => name === 'sigver-7')
    left.assigned = { active: 0, total: 12, last_seen: ago(8.2 * 86400e3) }
    left.possible = { active: 0, total: 0, last_seen: null }
    const other = { version: '22.0.0', linked: true, rooms: 3214, far: 1520, queue_bytes: 0 }
    const cluster = {
      name: 'sigver', readiness: 'ready, but Redis does not answer: rooms go on', node: '0000000000000001', node_name: 'signaling-a', engine_up: false, engine_lost_seconds: 72, engine_loss: 'refuse-new',
      generation_changes: 1, may_decide: true, rooms: 3333, rooms_lost: { lapsed: 0, forgotten: 2, taken: 0, engine_loss: 0 },
      claims: { granted: 9, held: 4, wait: 1, failed: 0 }, far: 1520, guests: 1480, waiting: 2, link_cuts: { silent: 1, invalid: 0, overfull: 0, failed: 0 },
      nodes: [{ ...other, node: '0000000000000002', node_name: 'signaling-b' }, { ...other, node: '0000000000000003', node_name: 'signaling-c', linked: false, far: 0 }]
    }
    const bridge = {
      connected: true, connections: 1, keys: 3, members: 7, calls: 9, callers: 0, failed_calls: 0,
      process: { rooms: 2, channels: 12, messages: 4321, message_bytes: 3 << 20, dropped: 1, waiting_bytes: 2048 }
    }
    await route.fulfill({ response, json: { ...status, cluster, bridge, started: ago(20 * 86400e3) } })
  })
  await page.route('**/history', async (route) => {
    const response = await route.fetch()
    const history = await response.json()
    const wave = (minute, index) => Math.max(0, Math.round(6 + 4 * Math.sin(minute / 9 + index) - (minute / 60) * (index % 5)))
    const samples = Array.from({ length: 60 }, (_, at) => 60 - at).map((minute) => {
      const active = history.names.map((name, index) => ['sigver-9', 'sigver-13', 'sigver-18', 'sigver-20'].includes(name) ? wave(minute, index) : 0)
      return { time: ago(minute * 60e3), active }
    })
    await route.fulfill({ response, json: { ...history, samples } })
  })
}

async function tryPair (page, address, member, joiner) {
  await page.fill('#address', address)
  await page.selectOption('#member', member)
  await page.selectOption('#joiner', joiner)
  await page.click('#try button')
  await page.waitForSelector('#steps[data-result]', { timeout: limit })
  return page.$$eval('#steps li', (items) => items.map((item) => {
    return [item.querySelector('b').textContent, item.querySelector('.badge').textContent, item.querySelector('p').textContent]
  }))
}

await mkdir(values.screenshots, { recursive: true })
const adminPort = await freePort()
const admin = `http://127.0.0.1:${adminPort}`
const gateway = await startGateway(values['server-bin'], ['-h', '127.0.0.1', '-p', '0', '--admin', `127.0.0.1:${adminPort}`])
const { browser } = await openBrowser()
try {
  const context = await browser.newContext(SCREENS.light)
  const others = await context.newPage()
  const clients = await others.evaluate(openClients, gateway.url)
  const page = await context.newPage()
  const errors = []
  page.on('pageerror', (error) => errors.push(error.message))
  await page.goto(`${admin}/`)
  await check('the page shows who is connected', async () => {
    const shown = () => document.getElementById('health').textContent === 'serving' && document.querySelectorAll('#usage tr').length > 2
    await page.waitForFunction(shown, undefined, { timeout: limit })
    expect(await page.textContent('#tiles .tile b'), String(clients))
    expect(await page.$$eval('#mixed tbody tr', (rows) => rows.length), 1)
  })
  await check('every dialect of a sigver can be tried', async () => {
    const offered = await page.$$eval('#joiner option', (options) => options.map(({ value }) => value))
    const { dialects } = await (await fetch(`${admin}/status`)).json()
    expect(offered, dialects.map(({ name }) => name))
  })
  for (const [member, joiner] of PAIRS) {
    await check(`a member of ${member} and a joiner of ${joiner} meet`, async () => {
      const steps = await tryPair(page, gateway.url, member, joiner)
      expect(steps.filter(([, result]) => result !== 'works'), [])
      expect(steps.length, 6)
    })
  }
  await check('a wrong address fails, with a usual cause', async () => {
    const steps = await tryPair(page, `ws://127.0.0.1:${adminPort}`, 'sigver-20', 'sigver-9')
    expect(steps[0].slice(0, 2), ['HTTP and TLS', 'fails'])
    expect(steps[1].slice(0, 2), ['Upgrade to a WebSocket', 'fails'])
    expect(steps[1][2].includes('Usual cause:'), true)
  })
  const named = (steps) => Object.fromEntries(steps.map(([name, result, detail]) => [name, `${result}: ${detail}`]))
  await check('a proxy that replaces the path is found out', async () => {
    const proxy = await openPathReplacer(gateway.url)
    const steps = named(await tryPair(page, proxy.url, 'sigver-9', 'sigver-9'))
    proxy.close()
    for (const name of ['HTTP and TLS', 'Upgrade to a WebSocket', 'Event streams', 'Data channel']) {
      expect([name, steps[name].split(':')[0]], [name, 'works'])
    }
    expect(steps['Path passed on'].startsWith('fails: two different keys are one room. Usual cause: A proxy replaces'), true)
  })
  await check('a proxy that knows no upgrade, and one that buffers, is found out', async () => {
    const proxy = await openBufferingProxy(gateway.url)
    const steps = named(await tryPair(page, proxy.url, 'sigver-9', 'sigver-9'))
    proxy.close()
    expect(steps['HTTP and TLS'].split(':')[0], 'works')
    expect(steps['Upgrade to a WebSocket'].startsWith('fails: ') && steps['Upgrade to a WebSocket'].includes('proxy_http_version'), true)
    expect(steps['Event streams'].startsWith('fails: the first event did not happen') && steps['Event streams'].includes('proxy_buffering'), true)
    expect(steps['Data channel'].split(':')[0], 'skipped')
  })
  await check('TLS is tried, and a certificate that the browser does not accept is found out', async () => {
    const file = (name) => fileURLToPath(new URL(`../../tests/fixtures/tls/${name}`, import.meta.url))
    const tls = await startGateway(values['server-bin'], ['-h', '127.0.0.1', '-p', '0', '-k', file('ec-sec1.key'), '-c', file('ec.crt')])
    const trusting = await browser.newContext({ ignoreHTTPSErrors: true })
    try {
      const address = `wss://127.0.0.1:${tls.port}`
      const [[, , refused]] = await tryPair(page, address, 'sigver-20', 'sigver-20')
      expect(refused.includes('the certificate is not valid for this name'), true)
      const trustingPage = await trusting.newPage()
      await trustingPage.goto(`${admin}/`)
      const steps = await tryPair(trustingPage, address, 'sigver-20', 'sigver-18')
      expect(steps.filter(([, result]) => result !== 'works'), [])
    } finally {
      await trusting.close()
      await tls.stop()
    }
  })
  await check('what clients did is counted on the page', async () => {
    const shown = () => document.querySelectorAll('#ends tbody tr').length > 0
    await page.waitForFunction(shown, undefined, { timeout: limit })
  })
  for (const [name, screen] of Object.entries(SCREENS)) {
    await check(`the page fits: ${name}`, async () => {
      const context = await browser.newContext(screen)
      const page = await context.newPage()
      page.on('pageerror', (error) => errors.push(error.message))
      await age(page)
      await page.goto(`${admin}/`)
      await page.waitForSelector('#usage tr', { timeout: limit })
      await tryPair(page, gateway.url, 'sigver-20', 'sigver-9')
      await page.screenshot({ path: `${values.screenshots}/${name}.png`, fullPage: true })
      expect((await page.textContent('#usage')).includes('sigver-7'), true)
      expect((await page.textContent('#usage')).includes('last seen 8 days ago: safe to drop'), true)
      expect(await page.$$eval('#nodes tbody tr', (rows) => rows.map((row) => [...row.cells].slice(0, 4).map((cell) => cell.textContent).join(' '))),
        [`signaling-a ${await page.textContent('#version')} this one 3,333`, 'signaling-b 22.0.0 linked 3,214', 'signaling-c 22.0.0 no link 3,214'])
      expect(await page.textContent('#engine'), 'Redis has not answered for 72 seconds: rooms go on')
      expect(await page.textContent('#bridge-state'), 'connected')
      const note = await page.textContent('#bridge-note')
      expect(note.startsWith('Rooms: 2, of 3 keys with 7 members. Channels: 12. Messages since its start: 4,321 (3 MiB), dropped: 1.'), true)
      expect(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), true)
      await context.close()
    })
  }
  await check('the page shows that the server does not answer', async () => {
    await gateway.stop()
    const shown = () => document.getElementById('health').textContent === 'no answer'
    await page.waitForFunction(shown, undefined, { timeout: limit })
  })
  await check('no script of the page failed', async () => expect(errors, []))
} finally {
  await browser.close()
  await gateway.stop()
}
console.log(`admin page: ${failures} failed; screenshots in ${values.screenshots}`)
process.exitCode = failures > 0 ? 1 : 0
