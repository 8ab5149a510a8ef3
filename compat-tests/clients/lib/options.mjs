// Command lines: what programs have in common, and the one that run.mjs and originals.mjs share.

import { parseArgs } from 'node:util'
import { bundlePath } from './bundles.mjs'
import { SCENARIOS } from './scenarios.mjs'
import { findVersion, VERSIONS } from './versions.mjs'

export const COMMON_USAGE = `
  --versions A,B,…     netflux versions, e.g. 0.10.3,rc.14,4.3.1 (default: all)
  --groups A+B,…       groups of mixed versions: first peer A, second B, and so on in turn
  --scenarios A,B,…    of ${Object.keys(SCENARIOS).join(', ')} (default: all)
  --delay-open MS      the clients see their signaling sockets open that much later
  --limit MS           longest wait for anything (default: 8000)
  --verbose            print the log of every scenario, not only of failed ones
  --json FILE          write the results there
  --label TEXT         names the server in the report`

const COMMON = {
  versions: { type: 'string' },
  groups: { type: 'string' },
  scenarios: { type: 'string' },
  'delay-open': { type: 'string', default: '0' },
  limit: { type: 'string', default: '8000' },
  verbose: { type: 'boolean', default: false },
  json: { type: 'string' },
  label: { type: 'string' }
}

export function list (text) {
  return text === undefined ? [] : text.split(',').map((item) => item.trim()).filter((item) => item !== '')
}

export function milliseconds (values, option) {
  const number = Number(values[option])
  if (!Number.isInteger(number) || number < 0) {
    throw new Error(`--${option} takes a number of milliseconds, not ${JSON.stringify(values[option])}`)
  }
  return number
}

export function positive (values, option) {
  const number = Number(values[option])
  if (!Number.isInteger(number) || number <= 0) {
    throw new Error(`--${option} takes a number above 0, not ${JSON.stringify(values[option])}`)
  }
  return number
}

function pickScenarios (names) {
  const unknown = names.find((name) => !(name in SCENARIOS))
  if (unknown) {
    throw new Error(`unknown scenario ${JSON.stringify(unknown)}: known are ${Object.keys(SCENARIOS).join(', ')}`)
  }
  return names.length > 0 ? Object.keys(SCENARIOS).filter((name) => names.includes(name)) : Object.keys(SCENARIOS)
}

function pickLineUps (versions, groups) {
  const all = versions.length === 0 && groups.length === 0
  const lineUps = [
    ...(all ? Object.keys(VERSIONS) : versions).map((name) => [findVersion(name)]),
    ...groups.map((group) => group.split('+').map(findVersion))
  ]
  lineUps.flat().forEach(bundlePath)
  return lineUps
}

export function nameLineUp (lineUp) {
  return lineUp.map(({ version }) => version).join(' + ')
}

function read (values) {
  return {
    ...values,
    lineUps: pickLineUps(list(values.versions), list(values.groups)),
    scenarios: pickScenarios(list(values.scenarios)),
    delayOpen: milliseconds(values, 'delay-open'),
    limit: milliseconds(values, 'limit')
  }
}

// Returns `read` of the values. Ends the program on a usage error or after --help.
export function parse (usage, options, read) {
  if (process.argv.includes('--help') || process.argv.includes('-h')) {
    console.log(usage)
    process.exit(0)
  }
  try {
    return read(parseArgs({ options }).values)
  } catch (error) {
    console.error(`${error.message}\n\n${usage}`)
    process.exit(2)
  }
}

export function readOptions (usage, extra, check = () => {}) {
  return parse(usage, { ...COMMON, ...extra }, (values) => {
    const options = read(values)
    check(options)
    return options
  })
}
