// Starts Debian's Firefox, which pages of this machine can reach and nothing else, and drives it by WebDriver BiDi, with
// as much of Playwright's interface as a peer's page uses. Playwright's own driver sends commands that it does not know.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { ws as WebSocket } from 'playwright-core/lib/utilsBundle'

const PREFERENCES = {
  // Plain addresses instead of multicast names, and the loopback interface.
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.peerconnection.ice.loopback': true,
  // No name is looked up: 0.10.x would use a public STUN server.
  'network.dns.disabled': true,
  // Only one page can be in front.
  'dom.min_background_timeout_value': 4
}

class Session {
  #socket
  #last = 0
  #pending = new Map()
  #channels = new Map()

  static async open (url) {
    const session = new Session()
    session.#socket = new WebSocket(url)
    await once(session.#socket, 'open')
    session.#socket.on('message', (data) => session.#take(JSON.parse(data)))
    session.#socket.on('close', () => session.#pending.forEach(({ reject }) => reject(new Error('Firefox is closed'))))
    await session.send('session.new', { capabilities: {} })
    await session.send('session.subscribe', { events: ['script.message'] })
    return session
  }

  #take ({ type, id, result, error, message, method, params }) {
    if (type === 'event') {
      if (method === 'script.message') {
        this.#channels.get(params.channel)?.(params.data.value)
      }
      return
    }
    const { resolve, reject } = this.#pending.get(id)
    this.#pending.delete(id)
    type === 'success' ? resolve(result) : reject(new Error(`${error}: ${message}`))
  }

  send (method, params) {
    const id = ++this.#last
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }

  // Returns the argument of a script by which it calls `receive` with a string.
  channel (receive) {
    const channel = `channel ${this.#channels.size}`
    this.#channels.set(channel, receive)
    return { type: 'channel', value: { channel } }
  }
}

class FirefoxPage {
  #session
  #context

  static async open (session) {
    const page = new FirefoxPage()
    page.#session = session
    page.#context = (await session.send('browsingContext.create', { type: 'window' })).context
    return page
  }

  // Playwright's events, which are not told here.
  on () {}

  exposeFunction (name, receive) {
    return this.#session.send('script.addPreloadScript', {
      functionDeclaration: `(channel) => { window[${JSON.stringify(name)}] = channel }`,
      arguments: [this.#session.channel(receive)],
      contexts: [this.#context]
    })
  }

  goto (url) {
    return this.#session.send('browsingContext.navigate', { context: this.#context, url, wait: 'complete' })
  }

  async evaluate (run, value = null) {
    const { type, result, exceptionDetails } = await this.#session.send('script.callFunction', {
      functionDeclaration: `async (value) => JSON.stringify(await (${run})(JSON.parse(value)) ?? null)`,
      arguments: [{ type: 'string', value: JSON.stringify(value) }],
      target: { context: this.#context },
      awaitPromise: true
    })
    if (type === 'exception') {
      throw new Error(exceptionDetails.text)
    }
    return JSON.parse(result.value)
  }

  close () {
    return this.#session.send('browsingContext.close', { context: this.#context })
  }
}

export async function openFirefox () {
  const profile = await mkdtemp(join(tmpdir(), 'sigver-firefox-'))
  const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`)
  await writeFile(join(profile, 'user.js'), lines.join(''))
  const program = process.env.FIREFOX ?? '/usr/bin/firefox-esr'
  const child = spawn(program, ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port', '0'], {
    stdio: ['ignore', 'ignore', 'pipe']
  })
  const exited = once(child, 'exit')
  const url = await new Promise((resolve, reject) => {
    exited.then(([code]) => reject(new Error(`${program} ended with ${code}`)), reject)
    createInterface(child.stderr).on('line', (line) => {
      const found = /WebDriver BiDi listening on (ws:\S+)/.exec(line)
      if (found) {
        resolve(`${found[1]}/session`)
      }
    })
  })
  const session = await Session.open(url)
  return {
    browser: {
      async close () {
        await session.send('browser.close', {})
        await exited
        await rm(profile, { recursive: true, force: true, maxRetries: 5 })
      }
    },
    context: { newPage: () => FirefoxPage.open(session) }
  }
}
