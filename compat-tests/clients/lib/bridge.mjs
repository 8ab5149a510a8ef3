// Members of one room whose clients may be of different groups, on a gateway with a bridge: who sees whom, and
// which messages arrive where.

import { setTimeout as sleep } from 'node:timers/promises'
import '../page/payload.js'
import { freshKey } from './group.mjs'
import { Peer } from './peer.mjs'
import { Timeout, until } from './until.mjs'

const { makePayload, describePayload } = globalThis

export class BridgedRoom {
  key
  startedAt = Date.now()
  members = []
  everyone = []
  // Ids under which members are known: `ids.get(receiver).get(id)` is the sender's name.
  ids = new Map()
  #lab
  #count = 0

  constructor (lab, { key = freshKey() } = {}) {
    this.#lab = lab
    this.key = key
  }

  get errors () {
    return this.everyone.flatMap((peer) => peer.errors.map((text) => `${peer.name}: ${text}`))
  }

  // `how`: 'first' opens the key where the client's API has that, 'join' joins. `options` are those of its page.
  async enter (spec, how, options = {}) {
    this.#count += 1
    const { contexts } = this.#lab
    const context = contexts[(this.#count - 1) % contexts.length]
    const peer = await Peer.open({ ...this.#lab, context, ...options }, `${this.#count}:${spec.version}`, spec)
    this.everyone.push(peer)
    this.members.push(peer)
    this.ids.set(peer, new Map())
    peer.how = how
    await (how === 'first' ? peer.first(this.key) : peer.join(this.key))
    return peer
  }

  wait (what, test, limit = this.#lab.limit) {
    return until(this.everyone, test, { limit, what })
  }

  // Waits until everyone has a connection to everyone else.
  async meet () {
    const others = this.members.length - 1
    await this.wait(() => `all see each other: ${this.members.map((peer) => `${peer.name} ${this.#seen(peer)}`)}`, () => {
      const failed = this.members.find(({ failure }) => failure !== undefined)
      if (failed) {
        throw new Error(`${failed.name} failed: ${failed.failure}`)
      }
      return this.members.every((peer) => this.#seen(peer) >= others)
    })
    // It sends to no client whose channel is open and that has not joined.
    if (this.members.some(({ spec }) => !spec.hearsJoins)) {
      await sleep(300)
    }
  }

  #seen (peer) {
    const members = peer.present.size
    // 0.10.3 does not report the members that it finds.
    const isTold = peer.spec.hearsJoins || peer.how === 'first'
    return isTold ? members : peer.ready ? Math.max(members, peer.channelsOpened - peer.channelsClosed) : 0
  }

  // Every client sends its name, so that ids are known.
  async introduce () {
    const before = new Map(this.members.map((peer) => [peer, peer.messages.length]))
    for (const peer of this.members) {
      await peer.post([{ kind: 'text', length: `I am ${peer.name}`.length, tag: `I am ${peer.name}` }])
    }
    const others = this.members.length - 1
    await this.wait(() => `all introductions arrive: ${this.members.map((peer) => `${peer.name} ${peer.messages.length - before.get(peer)}`)}`, () => {
      return this.members.every((peer) => peer.messages.length - before.get(peer) >= others)
    })
    for (const peer of this.members) {
      const ids = this.ids.get(peer)
      for (const { from, text } of peer.messages.slice(before.get(peer))) {
        const name = /^I am (.*)$/.exec(text.replaceAll('é', 'q'))?.[1]
        if (ids.has(from) && ids.get(from) !== name) {
          throw new Error(`${peer.name} has the id ${from} for ${ids.get(from)} and for ${name}`)
        }
        ids.set(from, name)
      }
      const names = this.members.filter((other) => other !== peer).map(({ name }) => name)
      const known = names.filter((name) => [...ids.values()].includes(name))
      if (known.length < names.length) {
        throw new Error(`${peer.name} knows ${known} of ${names}`)
      }
    }
  }

  idOf (receiver, sender) {
    const ids = [...this.ids.get(receiver)].filter(([, name]) => name === sender.name).map(([id]) => id)
    return ids.find((id) => receiver.present.has(id)) ?? ids.at(-1)
  }

  // Sends messages and checks that they arrive at their receivers, once, in order, and nowhere else. `messages`:
  // { kind, length, directed } each, sent by every member in this order.
  async exchange (messages) {
    const before = new Map(this.members.map((peer) => [peer, peer.messages.length]))
    const expected = new Map(this.members.map((peer) => [peer, new Map()]))
    let number = 0
    for (const sender of this.members) {
      const others = this.members.filter((peer) => peer !== sender)
      const specs = messages.flatMap(({ kind, length, directed = false }) => {
        const receivers = directed ? others.map((other) => [other]) : [others]
        return receivers.map((to) => {
          number += 1
          const spec = { kind, length, tag: `${sender.name} ${number} ` }
          const description = describePayload(makePayload(spec))
          for (const receiver of to) {
            // netflux 4 drops an empty text.
            if (length > 0 || kind !== 'text' || !['4.3.0', '4.3.1'].includes(receiver.spec.version)) {
              const list = expected.get(receiver)
              list.set(sender.name, [...(list.get(sender.name) ?? []), description])
            }
          }
          return directed ? { ...spec, to: this.idOf(sender, to[0]) } : spec
        })
      })
      await sender.post(specs)
    }
    const received = (peer) => {
      const bySender = new Map()
      for (const { from, text } of peer.messages.slice(before.get(peer))) {
        const name = this.ids.get(peer).get(from) ?? `stranger ${from}`
        bySender.set(name, [...(bySender.get(name) ?? []), text])
      }
      return bySender
    }
    const total = (lists) => [...lists.values()].reduce((sum, list) => sum + list.length, 0)
    const state = () => this.members.map((peer) => `${peer.name} ${total(received(peer))} of ${total(expected.get(peer))}`)
    await this.wait(() => `all messages arrive: ${state()}`, () => {
      return this.members.every((peer) => total(received(peer)) >= total(expected.get(peer)))
    })
    // Duplicates would be next.
    await sleep(this.#lab.settle ?? 100)
    for (const peer of this.members) {
      const [got, wanted] = [received(peer), expected.get(peer)]
      for (const name of new Set([...got.keys(), ...wanted.keys()])) {
        if (String(got.get(name)) !== String(wanted.get(name))) {
          throw new Error(`${peer.name} received from ${name}: [${got.get(name)}], expected [${wanted.get(name)}]`)
        }
      }
    }
    return number
  }

  // A member leaves ('call'), navigates away ('page'), or its page is killed ('kill'). Resolves with the time until all
  // others have noticed, who can.
  async remove (peer, how, limit) {
    const watchers = this.members.filter((member) => member !== peer).map((member) => [member, this.idOf(member, peer)])
    this.members = this.members.filter((member) => member !== peer)
    const begin = Date.now()
    await (how === 'call' ? peer.leave() : how === 'page' ? peer.goAway() : peer.close())
    const noticing = watchers.filter(([member]) => this.#hearsLeave(member, peer, how))
    await this.wait(() => {
      const blind = noticing.filter(([member, id]) => !member.left.includes(id)).map(([member]) => member.name)
      return `${blind} notice that ${peer.name} left (${how})`
    }, () => noticing.every(([member, id]) => member.left.includes(id)), limit)
    const ms = Date.now() - begin
    if (how !== 'kill') {
      await peer.close()
    }
    return ms
  }

  // netflux 1.1 does not notice that a peer left that it let in itself.
  #hearsLeave (member, peer, how) {
    return member.spec.leaveIsHeard || (how !== 'call' && member.spec.layer === peer.spec.layer)
  }

  // Everyone was announced once and left at most once.
  checkPresence () {
    for (const peer of this.everyone) {
      const twice = (list) => list.filter((id, at) => list.indexOf(id) !== at)
      const wrong = [...twice(peer.joined), ...(peer.spec.repeatsLeaves ? [] : twice(peer.left))]
      if (wrong.length > 0) {
        throw new Error(`${peer.name}: joined [${peer.joined}], left [${peer.left}]`)
      }
    }
  }

  async close () {
    await Promise.all(this.everyone.map((peer) => peer.close()))
  }

  print () {
    return this.everyone.flatMap((peer) => [
      `  ${peer.name}, key ${this.key}`,
      ...peer.trace.print(this.startedAt)
    ])
  }
}

// Runs a scenario in a room, and resolves with { passed, reason, ms, log, … }. One that fails may be tried again, with
// the first failure in the result.
export async function runInRoom (lab, scenario, attempts = 1) {
  const failures = []
  for (let attempt = 1; ; attempt += 1) {
    const room = new BridgedRoom(lab)
    let result
    try {
      result = { passed: true, ...await scenario(room) }
    } catch (error) {
      result = { passed: false, reason: error instanceof Timeout ? error.message : error.stack, log: room.print() }
      failures.push(result.reason)
    } finally {
      await room.close()
    }
    if (result.passed || attempt >= attempts) {
      return { ...result, ms: Date.now() - room.startedAt, errors: room.errors, failures }
    }
  }
}
