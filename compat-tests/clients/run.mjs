// Real netflux clients against one running signaling server. See README.md, or --help.

import { runContest } from './lib/contest.mjs'
import { COMMON_USAGE, nameLineUp, readOptions } from './lib/options.mjs'
import { conclude, printResult, writeJson } from './lib/report.mjs'
import { readUrl, requireServer } from './lib/target.mjs'

const USAGE = `Usage: node run.mjs --url ws://127.0.0.1:PORT [options]
${COMMON_USAGE}`

const options = readOptions(USAGE, { url: { type: 'string' } }, ({ url }) => { readUrl(url) })

const url = readUrl(options.url)
await requireServer(url)
const contestants = options.lineUps.map((lineUp) => {
  return { name: nameLineUp(lineUp), server: options.label ?? url, url, lineUp, retries: 0 }
})
const contest = await runContest(contestants, { ...options, onResult: printResult })
if (options.json) {
  writeJson(options.json, options.label, contest)
}
process.exitCode = conclude(contest.entries)
