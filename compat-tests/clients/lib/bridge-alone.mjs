// Faults that clients of one generation have among themselves. No bridge takes part: what they cost a bridged room is
// the clients' own. Each scenario resolves with { seen, note }.

import { setTimeout as sleep } from 'node:timers/promises'

async function openGroup (room, spec, count) {
  const peers = []
  for (let number = 0; number < count; number += 1) {
    const peer = await room.enter(spec, number === 0 ? 'first' : 'join')
    await room.wait(`${peer.name} is in the group`, () => peer.ready)
    peers.push(peer)
  }
  await sleep(1000)
  return peers
}

async function leave (peer) {
  await peer.leave()
  await sleep(100)
  await peer.close()
}

// netflux 1.1 lists a member that it let in for seconds after that has left: a client that joins then waits for it.
export async function runAfterDeparture (room, spec) {
  const [entry, , leaver] = await openGroup(room, spec, 3)
  const id = await leaver.id()
  const begin = Date.now()
  await leave(leaver)
  const joiner = await room.enter(spec, 'join')
  await room.wait('the entry notices that a member left', () => entry.left.includes(id))
  const noticed = Date.now() - begin
  const isIn = await room.wait('the joiner is in the group', () => joiner.ready).catch(() => false)
  return { seen: !isIn, note: `the entry noticed the departure after ${noticed} ms, the joiner is ${isIn ? 'in' : 'not in'}` }
}

// netflux 0.10.3 waits for a member that leaves as the entry lists it, until the entry leaves.
export async function runWhileMemberLeaves (room, spec) {
  const [entry, leaver] = await openGroup(room, spec, 3)
  const joiner = await room.enter(spec, 'join')
  await room.wait('the joiner has a channel', () => joiner.channelsOpened > 0)
  await leave(leaver)
  const isIn = await room.wait('the joiner is in the group', () => joiner.ready).catch(() => false)
  await leave(entry)
  await sleep(500)
  return { seen: !isIn, note: `the joiner is ${isIn ? 'in' : `not in: ${joiner.failure}`}` }
}

// netflux 3 reports a joiner, its departure, and the joiner again, if the entry leaves as it joins.
export async function runWhileEntryLeaves (room, spec) {
  const [entry, member] = await openGroup(room, spec, 2)
  const joiner = await room.enter(spec, 'join')
  await room.wait('the entry has let the joiner in', () => entry.joined.length > 1)
  await sleep(20)
  await leave(entry)
  await room.wait('the joiner is in the group', () => joiner.ready)
  await sleep(3000)
  const [, ...reported] = member.joined
  return { seen: reported.length > 1, note: `the joiner was reported ${reported.length} times` }
}
