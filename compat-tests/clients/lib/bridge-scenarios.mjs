// Scenarios of the bridge.

import { setTimeout as sleep } from 'node:timers/promises'
import { VERSIONS } from './versions.mjs'

const MESSAGES = [
  { kind: 'text', length: 40 },
  { kind: 'bytes', length: 40 },
  { kind: 'text', length: 40, directed: true },
  { kind: 'bytes', length: 300, directed: true },
  { kind: 'bytes', length: 0 },
  { kind: 'text', length: 0 },
  { kind: 'text', length: 1 << 20 },
  { kind: 'bytes', length: 200000, directed: true },
  { kind: 'text', length: 41 }
]

// The first is in the room when the second comes: by its API for the first peer ('open'), or by that for others.
export async function runPair (room, [first, second], how) {
  const one = await room.enter(first, 'first')
  await room.wait('the first is in the room', () => one.ready || one.failure)
  const two = await room.enter(second, how === 'open' ? 'first' : 'join')
  const begin = Date.now()
  await room.meet()
  const setup = Date.now() - begin
  await room.introduce()
  await room.exchange(MESSAGES)
  room.checkPresence()
  const ms = await room.remove(two, 'call')
  return { setup, left: ms, note: `met after ${setup} ms` }
}

// A generator of random numbers below 1.
function random (seed) {
  let state = seed >>> 0
  return () => {
    state = state + 0x6D2B79F5 >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

const LAYERS = ['A', 'B', 'C', 'D', 'E']

function pick (list, next) {
  return list[Math.floor(next() * list.length)]
}

// Versions for one room. netflux 1.0 cannot join a group with a second client of 0.10.8, without a bridge either.
function versionsOfRoom (next) {
  const kept = pick(['0.10.8', '1.0.0'], next)
  return Object.values(VERSIONS).filter(({ layer, version }) => layer !== 'B' || version.startsWith(kept))
}

// The same number of each group, in an order by the seed. In a group, the first opens.
export function crowdPlan (size, seed) {
  const next = random(seed * 1000 + size)
  const plan = Array.from({ length: size }, (_, at) => LAYERS[at % LAYERS.length]).map((layer) => ({ layer, order: next() }))
  plan.sort((one, other) => one.order - other.order)
  const seen = new Set()
  const versions = versionsOfRoom(next)
  return plan.map(({ layer }) => {
    const spec = pick(versions.filter((version) => version.layer === layer), next)
    const how = seen.has(layer) ? 'join' : 'first'
    seen.add(layer)
    return { spec, how }
  })
}

export async function runCrowd (room, plan) {
  const begin = Date.now()
  for (const { spec, how, options } of plan) {
    await room.enter(spec, how, options)
    await room.meet()
  }
  const setup = Date.now() - begin
  await room.introduce()
  const count = await room.exchange([
    { kind: 'text', length: 60 }, { kind: 'bytes', length: 30000 }, { kind: 'text', length: 60, directed: true }
  ])
  room.checkPresence()
  return { note: `${plan.length} members, ${count} messages sent, met after ${setup} ms` }
}

// The first messages of a client over the first channel that it is offered are lost: of each that is the last of its
// generation among the first `count`, as the others would lose them to one of their own.
export function runLosers (room, versions, count) {
  const has = (specs, { layer }) => specs.some((spec) => spec.layer === layer)
  return runCrowd(room, versions.map((spec, at) => ({
    spec,
    how: has(versions.slice(0, at), spec) ? 'join' : 'first',
    options: { losesMessages: at < count && !has(versions.slice(at + 1), spec) }
  })))
}

// A client that only joins arrives where its group has no member; the others leave, and others join: it is still there.
export async function runStay (room, [joiner, first, second]) {
  const one = await room.enter(first, 'first')
  await room.wait('the first is in the room', () => one.ready)
  const stays = await room.enter(joiner, 'join')
  await room.meet()
  await room.introduce()
  await room.remove(one, 'call')
  await sleep(1500)
  const two = await room.enter(second, 'first')
  await room.meet()
  await room.introduce()
  await room.exchange(MESSAGES.slice(0, 4))
  room.checkPresence()
  await room.remove(two, 'call')
  await room.enter(first, 'first')
  await room.meet()
  await room.introduce()
  room.checkPresence()
  const phantoms = stays.left.filter((id) => !room.ids.get(stays).has(id))
  if (phantoms.length > 0) {
    throw new Error(`${stays.name}: [${phantoms}] left, who sent nothing`)
  }
  return {}
}

// Members come and go; then everyone who is left sees everyone, and messages pass.
export async function runChurn (room, seed) {
  const next = random(seed)
  const versions = versionsOfRoom(next)
  const steps = []
  for (let step = 0; step < 14; step += 1) {
    const openers = new Set(room.members.filter(({ how }) => how === 'first').map(({ spec }) => spec.layer))
    if (room.members.length < 3 || (room.members.length < 8 && next() < 0.6)) {
      const spec = pick(versions, next)
      const how = openers.has(spec.layer) || room.members.some((member) => member.spec.layer === spec.layer) ? 'join' : 'first'
      const peer = await room.enter(spec, how)
      steps.push(`+${spec.version}/${how}`)
    } else {
      const peer = pick(room.members, next)
      // A client whose entry leaves while it joins does not get in, without a bridge either.
      const own = room.members.filter(({ spec }) => spec.layer === peer.spec.layer)
      await room.wait('its group is together', () => own.every(({ ready }) => ready), 3000).catch(() => {})
      room.members = room.members.filter((member) => member !== peer)
      await peer.leave()
      await sleep(100)
      await peer.close()
      steps.push(`-${peer.spec.version}`)
    }
    await sleep(next() * 1500)
  }
  try {
    await room.meet()
    await room.introduce()
    await room.exchange([{ kind: 'text', length: 60 }, { kind: 'text', length: 60, directed: true }])
    room.checkPresence()
  } catch (error) {
    error.message = `${steps.join(' ')}: ${error.message}`
    throw error
  }
  return { note: steps.join(' ') }
}
