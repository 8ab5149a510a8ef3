// Ordered pairs of client versions under one key: the first is a member when the second joins.

import { openBrowser } from './browser.mjs'
import { dump, summarize } from './frames.mjs'
import { Group } from './group.mjs'
import { openSite } from './site.mjs'

const ATTEMPTS = 2

export function namePair ({ member, joiner }) {
  return `${member.version}:${joiner.version}`
}

export function pairUp (specs) {
  return specs.flatMap((member) => specs.map((joiner) => ({ member, joiner })))
}

// Versions of one layer must exchange messages; others must open a data channel.
async function meet (group, { member, joiner }) {
  await group.grow(1)
  if (member.layer === joiner.layer) {
    await group.add()
    await group.broadcast()
  } else {
    await group.addStranger()
  }
}

// From the joiner's `new WebSocket` until the channel is open at both ends.
function openedAfter ([member, joiner]) {
  return Math.max(member.firstChannelAt, joiner.firstChannelAt) - joiner.firstSocketAt
}

async function attempt (lab, pair) {
  const group = new Group(lab, [pair.member, pair.joiner], { names: ['member', 'joiner'] })
  let reason
  try {
    await meet(group, pair)
  } catch (error) {
    reason = error.message
  } finally {
    await group.close()
  }
  return {
    passed: reason === undefined,
    reason,
    ms: Date.now() - group.startedAt,
    channelMs: openedAfter(group.everyone.length === 2 ? group.everyone : [{}, {}]),
    joinerSockets: group.everyone[1]?.sockets.length ?? 0,
    errors: group.errors,
    signaling: group.everyone.map(({ name, trace }) => `${name} ${summarize(trace)}`),
    log: group.print(),
    dump: group.everyone.flatMap((peer) => dump(peer, group.startedAt)).sort((one, other) => one.ms - other.ms)
  }
}

async function tryPair (lab, pair) {
  const attempts = []
  do {
    attempts.push(await attempt(lab, pair))
  } while (!attempts.at(-1).passed && attempts.length < ATTEMPTS)
  return { ...pair, passed: attempts.at(-1).passed, attempts }
}

// Resolves with { member, joiner, passed, attempts } for each pair, in order; `parallel` of them run at a time.
export async function runPairs (pairs, { signaling, limit, delayOpen = 0, parallel, onResult }) {
  const site = await openSite()
  const { browser, context } = await openBrowser()
  const lab = { context, origin: site.origin, signaling, limit, delayOpen }
  const results = []
  const rest = pairs.entries()
  const work = async () => {
    for (const [index, pair] of rest) {
      results[index] = await tryPair(lab, pair)
      onResult?.(results[index])
    }
  }
  try {
    await Promise.all(Array.from({ length: parallel }, work))
    return results
  } finally {
    await browser.close()
    site.close()
  }
}
