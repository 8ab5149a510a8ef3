// Clients of several generations under one key, on a server that keeps the generations apart (--rooms by-generation).
// See README.md, or --help.

import { bundlePath } from './lib/bundles.mjs'
import { runCrowds } from './lib/crowd.mjs'
import { list, nameLineUp, parse, positive } from './lib/options.mjs'
import { readUrl, requireServer } from './lib/target.mjs'
import { findVersion } from './lib/versions.mjs'

const USAGE = `Usage: node crowd.mjs --url ws://127.0.0.1:PORT [options]

  --crowds A+B+C,…     the crowds, two clients of each version (default: 0.10.8+beta.8+4.3.1,0.10.3+rc.14+3.0.0)
  --limit MS           longest wait for anything (default: 15000)
  --verbose            print the log of every crowd, not only of failed ones`

const OPTIONS = {
  url: { type: 'string' },
  crowds: { type: 'string', default: '0.10.8+beta.8+4.3.1,0.10.3+rc.14+3.0.0' },
  limit: { type: 'string', default: '15000' },
  verbose: { type: 'boolean', default: false }
}

function readCrowd (text) {
  const specs = text.split('+').map(findVersion)
  const layers = new Set(specs.map(({ layer }) => layer))
  if (layers.size < specs.length) {
    throw new Error(`${text}: two of these understand each other, and would be one group`)
  }
  specs.forEach(bundlePath)
  return specs
}

const options = parse(USAGE, OPTIONS, (values) => ({
  signaling: readUrl(values.url),
  crowds: list(values.crowds).map(readCrowd),
  limit: positive(values, 'limit'),
  verbose: values.verbose
}))
await requireServer(options.signaling)

function print ({ specs, passed, attempts }) {
  attempts.forEach(({ reason, ms, clients, delivered, expected, errors, log }, index) => {
    const verdict = reason === undefined ? 'ok    ' : passed ? 'again ' : 'FAILED'
    console.log(`${verdict} ${nameLineUp(specs)}, two each, attempt ${index + 1}: ${clients.length} clients, ` +
      `messages ${delivered}/${expected}, ${ms} ms${reason === undefined ? '' : `: ${reason}`}`)
    errors.forEach((text) => console.log(`  page error, netflux ${text}`))
    if (reason !== undefined || options.verbose) {
      log.forEach((line) => console.log(line))
    }
  })
}

const results = await runCrowds(options.crowds, { ...options, onResult: print })
const passed = results.filter((result) => result.passed)
const retried = passed.filter(({ attempts }) => attempts.length > 1).length
console.log(`crowds: ${passed.length} of ${results.length}${retried > 0 ? `, ${retried} after a retry` : ''}`)
process.exitCode = passed.length === results.length && passed.length > 0 ? 0 : 1
