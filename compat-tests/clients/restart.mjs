// What real clients do when the signaling server restarts. See README.md, or --help.

import { setTimeout as sleep } from 'node:timers/promises'
import { bundlePath } from './lib/bundles.mjs'
import { openBrowser } from './lib/browser.mjs'
import { startGateway } from './lib/gateway.mjs'
import { list, milliseconds, parse, positive } from './lib/options.mjs'
import { judgePair, openPair, surprises } from './lib/restart.mjs'
import { openSite } from './lib/site.mjs'
import { findVersion, VERSIONS } from './lib/versions.mjs'

const USAGE = `Usage: node restart.mjs --server-bin FILE [options]

  --server-bin FILE    the server, which is started, stopped by SIGTERM, and started again on its port
  --versions A,B,…     netflux versions, e.g. 0.10.3,rc.14,4.3.1 (default: all)
  --down MS            time between the end of the server and its new start (default: 500)
  --settle MS          time for the clients afterwards (default: 15000)
  --limit MS           longest wait for anything (default: 8000)
  --markdown           print the table of docs/reference/restart.md
  --verbose            print the log of every pair, not only of those with surprises`

const OPTIONS = {
  'server-bin': { type: 'string' },
  versions: { type: 'string' },
  down: { type: 'string', default: '500' },
  settle: { type: 'string', default: '15000' },
  limit: { type: 'string', default: '8000' },
  markdown: { type: 'boolean', default: false },
  verbose: { type: 'boolean', default: false }
}

const options = parse(USAGE, OPTIONS, (values) => {
  if (!values['server-bin']) {
    throw new Error('--server-bin takes the program')
  }
  const specs = values.versions === undefined ? Object.values(VERSIONS) : list(values.versions).map(findVersion)
  specs.forEach(bundlePath)
  return {
    bin: values['server-bin'],
    specs,
    down: milliseconds(values, 'down'),
    settle: milliseconds(values, 'settle'),
    limit: positive(values, 'limit'),
    markdown: values.markdown,
    verbose: values.verbose
  }
})

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`
const tell = ({ what, ms, closed }) => {
  const code = closed && `closed with ${closed.code}`
  return what === 'returns' ? `${code}, back after ${seconds(ms)}` : [code, what].filter(Boolean).join(', ')
}

function printText ({ spec, result, reasons, log }) {
  const { opener, joiner, channel, messages, newcomer } = result
  console.log(`${reasons.length === 0 ? 'ok      ' : 'SURPRISE'} netflux ${spec.version}: opener ${tell(opener)}; ` +
    `joiner ${tell(joiner)}; the data channel ${channel}, messages ${messages ? 'arrive' : 'are lost'}; a newcomer ${newcomer}`)
  reasons.forEach((reason) => console.log(`  ${reason}`))
  if (options.verbose || reasons.length > 0) {
    log.forEach((line) => console.log(line))
  }
}

function printMarkdown (results) {
  console.log('| netflux | opener | joiner | data channel between them | newcomer afterwards |\n|---|---|---|---|---|')
  results.forEach(({ spec, result: { opener, joiner, channel, newcomer } }) => {
    console.log(`| ${spec.version} | ${tell(opener)} | ${tell(joiner)} | ${channel} | ${newcomer} |`)
  })
}

// The pairs are opened one after the other, and live through one restart together.
async function run ({ context, origin }) {
  let server = await startGateway(options.bin, ['-h', '127.0.0.1', '-p', '0'])
  try {
    const lab = { context, origin, signaling: server.url, limit: options.limit, delayOpen: 0 }
    const pairs = []
    for (const spec of options.specs) {
      pairs.push({ spec, group: await openPair(lab, spec) })
    }
    const restartedAt = Date.now()
    await server.stop()
    await sleep(options.down)
    server = await startGateway(options.bin, ['-h', '127.0.0.1', '-p', server.port])
    await sleep(options.settle)
    const results = []
    for (const { spec, group } of pairs) {
      const result = await judgePair(group, restartedAt, options.limit)
      results.push({ spec, result, reasons: surprises(spec.version, result), log: group.print() })
      await group.close()
    }
    return results
  } finally {
    await server.stop()
  }
}

const site = await openSite()
const { browser, context } = await openBrowser()
try {
  const results = await run({ context, origin: site.origin })
  if (options.markdown) {
    printMarkdown(results)
  } else {
    results.forEach(printText)
  }
  const surprised = results.filter(({ reasons }) => reasons.length > 0).length
  console.error(`restart: ${results.length - surprised} as known, ${surprised} not`)
  process.exitCode = surprised === 0 && results.length > 0 ? 0 : 1
} finally {
  await browser.close()
  site.close()
}
