// The contract of signallerd's client library, in real pages, against the gateway's signaller protocol.
// See README.md.

import { parseArgs } from 'node:util'
import { openBrowser } from './lib/browser.mjs'
import { startGateway } from './lib/gateway.mjs'
import { playSignaller } from './lib/signaller.mjs'
import { openSite } from './lib/site.mjs'

const USAGE = `Usage: node signaller.mjs --server-bin FILE [options]

  --server-bin FILE    the server, which is started in each way that serves signaller
  --limit MS           longest wait for anything (default: 8000)`

// Start-up variants, with pages of this origin admitted.
const WAYS = {
  'in auto': (origin) => ['-h', '127.0.0.1', '-p', '0', '--signaller-origin', origin],
  'as signallerd': (origin) => ['--compat-cli', 'signallerd', '-addr', '127.0.0.1:0', '-originRE', origin]
}

function readCommandLine () {
  try {
    const { values } = parseArgs({
      options: {
        'server-bin': { type: 'string' },
        limit: { type: 'string', default: '8000' },
        help: { type: 'boolean', short: 'h' }
      }
    })
    if (values.help) {
      console.log(USAGE)
      process.exit(0)
    }
    const limit = Number(values.limit)
    if (!values['server-bin'] || !Number.isInteger(limit) || limit <= 0) {
      throw new Error('--server-bin takes the program, --limit a number of milliseconds')
    }
    return { bin: values['server-bin'], limit }
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`)
    process.exit(2)
  }
}

const { bin, limit } = readCommandLine()
const [site, otherSite, { browser, context }] = await Promise.all([openSite(), openSite(), openBrowser()])
const total = { passed: 0, failed: 0 }
try {
  for (const [label, args] of Object.entries(WAYS)) {
    const server = await startGateway(bin, args(`^${site.origin.replaceAll('.', '\\.')}$`))
    try {
      const { passed, failed } = await playSignaller({
        context, origin: site.origin, foreign: otherSite.origin, signaling: server.url, limit, label
      })
      total.passed += passed
      total.failed += failed
    } finally {
      await server.stop()
    }
  }
} finally {
  await browser.close()
  site.close()
  otherSite.close()
}
console.log(`signaller: ${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed === 0 ? 0 : 1
