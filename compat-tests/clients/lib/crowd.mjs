// A crowd: two clients of each of several versions, all under one key, on a server that keeps the generations apart.

import { openBrowser } from './browser.mjs'
import { freshKey, Group } from './group.mjs'
import { openSite } from './site.mjs'
import { shortName } from './versions.mjs'

const ATTEMPTS = 2

// Uncaught errors of pages for which the server is not at fault.
const BENIGN = {
  // 0.10.3 takes the frame that confirms the key to openers of the other JSON dialects for a joiner, which
  // never arrives.
  '0.10.3': /^rejection: timeout$/
}

function isBenign ({ version, ownRace }, error) {
  return BENIGN[version]?.test(error) || ownRace?.test(error)
}

// Unlike Promise.all, waits for all, and reports every error.
async function everyone (promises) {
  const failed = (await Promise.allSettled(promises)).filter(({ status }) => status === 'rejected')
  if (failed.length > 0) {
    throw new Error(failed.map(({ reason }) => reason.message).join('; '))
  }
}

// All first clients connect at the same time, then all second ones.
async function gather (groups) {
  for (const size of [1, 2]) {
    await everyone(groups.map((group) => group.grow(size)))
  }
}

// A client may meet its partner and no other client.
function strangersOf ({ name, spec, joined, left, channelsOpened }, isFirst, partner) {
  const expected = isFirst || spec.hearsJoins ? [partner] : []
  const wrong = []
  if (String(joined) !== String(expected)) {
    wrong.push(`${name} received [${joined}] instead of [${expected}]`)
  }
  if (left.length > 0) {
    wrong.push(`${name} received that [${left}] left`)
  }
  if (channelsOpened !== 1) {
    wrong.push(`${name} has had ${channelsOpened} data channels instead of one`)
  }
  return wrong
}

async function troublesOf ({ members }) {
  const ids = await Promise.all(members.map((peer) => peer.id()))
  return members.flatMap((peer, index) => [
    ...strangersOf(peer, index === 0, ids[1 - index]),
    ...peer.errors.filter((error) => !isBenign(peer.spec, error)).map((error) => `${peer.name} threw ${error}`)
  ])
}

async function play (groups) {
  await gather(groups)
  await everyone(groups.map((group) => group.broadcast()))
  await everyone(groups.map((group) => group.checkSockets()))
  const troubles = (await Promise.all(groups.map(troublesOf))).flat()
  if (troubles.length > 0) {
    throw new Error(troubles.join('; '))
  }
}

async function attempt (lab, specs) {
  const startedAt = Date.now()
  const key = freshKey()
  const groups = specs.map((spec) => {
    return new Group(lab, [spec], { key, names: ['first', 'second'].map((which) => `${which} ${shortName(spec)}`) })
  })
  let reason
  try {
    await play(groups)
  } catch (error) {
    reason = error.message
  } finally {
    await Promise.all(groups.map((group) => group.close()))
  }
  return {
    passed: reason === undefined,
    reason,
    ms: Date.now() - startedAt,
    clients: groups.flatMap((group) => group.everyone),
    delivered: groups.reduce((sum, group) => sum + group.delivered, 0),
    expected: groups.reduce((sum, group) => sum + group.expected, 0),
    errors: groups.flatMap((group) => group.errors),
    log: groups.flatMap((group) => group.print())
  }
}

// Resolves with [{ specs, passed, attempts }], one crowd after another.
export async function runCrowds (crowds, { signaling, limit, onResult }) {
  const site = await openSite()
  const { browser, context } = await openBrowser()
  const lab = { context, origin: site.origin, signaling, limit, delayOpen: 0 }
  const results = []
  try {
    for (const specs of crowds) {
      const attempts = []
      do {
        attempts.push(await attempt(lab, specs))
      } while (!attempts.at(-1).passed && attempts.length < ATTEMPTS)
      results.push({ specs, passed: attempts.at(-1).passed, attempts })
      onResult(results.at(-1))
    }
    return results
  } finally {
    await browser.close()
    site.close()
  }
}
