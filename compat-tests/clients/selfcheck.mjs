// Negative control: the harness must fail against faulty servers, in time and with a useful log.

import { parseArgs } from 'node:util'
import { runContest } from './lib/contest.mjs'
import { runCrowds } from './lib/crowd.mjs'
import { openCutter, openMute } from './lib/faulty.mjs'
import { namePair, runPairs } from './lib/pairs.mjs'
import { findVersion } from './lib/versions.mjs'

const USAGE = `Usage: node selfcheck.mjs [--url ws://127.0.0.1:PORT]

  --url    a good signaling server: also check that connections which are cut during a hold are seen`

const LIMIT_MS = 1500
// For loading pages, on a busy machine.
const SLACK_MS = 5000
const CUT_MS = 4000

function lineUps (names) {
  return names.map((name) => [findVersion(name)])
}

async function run (url, lineUps, scenario, limit) {
  const contestants = lineUps.map((lineUp) => ({ name: lineUp[0].version, server: url, url, lineUp, retries: 0 }))
  const { entries } = await runContest(contestants, { limit, scenarios: [scenario] })
  return entries.map(({ name, results: [result] }) => ({ name, ...result }))
}

// The complaint about a result that is not the expected failure.
function complaint ({ passed, failures, ms }, { longest, reason }) {
  if (passed) {
    return 'passed although it cannot'
  }
  const [failure] = failures
  if (!reason.test(failure.reason)) {
    return `failed for another reason: ${failure.reason}`
  }
  if (!failure.log.some((line) => line.includes('socket-open'))) {
    return 'the log does not show the signaling socket'
  }
  return ms > longest ? `took ${ms} ms to fail` : undefined
}

async function expectFailures (what, results, expected) {
  let good = true
  for (const result of results) {
    const wrong = complaint(result, expected)
    good &&= wrong === undefined
    console.log(`${wrong ? 'WRONG' : 'ok   '} ${what}, netflux ${result.name}: ${wrong ?? result.failures[0].reason}`)
  }
  return good
}

async function checkMute () {
  const server = await openMute()
  try {
    const results = await run(server.url, lineUps(['0.10.3', 'rc.3', 'rc.14', 'beta.8', '3.0.0', '4.3.1']), 'pair', LIMIT_MS)
    return expectFailures('mute server', results, { longest: 2 * LIMIT_MS + SLACK_MS, reason: /not within/ })
  } finally {
    server.close()
  }
}

// Pairs and a crowd, none of which succeed, however often they are tried.
async function checkMuteForMixed () {
  const server = await openMute()
  const options = { signaling: server.url, limit: LIMIT_MS, parallel: 2, onResult: () => {} }
  const [old, current] = ['rc.14', '4.3.1'].map(findVersion)
  try {
    const pairs = await runPairs([{ member: old, joiner: current }, { member: current, joiner: old }], options)
    const crowds = await runCrowds([[old, current]], options)
    const results = [
      ...pairs.map((result) => ({ ...result, name: namePair(result) })),
      ...crowds.map((result) => ({ ...result, name: 'crowd' }))
    ].map(({ name, passed, attempts }) => ({ name, passed, failures: attempts, ms: attempts.at(-1).ms }))
    return expectFailures('mute server', results, { longest: 2 * LIMIT_MS + SLACK_MS, reason: /not within/ })
  } finally {
    server.close()
  }
}

async function checkCut (url) {
  const server = await openCutter(url, CUT_MS)
  try {
    const results = await run(server.url, lineUps(['4.3.1']), 'hold', 8000)
    return expectFailures('cut connection', results, { longest: CUT_MS + SLACK_MS, reason: /should have stayed open/ })
  } finally {
    server.close()
  }
}

const { values } = parseArgs({ options: { url: { type: 'string' }, help: { type: 'boolean', short: 'h' } } })
if (values.help) {
  console.log(USAGE)
} else {
  const verdicts = [await checkMute(), await checkMuteForMixed()]
  if (values.url) {
    verdicts.push(await checkCut(values.url))
  }
  process.exitCode = verdicts.every((good) => good) ? 0 : 1
}
