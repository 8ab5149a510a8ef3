// Every ordered pair of netflux versions under one key, against a running signaling server. See README.md, or --help.

import { writeFileSync } from 'node:fs'
import { bundlePath } from './lib/bundles.mjs'
import { complaints, conclusion } from './lib/matrix.mjs'
import { list, milliseconds, parse, positive } from './lib/options.mjs'
import { namePair, pairUp, runPairs } from './lib/pairs.mjs'
import { readUrl, requireServer } from './lib/target.mjs'
import { findVersion, VERSIONS } from './lib/versions.mjs'

const USAGE = `Usage: node pairs.mjs --url ws://127.0.0.1:PORT [options]

  --versions A,B,…     netflux versions, e.g. 0.10.3,rc.14,4.3.1 (default: all)
  --only A:B,…         these pairs only: member A, joiner B
  --parallel N         so many pairs at a time (default: 4)
  --delay-open MS      the clients see their signaling sockets open that much later
  --limit MS           longest wait for anything (default: 15000)
  --trace FILE         write every frame and page event there, a JSON object each (/dev/stdout will do)`

const OPTIONS = {
  url: { type: 'string' },
  versions: { type: 'string' },
  only: { type: 'string' },
  parallel: { type: 'string', default: '4' },
  'delay-open': { type: 'string', default: '0' },
  limit: { type: 'string', default: '15000' },
  trace: { type: 'string' }
}

function readPair (text) {
  const names = text.split(':')
  if (names.length !== 2) {
    throw new Error(`--only takes pairs such as rc.14:4.3.1, not ${JSON.stringify(text)}`)
  }
  const [member, joiner] = names.map(findVersion)
  return { member, joiner }
}

function pickPairs ({ versions, only }) {
  const names = list(versions)
  const pairs = list(only).map(readPair)
  return pairs.length > 0 ? pairs : pairUp((names.length > 0 ? names : Object.keys(VERSIONS)).map(findVersion))
}

const options = parse(USAGE, OPTIONS, (values) => {
  const pairs = pickPairs(values)
  pairs.forEach(({ member, joiner }) => [member, joiner].forEach(bundlePath))
  return {
    pairs,
    signaling: readUrl(values.url),
    parallel: positive(values, 'parallel'),
    delayOpen: milliseconds(values, 'delay-open'),
    limit: positive(values, 'limit'),
    trace: values.trace
  }
})
await requireServer(options.signaling)

const print = (lines) => lines.forEach((line) => console.log(line))
const results = await runPairs(options.pairs, { ...options, onResult: (result) => print(complaints(result)) })
if (options.trace) {
  const lines = results.flatMap((result) => result.attempts.flatMap(({ dump }, index) => {
    return dump.map((record) => JSON.stringify({ pair: namePair(result), attempt: index + 1, ...record }))
  }))
  writeFileSync(options.trace, `${lines.join('\n')}\n`)
}
print(conclusion(results))
process.exitCode = results.every(({ passed }) => passed) ? 0 : 1
