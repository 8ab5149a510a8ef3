// What two clients in one group do when their signaling server restarts: the first peer, and a joiner with a
// data channel to it.

import { Group } from './group.mjs'
import { until } from './until.mjs'

// What each version is known to do; docs/reference/restart.md has the same, which a test checks. Opener and joiner: 'returns'
// with a new socket, 'stays away', or 'had left': its socket was closed before. The channel 'stays' open or 'is renewed'. A
// newcomer, who joins afterwards, 'joins' the group, is 'alone' under the key, or is 'refused'.
const PARTS = ['opener', 'joiner', 'channel', 'newcomer']
export const KNOWN = {
  '0.10.3': ['stays away', 'stays away', 'stays', 'refused'],
  '0.10.8': ['stays away', 'had left', 'stays', 'refused'],
  '1.0.0-rc.3': ['stays away', 'had left', 'stays', 'refused'],
  '1.0.0-rc.14': ['stays away', 'stays away', 'stays', 'alone'],
  '1.1.0-beta.7': ['stays away', 'stays away', 'stays', 'alone'],
  '1.1.0-beta.8': ['stays away', 'stays away', 'stays', 'alone'],
  '3.0.0': ['returns', 'returns', 'is renewed', 'joins'],
  '4.3.0': ['returns', 'returns', 'stays', 'joins'],
  '4.3.1': ['returns', 'returns', 'stays', 'joins']
}

async function succeeds (attempt) {
  try {
    await attempt
    return true
  } catch {
    return false
  }
}

// The pair, before the restart.
export async function openPair (lab, spec) {
  const group = new Group(lab, [spec], { names: ['opener', 'joiner', 'newcomer'] })
  await group.grow(2)
  await group.broadcast()
  await group.checkSockets()
  return group
}

function returned ({ sockets }, restartedAt) {
  const [old, ...later] = sockets
  if (old.closedAt < restartedAt) {
    return { what: 'had left' }
  }
  const back = later.find(({ openedAt }) => openedAt !== undefined)
  const closed = { code: old.code, reason: old.reason }
  return back ? { what: 'returns', ms: Math.round(back.openedAt - old.closedAt), closed } : { what: 'stays away', closed }
}

// A newcomer under the key of the pair.
async function tryNewcomer (group, limit) {
  if (await succeeds(group.add())) {
    return await succeeds(group.broadcast()) ? 'joins' : 'joins, but messages are lost'
  }
  const newcomer = group.everyone.at(-1)
  if (newcomer.channelsOpened > 0) {
    return 'joins only in part'
  }
  await succeeds(until([newcomer], () => newcomer.ready || newcomer.failure, { limit, what: 'an answer' }))
  return newcomer.failure ? 'refused' : newcomer.ready ? 'alone' : 'waits'
}

// After the restart and some time.
export async function judgePair (group, restartedAt, limit) {
  const [opener, joiner] = group.everyone
  const [openerReturn, joinerReturn] = [returned(opener, restartedAt), returned(joiner, restartedAt)]
  const channel = group.everyone.every(({ channelsClosed }) => channelsClosed === 0)
    ? 'stays'
    : group.everyone.every((peer) => peer.channelsOpened > 1) ? 'is renewed' : 'closes'
  const messages = await succeeds(group.broadcast())
  const newcomer = await tryNewcomer(group, limit)
  return { opener: openerReturn, joiner: joinerReturn, channel, messages, newcomer }
}

// Returns the differences between a result and what the version is known to do.
export function surprises (version, { opener, joiner, channel, messages, newcomer }) {
  const seen = [opener.what, joiner.what, channel, newcomer]
  const changed = KNOWN[version].map((known, place) => ({ part: PARTS[place], known, seen: seen[place] }))
    .filter(({ known, seen }) => seen !== known)
  return [
    ...changed.map(({ part, known, seen }) => `${part}: ${seen}, known: ${known}`),
    ...(messages ? [] : ['messages over the data channel are lost'])
  ]
}
