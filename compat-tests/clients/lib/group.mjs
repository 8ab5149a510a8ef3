// A group of peers under one fresh key: grows, broadcasts, shrinks, and reports failures.

import { randomBytes } from 'node:crypto'
import { judge, makeBroadcasts } from './delivery.mjs'
import { Peer } from './peer.mjs'
import { socketSettled, socketTrouble } from './signaling.mjs'
import { Timeout, until } from './until.mjs'

export function freshKey () {
  return `key-${randomBytes(6).toString('hex')}`
}

function hasFailed (peer) {
  return peer.failure !== undefined
}

export class Group {
  key
  startedAt = Date.now()
  members = []
  everyone = []
  delivered = 0
  expected = 0
  firstChannelMs
  #lab
  #lineUp
  #names
  #channelsExpected = 0

  // `lineUp`: the versions of the first, second, … peer, starting over when there are more peers.
  constructor (lab, lineUp, { key = freshKey(), names = [] } = {}) {
    this.#lab = lab
    this.#lineUp = lineUp
    this.#names = names
    this.key = key
  }

  get channels () {
    return { opened: this.everyone.reduce((sum, peer) => sum + peer.channelsOpened, 0), expected: this.#channelsExpected }
  }

  get errors () {
    return this.everyone.flatMap((peer) => peer.errors.map((text) => `${peer.spec.version}: ${text}`))
  }

  get ownRaces () {
    return this.everyone.filter((peer) => peer.hitOwnRace).length
  }

  async grow (size) {
    while (this.members.length < size) {
      await this.add()
    }
  }

  async add () {
    const others = [...this.members]
    const heard = others.map((peer) => peer.joined.length)
    const peer = await this.#enter(others, hasFailed)
    if (others.length === 0) {
      return
    }
    await this.#wait(`${peer.name} is in the group`, () => peer.ready || peer.hitOwnRace)
    await this.#wait(`the others notice that ${peer.name} joined`, () => {
      return others.every((other, index) => other.joined.length > heard[index])
    })
    if (peer.spec.hearsJoins) {
      await this.#wait(`${peer.name} notices the others`, () => peer.joined.length >= others.length)
    }
  }

  // A peer of another p2p protocol: its data channels must open, and nothing else is checked.
  addStranger () {
    return this.#enter([...this.members], (peer) => hasFailed(peer) && peer.channelsOpened === 0)
  }

  // Up to the open data channels, unless a peer is `broken` before.
  async #enter (others, broken) {
    const index = this.everyone.length
    const spec = this.#lineUp[index % this.#lineUp.length]
    const peer = await Peer.open(this.#lab, this.#names[index] ?? `peer${index + 1}`, spec)
    this.everyone.push(peer)
    this.members.push(peer)
    this.#channelsExpected += 2 * others.length

    if (index === 0) {
      await peer.first(this.key)
      await this.#wait(`${peer.name} is the first in the group`, () => peer.ready, broken)
      return peer
    }
    const channels = others.map((other) => other.channelsOpened)
    await peer.join(this.key)
    await this.#wait(`${peer.name} has its data channels`, () => peer.channelsOpened >= others.length, broken)
    this.firstChannelMs ??= peer.firstChannelMs
    await this.#wait(`the others have their data channels to ${peer.name}`, () => {
      return others.every((other, index) => other.channelsOpened > channels[index])
    }, broken)
    return peer
  }

  // Every member's broadcasts must arrive at every other member, once.
  async broadcast () {
    const senders = await Promise.all(this.members.map(async (peer) => ({ name: peer.name, id: await peer.id() })))
    const broadcasts = makeBroadcasts(senders, randomBytes(4).toString('hex'))
    const before = this.members.map((peer) => peer.messages.length)
    const judgeAll = () => this.members.map((peer, index) => ({
      name: peer.name,
      ...judge(broadcasts, peer.name, peer.messages.slice(before[index]))
    }))

    const byName = new Map(this.members.map((peer) => [peer.name, peer]))
    for (const { sender, text } of broadcasts) {
      await byName.get(sender).send(text)
    }
    try {
      await this.#wait('all broadcasts arrive', () => judgeAll().every(({ missing }) => missing.length === 0))
    } finally {
      for (const { delivered, expected } of judgeAll()) {
        this.delivered += delivered
        this.expected += expected
      }
    }
    const wrong = judgeAll().filter(({ twice, strange }) => twice.length + strange.length > 0)
    if (wrong.length > 0) {
      throw new Error(`received twice, or from nowhere: ${JSON.stringify(wrong)}`)
    }
  }

  // `how`: 'call' for the client's own leave, or 'page': the page closes without one.
  async remove (peer, how) {
    const id = await peer.id()
    this.members = this.members.filter((member) => member !== peer)
    const noticed = () => this.members.every((member) => member.left.includes(id))
    if (how === 'call') {
      await peer.leave()
      if (peer.spec.leaveIsHeard) {
        await this.#wait(`the others notice that ${peer.name} left`, noticed)
      }
    }
    await peer.goAway()
    await this.#wait(`the others notice that ${peer.name} left`, noticed)
    await peer.close()
  }

  // Signaling sockets that break a rule now.
  socketTroubles () {
    return this.members.map((peer) => socketTrouble(peer, this.#socketRule(peer))).filter((trouble) => trouble)
  }

  async checkSockets () {
    await this.#wait('the joiners close their signaling sockets', () => {
      return this.members.every((peer) => socketSettled(peer, this.#socketRule(peer)))
    })
    this.#throwTroubles()
  }

  // Waits, unless a signaling socket breaks a rule in the meantime.
  async hold (ms) {
    try {
      await until(this.members, () => {
        this.#throwTroubles()
        return false
      }, { limit: ms, what: 'hold' })
    } catch (error) {
      if (!(error instanceof Timeout)) {
        throw error
      }
    }
  }

  async close () {
    await Promise.all(this.everyone.map((peer) => peer.close()))
  }

  print () {
    return this.everyone.flatMap((peer) => [
      `  ${peer.name}, netflux ${peer.spec.version}, key ${this.key}`,
      ...peer.trace.print(this.startedAt)
    ])
  }

  #socketRule (peer) {
    return peer === this.everyone[0] ? peer.spec.firstSocket : peer.spec.joinerSocket
  }

  #throwTroubles () {
    const troubles = this.socketTroubles()
    if (troubles.length > 0) {
      throw new Error(troubles.join('; '))
    }
  }

  #wait (what, test, broken = hasFailed) {
    return until(this.members, () => {
      const culprit = this.members.find(broken)
      if (culprit) {
        throw new Error(`${what}: ${culprit.name} failed: ${culprit.failure}`)
      }
      return test()
    }, { limit: this.#lab.limit + this.#lab.delayOpen, what })
  }
}
