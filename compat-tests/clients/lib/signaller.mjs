// Scenarios of pages that use the signaller protocol, each with pages and a handle of its own.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Timeout } from './until.mjs'

const NORMAL = { code: 1000, reason: 'Normal Closure' }

// Resolves like `promise`, or rejects with an error that names what was awaited.
function within (limit, what, promise) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Timeout(`${what}: not within ${limit} ms`)), limit)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

// A page with the client library. Each method of `pipes` in page/signaller.js is one here.
class RelayPage {
  #page
  #limit

  static async open ({ context, origin, signaling, limit }) {
    const page = new RelayPage()
    page.#limit = limit
    page.#page = await context.newPage()
    await page.#page.goto(`${origin}/signaller?${new URLSearchParams({ signaling })}`)
    return page
  }

  #call (method, ...args) {
    const call = this.#page.evaluate(([method, args]) => pipes[method](...args), [method, args])
    return within(this.#limit, `${method}(${args.map((arg) => JSON.stringify(arg)).join(', ')})`, call)
  }

  listen (handle) { return this.#call('listen', handle) }
  connect (handle) { return this.#call('connect', handle) }
  signal (item) { return this.#call('signal', item) }
  close () { return this.#call('close') }
  next () { return this.#call('next') }
  left () { return this.#call('left') }
  ended () { return this.#call('ended') }
  talk (isFirst, text) { return this.#call('talk', isFirst, text) }

  async gets (...items) {
    for (const item of items) {
      assert.deepEqual(await this.next(), item)
    }
  }

  leave () {
    return this.#page.close().catch(() => {})
  }
}

// The server must reject at once: a timeout is no rejection.
async function isRefused (attempt) {
  await assert.rejects(attempt, /was refused/)
}

// Bytes are arrays here.
const SCENARIOS = {
  async 'frames both ways' ({ page, handle }) {
    const [listener, connector] = [await page(), await page()]
    await listener.listen(handle)
    await connector.connect(handle)
    for (const [from, to] of [[connector, listener], [listener, connector]]) {
      for (const item of ['text', '', 'ünïcödé ✓', [0, 1, 255], []]) {
        await from.signal(item)
        await to.gets(item)
      }
    }
    await connector.close()
    assert.deepEqual(await listener.ended(), NORMAL)
  },

  async 'early frames of the listener' ({ page, handle }) {
    const [listener, connector] = [await page(), await page()]
    await listener.listen(handle)
    await listener.signal('early')
    await listener.signal([1, 2, 3])
    await connector.connect(handle)
    await connector.gets('early', [1, 2, 3])
    await connector.signal('answer')
    await listener.gets('answer')
    assert.equal(await connector.left(), 0)
  },

  async 'the end, by either side' ({ page, handle }) {
    for (const first of [0, 1]) {
      const pages = [await page(), await page()]
      await pages[0].listen(handle)
      await pages[1].connect(handle)
      await pages[first].close()
      assert.deepEqual(await pages[1 - first].ended(), NORMAL)
      assert.equal((await pages[first].ended()).code, 1000)
    }
    // The page closes.
    const [listener, connector] = [await page(), await page()]
    await listener.listen(handle)
    await connector.connect(handle)
    await connector.leave()
    assert.deepEqual(await listener.ended(), { code: 1011, reason: 'Internal Error' })
  },

  async 'a handle that is taken' ({ page, handle }) {
    const [listener, other, connector] = [await page(), await page(), await page()]
    await listener.listen(handle)
    await isRefused(other.listen(handle))
    await connector.connect(handle)
    await connector.signal('still here?')
    await listener.gets('still here?')
  },

  async 'a handle without a listener' ({ page, handle }) {
    await isRefused((await page()).connect(handle))
    const [listener, connector] = [await page(), await page()]
    await listener.listen(handle)
    await listener.close()
    await listener.ended()
    await isRefused(connector.connect(handle))
    await (await page()).listen(handle)
  },

  async 'a page of another origin' ({ page, foreignPage, handle }) {
    await isRefused((await foreignPage()).listen(handle))
    await (await page()).listen(handle)
    await isRefused((await foreignPage()).connect(handle))
    await (await page()).connect(handle)
  },

  async 'a data channel' ({ page, handle }) {
    const [listener, connector] = [await page(), await page()]
    await listener.listen(handle)
    await connector.connect(handle)
    const heard = await Promise.all([listener.talk(false, 'from the listener'), connector.talk(true, 'from the connector')])
    assert.deepEqual(heard, ['from the connector', 'from the listener'])
    await connector.close()
    assert.deepEqual(await listener.ended(), NORMAL)
  }
}

// Plays all scenarios against the server at `signaling`, with pages of one site, which it admits, and of
// another. Returns the numbers of passed and failed scenarios.
export async function playSignaller ({ context, origin, foreign, signaling, limit, label }) {
  const count = { passed: 0, failed: 0 }
  for (const [name, play] of Object.entries(SCENARIOS)) {
    const pages = []
    const opener = (origin) => async () => {
      const page = await RelayPage.open({ context, origin, signaling, limit })
      pages.push(page)
      return page
    }
    const started = Date.now()
    try {
      await play({ page: opener(origin), foreignPage: opener(foreign), handle: `h${randomBytes(8).toString('hex')}` })
      count.passed += 1
      console.log(`ok     ${label}: ${name} (${Date.now() - started} ms)`)
    } catch (error) {
      count.failed += 1
      console.log(`FAILED ${label}: ${name} (${Date.now() - started} ms)\n  ${error.stack}`)
    } finally {
      await Promise.all(pages.map((page) => page.leave()))
    }
  }
  return count
}
