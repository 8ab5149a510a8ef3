// Every netflux client against the Node.js sigver release it was made for: verifies the harness itself.

import { fileURLToPath } from 'node:url'
import { runContest } from './lib/contest.mjs'
import { COMMON_USAGE, nameLineUp, readOptions } from './lib/options.mjs'
import { retriesFor, startOriginal } from './lib/original.mjs'
import { conclude, printResult, writeJson } from './lib/report.mjs'

const USAGE = `Usage: node originals.mjs [--originals DIR] [options]

  --originals DIR      where the sigver releases are installed (default: ../originals)${COMMON_USAGE}`

const options = readOptions(USAGE, {
  originals: { type: 'string', default: fileURLToPath(new URL('../originals', import.meta.url)) }
})

// A mixed group meets on the server of its first peer.
const releaseFor = ([first]) => first.original
const servers = new Map()

async function run () {
  for (const release of new Set(options.lineUps.map(releaseFor))) {
    servers.set(release, await startOriginal(options.originals, release))
  }
  const contest = await runContest(options.lineUps.map((lineUp) => {
    const release = releaseFor(lineUp)
    const { url } = servers.get(release)
    return { name: nameLineUp(lineUp), server: `sigver ${release}`, url, lineUp, retries: retriesFor(release) }
  }), { ...options, onResult: printResult })
  for (const server of servers.values()) {
    if (server.failure()) {
      console.log(`sigver ${server.release} ${server.failure()}\n${server.output()}`)
    }
  }
  if (options.json) {
    writeJson(options.json, options.label ?? 'originals', contest)
  }
  return conclude(contest.entries)
}

try {
  process.exitCode = await run()
} finally {
  servers.forEach((server) => server.stop())
}
