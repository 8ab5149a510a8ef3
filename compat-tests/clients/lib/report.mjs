// Output for people and machines: a line per finished scenario, the log of a failure, the table, the JSON
// file.

import { writeFileSync } from 'node:fs'

function printLog (log) {
  log.forEach((line) => console.log(`  ${line}`))
}

export function printResult ({ name }, { scenario, passed, attempts, failures, log, ms }) {
  const again = attempts > 1 ? `, attempt ${attempts}` : ''
  console.log(`${passed ? 'ok    ' : 'FAILED'} ${name} ${scenario} (${ms} ms${again})`)
  for (const failure of failures) {
    console.log(`  ${failure.reason}`)
    printLog(failure.log)
  }
  printLog(log)
}

function sum (numbers) {
  return numbers.reduce((total, number) => total + number, 0)
}

function row ({ name, server, results }) {
  const passed = results.filter((result) => result.passed)
  const failed = results.filter((result) => !result.passed)
  const first = results.find(({ scenario }) => scenario === 'pair')?.firstChannelMs
  const retried = results.filter(({ attempts }) => attempts > 1)
  const ownRaces = sum(results.map((result) => result.ownRaces))
  return {
    netflux: name,
    server,
    scenarios: `${passed.length}/${results.length}`,
    peers: sum(results.map(({ peers }) => peers)),
    'channel ends': `${sum(results.map(({ channels }) => channels.opened))}/${sum(results.map(({ channels }) => channels.expected))}`,
    messages: `${sum(results.map(({ delivered }) => delivered))}/${sum(results.map(({ expected }) => expected))}`,
    'ms to channel': first === undefined ? '-' : Math.round(first),
    'page errors': sum(results.map(({ errors }) => errors.length)),
    notes: [
      ...failed.map(({ scenario }) => `${scenario} FAILED`),
      ...retried.map(({ scenario, attempts }) => `${scenario} took ${attempts} attempts`),
      ...(ownRaces > 0 ? [`${ownRaces} joiners hit the client's own race`] : [])
    ].join(', ')
  }
}

// `ms to channel`: in the page of the first joiner, from `new WebSocket` to the open event of its data channel.
export function printTable (entries) {
  const rows = entries.map(row)
  const columns = Object.keys(rows[0])
  const widths = columns.map((column) => Math.max(column.length, ...rows.map((cells) => String(cells[column]).length)))
  const isNumber = (column) => typeof rows[0][column] === 'number'
  const line = (cells) => cells
    .map((cell, index) => isNumber(columns[index]) ? String(cell).padStart(widths[index]) : String(cell).padEnd(widths[index]))
    .join('  ').trimEnd()
  console.log(line(columns))
  console.log(line(widths.map((width) => '-'.repeat(width))))
  rows.forEach((cells) => console.log(line(Object.values(cells))))
}

// Uncaught errors of pages are no failures by themselves: old clients have some of their own.
export function printErrors (entries) {
  const counts = new Map()
  for (const text of entries.flatMap(({ results }) => results.flatMap(({ errors }) => errors))) {
    counts.set(text, (counts.get(text) ?? 0) + 1)
  }
  for (const [text, count] of counts) {
    console.log(`page error, netflux ${text}${count > 1 ? ` (${count} times)` : ''}`)
  }
}

export function countResults (entries) {
  const results = entries.flatMap((entry) => entry.results)
  const passed = results.filter((result) => result.passed).length
  return { passed, failed: results.length - passed }
}

// Ends the program's output; returns its exit code.
export function conclude (entries) {
  console.log()
  printTable(entries)
  printErrors(entries)
  const { passed, failed } = countResults(entries)
  console.log(`clients: ${passed} passed, ${failed} failed`)
  return failed === 0 && passed > 0 ? 0 : 1
}

export function writeJson (file, label, { chromium, entries }) {
  const clients = entries.map(({ name, server, url, results }) => ({ netflux: name, server, url, results }))
  writeFileSync(file, `${JSON.stringify({ label, chromium, ...countResults(entries), clients }, null, 2)}\n`)
}
