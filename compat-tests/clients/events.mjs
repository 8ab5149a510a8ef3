// Event streams in a real browser: an opener, a joiner and a misbehaving client, each in a page of its own,
// from another origin than the server's. See README.md, or --help.

import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import { openBrowser } from './lib/browser.mjs'
import { startOriginal } from './lib/original.mjs'
import { openSite } from './lib/site.mjs'

const USAGE = `Usage: node events.mjs --url http://127.0.0.1:PORT [--limit MS]
       node events.mjs --originals [--installed DIR] [--limit MS]

  --url URL            a gateway that serves event streams of all styles
  --originals          sigver 8.1.0, 9.1.0 and 10.1.0 instead, which shows that the page is right
  --installed DIR      where these are installed (default: ../originals)
  --limit MS           longest wait for anything (default: 8000)`

const TEXT = 'offer & "Ω" 100% + a@b\nline 2'
// Longer than a browser waits before it asks again for a stream that ended.
const RECONNECT_MS = 5000
// Longer than the gateway holds the response to a GET that sends, in which a browser waits.
const HELD_MS = 25_000

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    originals: { type: 'boolean', default: false },
    installed: { type: 'string', default: fileURLToPath(new URL('../originals', import.meta.url)) },
    limit: { type: 'string', default: '8000' },
    help: { type: 'boolean', short: 'h', default: false }
  }
})
if (values.help || values.originals === (values.url !== undefined)) {
  console.log(USAGE)
  process.exit(values.help ? 0 : 2)
}
const limit = Number(values.limit)

let passed = 0
const failures = []

async function check (server, style, name, test) {
  try {
    await test()
    passed += 1
    console.log(`ok    ${server}, ${style}: ${name}`)
  } catch (error) {
    failures.push(name)
    console.log(`FAIL  ${server}, ${style}: ${name}\n      ${error.message.split('\n').slice(0, 6).join('\n      ')}`)
  }
}

function expect (actual, expected) {
  const [a, b] = [actual, expected].map((value) => JSON.stringify(value))
  if (a !== b) {
    throw new Error(`expected ${b}\n     got ${a}`)
  }
}

// A peer is a page with a cookie jar and connections of its own: browsers open at most six connections to a
// server.
async function openPeer (browser, origin, base) {
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(`${origin}/events`)
  const seen = (name) => page.evaluate((name) => window.seen(name), name)
  return {
    listen: (name, query) => page.evaluate(([name, url]) => window.listen(name, url), [name, `${base}/${query}`]),
    seen,
    // Waits for a further entry that begins with `begins`, and returns the rest of it.
    async until (name, begins, patience = limit) {
      const found = ([name, begins]) => window.seen(name).find((text) => text.startsWith(begins))
      try {
        const handle = await page.waitForFunction(found, [name, begins], { timeout: patience, polling: 20 })
        return (await handle.jsonValue()).slice(begins.length)
      } catch {
        throw new Error(`no ${JSON.stringify(begins)} within ${patience} ms, after ${JSON.stringify(await seen(name))}`)
      }
    },
    forget: (name) => page.evaluate((name) => { window.seen(name).length = 0 }, name),
    close: (name) => page.evaluate((name) => window.streams[name].source.close(), name),
    post: (body) => page.evaluate(([url, body]) => window.post(url, body), [`${base}/`, body]),
    get: (query) => page.evaluate((url) => window.get(url), `${base}/${query}`),
    leave: () => context.close()
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const query = (fields) => `?${new URLSearchParams(fields)}`

// sigver 8.1: every message is sent in a query.
async function byQuery (server, ours, peer) {
  const style = 'queries'
  const key = `k ${Math.random()}`
  const [opener, joiner, third] = [await peer(), await peer(), await peer()]
  let openerId, joinerId, link
  await check(server, style, 'one opens, one joins', async () => {
    await opener.listen('main', query({ open: key }))
    openerId = Number((await opener.until('main', 'message {"isKeyOk":true,"id":')).slice(0, -1))
    await joiner.listen('main', query({ join: key }))
    joinerId = Number((await joiner.until('main', 'message {"isKeyOk":true,"id":')).slice(0, -1))
    expect([openerId, joinerId].every(Number.isSafeInteger), true)
  })
  await check(server, style, 'the joiner sends by an EventSource', async () => {
    await joiner.listen('send', query({ data: TEXT, myId: joinerId }))
    await joiner.until('send', 'open')
    await joiner.close('send')
    const data = JSON.parse(`{"id":${await opener.until('main', 'message {"id":')}`)
    expect(data.data, TEXT)
    link = data.id
  })
  await check(server, style, 'the opener answers by fetch', async () => {
    expect(await opener.get(query({ data: TEXT, id: link, myId: openerId })), 200)
    expect(JSON.parse(`{"data":${await joiner.until('main', 'message {"data":')}`), { data: TEXT })
  })
  await check(server, style, 'an error arrives at the one who errs', async () => {
    await third.listen('main', query({ join: `${key} of nobody` }))
    expect(await third.until('main', 'message '), '{"error":4011,"message":"KEY_UNKNOWN: Unknown key"}')
  })
  if (ours) {
    await check(server, style, 'it arrives at no other client, and its stream ends for good', async () => {
      await third.until('main', 'closed')
      await pause(RECONNECT_MS)
      const seen = await third.seen('main')
      expect(seen.filter((text) => text.startsWith('message ')).length, 1)
      expect(seen.at(-1), 'closed')
      for (const other of [opener, joiner]) {
        expect((await other.seen('main')).filter((text) => text.includes('"error"') || text === 'closed'), [])
      }
    })
    await check(server, style, 'what was sent by an EventSource that no call closes is not sent again', async () => {
      await opener.forget('main')
      await joiner.listen('left open', query({ data: 'once', myId: joinerId }))
      await joiner.until('left open', 'closed', HELD_MS)
      await pause(RECONNECT_MS)
      expect(await opener.seen('main'), [`message {"id":${link},"data":"once"}`])
    })
  } else {
    await check(server, style, '(and at everybody else, which we do not do)', async () => {
      for (const other of [opener, joiner]) {
        await other.until('main', 'message {"error":4011')
      }
    })
  }
  await Promise.all([opener, joiner, third].map((peer) => peer.leave()))
}

// sigver 9 and 10: the stream assigns an id, and every message is sent by POST.
async function byPost (server, ours, peer) {
  const style = 'posts'
  const key = `k ${Math.random()}`
  const [opener, joiner, third] = [await peer(), await peer(), await peer()]
  const ids = new Map()
  const say = async (who, message) => expect(await who.post(`${ids.get(who)}@${JSON.stringify(message)}`), '200 ')
  let link
  await check(server, style, 'one opens, one joins', async () => {
    for (const [who, message, answer] of [[opener, { open: key }, true], [joiner, { join: key }, false]]) {
      await who.listen('main', '')
      ids.set(who, await who.until('main', 'auth '))
      await say(who, message)
      await who.until('main', `message {"opened":${answer}}`)
    }
  })
  await check(server, style, 'they talk', async () => {
    await say(joiner, { data: { offer: TEXT } })
    const got = JSON.parse(`{"id":${await opener.until('main', 'message {"id":')}`)
    expect(got.data, { offer: TEXT })
    link = got.id
    await say(opener, { id: link, data: TEXT })
    expect(JSON.parse(`{"data":${await joiner.until('main', 'message {"data":')}`), { data: TEXT })
  })
  await check(server, style, 'an error arrives at its sender, and at no other client', async () => {
    await third.listen('main', '')
    ids.set(third, await third.until('main', 'auth '))
    await say(third, { foo: 1 })
    expect(JSON.parse(await third.until('main', 'close ')), { code: 4000, reason: 'MESSAGE_ERROR=4000: Unknown message' })
    for (const other of [opener, joiner]) {
      expect((await other.seen('main')).filter((text) => text.startsWith('close ')), [])
    }
  })
  if (ours) {
    await check(server, style, 'its stream ends for good', async () => {
      await third.until('main', 'closed')
      await pause(RECONNECT_MS)
      const seen = await third.seen('main')
      expect(seen.filter((text) => text.startsWith('auth ')).length, 1)
      expect(seen.at(-1), 'closed')
    })
  }
  await check(server, style, 'the others go on', async () => {
    await joiner.forget('main')
    await say(opener, { id: link, data: 2 })
    await joiner.until('main', 'message {"data":2}')
  })
  await Promise.all([opener, joiner, third].map((peer) => peer.leave()))
}

const { browser } = await openBrowser()
const site = await openSite()
const servers = []
try {
  const peerOf = (base) => () => openPeer(browser, site.origin, base)
  if (values.originals) {
    for (const [release, play] of [['8.1.0', byQuery], ['9.1.0', byPost], ['10.1.0', byPost]]) {
      const server = await startOriginal(values.installed, release, ['-t', 'sse'])
      servers.push(server)
      await play(`sigver ${release}`, false, peerOf(server.url.replace(/^ws/, 'http')))
    }
  } else {
    const base = values.url.replace(/\/$/, '')
    await Promise.all([byQuery, byPost].map((play) => play(base, true, peerOf(base))))
  }
} finally {
  servers.forEach((server) => server.stop())
  site.close()
  await browser.close()
}
console.log(`events: ${passed} passed, ${failures.length} failed`)
process.exitCode = failures.length > 0 ? 1 : 0
