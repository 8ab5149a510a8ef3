// Real netflux clients against one running signaling server. See README.md, or --help.

import { runContest } from './lib/contest.mjs'
import { COMMON_USAGE, nameLineUp, readOptions } from './lib/options.mjs'
import { canConnect } from './lib/ports.mjs'
import { conclude, printResult, writeJson } from './lib/report.mjs'

const USAGE = `Usage: node run.mjs --url ws://127.0.0.1:PORT [options]
${COMMON_USAGE}`

const options = readOptions(USAGE, { url: { type: 'string' } }, ({ url }) => {
  if (!/^ws:\/\/127\.0\.0\.1:\d{2,5}\/?$/.test(url ?? '')) {
    throw new Error('--url takes the address of a signaling server on this machine, such as ws://127.0.0.1:8010')
  }
})

const url = options.url.replace(/\/$/, '')
if (!(await canConnect(Number(new URL(url).port)))) {
  console.error(`nothing listens at ${url}`)
  process.exit(1)
}
const contestants = options.lineUps.map((lineUp) => {
  return { name: nameLineUp(lineUp), server: options.label ?? url, url, lineUp, retries: 0 }
})
const contest = await runContest(contestants, { ...options, onResult: printResult })
if (options.json) {
  writeJson(options.json, options.label, contest)
}
process.exitCode = conclude(contest.entries)
