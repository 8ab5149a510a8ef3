// Runs the scenarios for a list of contestants (a line-up of clients and the server they talk to) in one browser.

import { openBrowser } from './browser.mjs'
import { Group } from './group.mjs'
import { SCENARIOS } from './scenarios.mjs'
import { openSite } from './site.mjs'
import { Turns } from './turns.mjs'

// Repetitions of a scenario in which a client failed by a race of its own.
const RACE_RETRIES = 3

async function attempt (lab, lineUp, scenario, turns) {
  let endTurn = await turns.take()
  const idle = async (pause) => {
    endTurn()
    try {
      return await pause()
    } finally {
      endTurn = await turns.take()
    }
  }
  const group = new Group(lab, lineUp)
  const result = { passed: false, failures: [], log: [] }
  try {
    await SCENARIOS[scenario](group, idle)
    result.passed = true
    result.log = lab.verbose ? group.print() : []
  } catch (error) {
    result.failures.push({ reason: error.message, log: group.print() })
  } finally {
    await group.close()
    endTurn()
  }
  const { channels, delivered, expected, firstChannelMs, errors, ownRaces } = group
  const ms = Date.now() - group.startedAt
  return { ...result, peers: group.everyone.length, channels, delivered, expected, firstChannelMs, errors, ownRaces, ms }
}

// The server's part was done: every data channel of the scenario was open at both ends.
const isServed = ({ channels }) => channels.expected > 0 && channels.opened >= channels.expected

// A scenario is repeated only where the client or (`contestant.retries`) the server is known to fail at
// times, and once where the pages failed to exchange messages over open channels.
async function runScenario (lab, contestant, scenario, turns) {
  const failures = []
  const errors = []
  let ownRaces = 0
  for (let attempts = 1; ; attempts += 1) {
    const result = await attempt(lab, contestant.lineUp, scenario, turns)
    failures.push(...result.failures)
    errors.push(...result.errors)
    ownRaces += result.ownRaces
    const retries = Math.max(contestant.retries, isServed(result) ? 1 : 0, result.ownRaces > 0 ? RACE_RETRIES : 0)
    if (result.passed || attempts > retries) {
      return { scenario, ...result, attempts, failures, errors, ownRaces }
    }
  }
}

// Resolves with one entry per contestant: { name, server, results }.
export async function runContest (contestants, options) {
  const { limit, delayOpen = 0, scenarios = Object.keys(SCENARIOS), verbose = false, onResult } = options
  const site = await openSite()
  const { browser, context } = await openBrowser()
  const turns = new Turns()
  try {
    const entries = contestants.map((contestant) => ({ ...contestant, results: [] }))
    // Order of turns: each scenario for all contestants, then the next.
    await Promise.all(scenarios.flatMap((scenario) => entries.map(async (entry) => {
      const lab = { context, origin: site.origin, signaling: entry.url, limit, delayOpen, verbose }
      const result = await runScenario(lab, entry, scenario, turns)
      entry.results.push(result)
      onResult?.(entry, result)
    })))
    return { chromium: browser.version(), entries }
  } finally {
    await browser.close()
    site.close()
  }
}
