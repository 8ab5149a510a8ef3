// Report on pairs: failures with their progress, and a table with a row per member and a column per joiner.

import { namePair } from './pairs.mjs'
import { shortName } from './versions.mjs'

function cell (result) {
  if (!result) {
    return ''
  }
  const { passed, attempts } = result
  const ms = Math.round(attempts.at(-1).channelMs)
  return passed ? `ok ${ms}${attempts.length > 1 ? ' retry' : ''}` : 'FAILED'
}

export function table (results) {
  const members = [...new Set(results.map(({ member }) => member))]
  const joiners = [...new Set(results.map(({ joiner }) => joiner))]
  const rows = [
    ['member \\ joiner', ...joiners.map(shortName)],
    ...members.map((member) => [shortName(member), ...joiners.map((joiner) => {
      return cell(results.find((result) => result.member === member && result.joiner === joiner))
    })])
  ]
  const widths = rows[0].map((_, column) => Math.max(...rows.map((cells) => cells[column].length)))
  return rows.map((cells) => cells.map((text, column) => text.padEnd(widths[column])).join('  ').trimEnd())
}

function count (texts) {
  const counts = new Map()
  texts.forEach((text) => counts.set(text, (counts.get(text) ?? 0) + 1))
  return [...counts].map(([text, times]) => times > 1 ? `${text} (${times} times)` : text)
}

// Report on a pair that did not pass at once.
export function complaints (result) {
  return result.attempts.filter(({ passed }) => !passed).flatMap(({ reason, signaling, errors, log }, index) => [
    `${result.passed ? 'again ' : 'FAILED'} ${namePair(result)}, attempt ${index + 1}: ${reason}`,
    ...signaling.map((text) => `  ${text}`),
    ...count(errors).map((text) => `  page error, netflux ${text}`),
    ...log
  ])
}

function notes (results) {
  const passed = results.filter((result) => result.passed)
  const inOne = passed.filter(({ attempts }) => attempts.length === 1).length
  const restless = passed.filter(({ attempts }) => attempts.at(-1).joinerSockets > 1)
  const failures = results.filter((result) => !result.passed)
  const errors = results.flatMap(({ attempts }) => attempts.flatMap((attempt) => attempt.errors)).length
  return [
    `${errors} errors escaped in pages: clients of different layers do not understand each other`,
    ...restless.map((result) => `${namePair(result)}: the joiner took ${result.attempts.at(-1).joinerSockets} signaling sockets`),
    ...failures.map((result) => `FAILED ${namePair(result)}: ${result.attempts.at(-1).reason}`),
    `pairs: ${passed.length} of ${results.length}${passed.length > inOne ? `, ${passed.length - inOne} after a retry` : ''}`
  ]
}

// The end of the output.
export function conclusion (results) {
  return [
    '',
    'ms from the joiner\'s first socket until the data channel is open at both ends:',
    ...table(results),
    ...notes(results)
  ]
}
