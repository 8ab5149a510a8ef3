// A peer: a page with one netflux client, the page's reports so far, and its signaling frames.

import { EventEmitter } from 'node:events'
import { Trace } from './trace.mjs'

export class Peer extends EventEmitter {
  name
  spec
  ready = false
  failure
  joined = []
  left = []
  // Members that have joined and not left since.
  present = new Set()
  messages = []
  errors = []
  sockets = []
  channelsOpened = 0
  channelsClosed = 0
  firstSocketAt
  firstChannelAt
  trace = new Trace()
  #page

  constructor (name, spec) {
    super()
    this.setMaxListeners(0)
    this.name = name
    this.spec = spec
  }

  static async open (lab, name, spec) {
    const peer = new Peer(name, spec)
    await peer.#load(lab)
    return peer
  }

  async #load ({ context, origin, signaling, delayOpen, losesMessages }) {
    this.#page = await context.newPage()
    this.#page.on('crash', () => this.#take({ kind: 'failed', text: 'the page crashed' }))
    await (context.newCDPSession ? this.#watchByDevTools(context) : this.#watchByBinding())
    const query = new URLSearchParams({ version: this.spec.version, api: this.spec.api, signaling, delay: delayOpen })
    if (losesMessages) {
      query.set('loses', '1')
    }
    if (!context.newCDPSession) {
      query.set('frames', '1')
    }
    await this.#page.goto(`${origin}/peer?${query}`)
  }

  async #watchByDevTools (context) {
    const session = await context.newCDPSession(this.#page)
    session.on('Runtime.bindingCalled', ({ name, payload }) => {
      if (name === 'harnessReport') {
        this.#take(JSON.parse(payload))
      }
    })
    session.on('Network.webSocketFrameSent', ({ response }) => this.trace.frame('->', response))
    session.on('Network.webSocketFrameReceived', ({ response }) => this.trace.frame('<-', response))
    session.on('Network.webSocketFrameError', ({ errorMessage }) => {
      this.trace.event({ kind: 'frame-error', text: errorMessage })
    })
    await session.send('Runtime.enable')
    await session.send('Runtime.addBinding', { name: 'harnessReport' })
    await session.send('Network.enable')
  }

  // In other browsers, signaling frames are not seen.
  #watchByBinding () {
    return this.#page.exposeFunction('harnessReport', (payload) => this.#take(JSON.parse(payload)))
  }

  #take (event) {
    this.trace.event(event)
    switch (event.kind) {
      case 'ready':
        this.ready = true
        break
      case 'failed':
        this.failure ??= event.text
        break
      case 'joined':
        this.joined.push(event.id)
        this.present.add(event.id)
        break
      case 'left':
        this.left.push(event.id)
        this.present.delete(event.id)
        break
      case 'message':
        this.messages.push({ from: event.id, text: event.text })
        break
      case 'error':
        this.errors.push(event.text)
        break
      case 'socket-new':
        this.firstSocketAt ??= event.at
        this.sockets[event.socket - 1] = { url: event.url, state: 'connecting' }
        break
      case 'socket-open':
        Object.assign(this.sockets[event.socket - 1], { state: 'open', openedAt: event.at })
        break
      case 'socket-closing':
        this.sockets[event.socket - 1].byClient = true
        break
      case 'socket-close':
        Object.assign(this.sockets[event.socket - 1], {
          state: 'closed', code: event.code, reason: event.reason, closedAt: event.at
        })
        break
      case 'channel-open':
        this.channelsOpened += 1
        this.firstChannelAt ??= event.at
        break
      case 'channel-close':
        this.channelsClosed += 1
        break
    }
    this.emit('change')
  }

  get firstChannelMs () {
    return this.firstChannelAt && this.firstChannelAt - this.firstSocketAt
  }

  // True if the client failed by a race of its own.
  get hitOwnRace () {
    return this.errors.some((text) => this.spec.ownRace?.test(text))
  }

  first (key) {
    return this.#page.evaluate((key) => { driver.first(key) }, key)
  }

  join (key) {
    return this.#page.evaluate((key) => { driver.join(key) }, key)
  }

  send (text) {
    return this.#page.evaluate((text) => { driver.send(text) }, text)
  }

  // Sends messages that page/payload.js makes from specifications, one after the other: to all, or to the member `to`.
  post (specs) {
    return this.#page.evaluate((specs) => {
      for (const { to, ...spec } of specs) {
        const data = makePayload(spec)
        to === undefined ? driver.send(data) : driver.sendTo(to, data)
      }
    }, specs)
  }

  // Milliseconds of round trips to a member.
  roundTrips (id, count) {
    return this.#page.evaluate(([id, count]) => driver.roundTrips(id, count), [id, count])
  }

  // Sends messages of 100 bytes to all or to the members `to`, one by one or in bursts, and resolves with the number of
  // those to each.
  flood (rate, seconds, options = {}) {
    return this.#page.evaluate(([rate, seconds, options]) => driver.flood(rate, seconds, options), [rate, seconds, options])
  }

  // Number of such messages that were received.
  counted () {
    return this.#page.evaluate(() => driver.counted())
  }

  leave () {
    return this.#page.evaluate(() => { driver.leave() })
  }

  // Id by which other members know this peer; netflux may change it while joining.
  id () {
    return this.#page.evaluate(() => driver.id())
  }

  // Navigates to another page. (Closing the page would kill its process, and others would only notice when
  // their ICE consent expires.)
  goAway () {
    return this.#page.goto('about:blank')
  }

  // Ignores a page that is closed already.
  close () {
    return this.#page?.close().catch(() => {})
  }
}
