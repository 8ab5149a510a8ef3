// Old and new clients in one room, on a gateway with a bridge: every ordered pair of versions, crowds, and churn. See
// README.md, or --help.

import { networkInterfaces } from 'node:os'
import { openBrowser } from './lib/browser.mjs'
import { bundlePath } from './lib/bundles.mjs'
import { runAfterDeparture, runWhileEntryLeaves, runWhileMemberLeaves } from './lib/bridge-alone.mjs'
import { runInRoom } from './lib/bridge.mjs'
import { bridgePid, measureCrowd, measureRoundTrips } from './lib/bridge-figures.mjs'
import { runEndedBridge, runKilledPage, runRestartedGateway } from './lib/bridge-faults.mjs'
import { crowdPlan, runChurn, runCrowd, runLosers, runPair, runStay } from './lib/bridge-scenarios.mjs'
import { openFirefox } from './lib/firefox.mjs'
import { startGateway } from './lib/gateway.mjs'
import { freeUdpPort, LOSSY_ADDRESS, openLossyPath } from './lib/lossy.mjs'
import { list, parse, positive } from './lib/options.mjs'
import { openSite } from './lib/site.mjs'
import { findVersion, VERSIONS } from './lib/versions.mjs'

const USAGE = `Usage: node bridge.mjs --server-bin FILE [options]

  --scenarios A,B,…    of open, join, stay, lost, crowds, churn, faults, figures (default: all these), alone
  --versions A,B,…     versions of the pairs (default: all)
  --only A:B           this pair alone
  --browsers A,B,…     of chromium and firefox: those of the first client of a room, the second …, in turn (default: chromium)
  --crowds N,…         sizes of crowds (default: 6,10,15)
  --seeds N,…          seeds of crowds and churn (default: 1,2)
  --address IP         address of the bridge (default: 127.0.0.1); own: this machine's, if it has one
  --loss PART          part of the packets that is lost each way (default: 0)
  --hide-addresses     candidates of pages are names that multicast resolves
  --parallel N         pairs at a time (default: 4)
  --attempts N         attempts of a scenario; no more than one of twenty may need another (default: 1)
  --limit MS           longest wait for anything (default: 15000)
  --server-args A,B,…  further arguments of the gateway
  --verbose            print the log of every scenario, not only of failed ones`

const OPTIONS = {
  'server-bin': { type: 'string' },
  scenarios: { type: 'string', default: 'open,join,stay,lost,crowds,churn,faults,figures' },
  versions: { type: 'string', default: Object.keys(VERSIONS).join(',') },
  only: { type: 'string' },
  browsers: { type: 'string', default: 'chromium' },
  crowds: { type: 'string', default: '6,10,15' },
  seeds: { type: 'string', default: '1,2' },
  address: { type: 'string', default: '127.0.0.1' },
  loss: { type: 'string', default: '0' },
  'hide-addresses': { type: 'boolean', default: false },
  parallel: { type: 'string', default: '4' },
  attempts: { type: 'string', default: '1' },
  limit: { type: 'string', default: '15000' },
  'server-args': { type: 'string' },
  verbose: { type: 'boolean', default: false }
}

const options = parse(USAGE, OPTIONS, (values) => {
  if (!values['server-bin']) {
    throw new Error('--server-bin is missing')
  }
  const versions = list(values.versions).map(findVersion)
  versions.forEach(bundlePath)
  const browsers = list(values.browsers)
  const unknown = browsers.find((name) => !['chromium', 'firefox'].includes(name))
  if (unknown !== undefined) {
    throw new Error(`unknown browser ${unknown}`)
  }
  return {
    ...values,
    bin: values['server-bin'],
    versions,
    browsers,
    only: values.only?.split(':').map(findVersion),
    scenarios: list(values.scenarios),
    crowds: list(values.crowds).map(Number),
    seeds: list(values.seeds).map(Number),
    parallel: positive(values, 'parallel'),
    attempts: positive(values, 'attempts'),
    limit: positive(values, 'limit')
  }
})

function ownAddress () {
  const all = Object.values(networkInterfaces()).flat()
  return all.find(({ family, internal }) => family === 'IPv4' && !internal)?.address
}

const address = options.address === 'own' ? ownAddress() : options.address
if (address === undefined) {
  console.log('NOT CHECKED: this machine has the loopback interface only')
  process.exit(0)
}
const loss = Number(options.loss)
const port = await freeUdpPort()
const path = loss > 0 ? await openLossyPath(port, loss) : undefined
const gateway = await startGateway(options.bin, [
  '-h', '127.0.0.1', '-p', '0', '--bridge', `${address.includes(':') ? `[${address}]` : address}:${port}`,
  ...(path ? ['--bridge-public-address', LOSSY_ADDRESS] : []), ...list(options['server-args'])
])
const site = await openSite()
const browsers = new Map()
for (const name of options.browsers) {
  if (!browsers.has(name)) {
    const opened = name === 'firefox' ? openFirefox() : openBrowser({ hidesAddresses: options['hide-addresses'] })
    browsers.set(name, await opened)
  }
}
const contexts = options.browsers.map((name) => browsers.get(name).context)
const lab = { contexts, origin: site.origin, signaling: gateway.url, limit: options.limit, delayOpen: 0 }

function show (name, result) {
  const { passed, failures, ms, note = '', errors, log = [] } = result
  console.log(`${passed ? failures.length > 0 ? 'again ' : 'ok    ' : 'FAILED'} ${name} ${ms} ms ${note}`)
  failures.forEach((reason) => console.log(`  ${reason}`))
  if (!passed || options.verbose) {
    errors.forEach((text) => console.log(`  page error, ${text}`))
    log.forEach((line) => console.log(line))
  }
}

const STAYS = [
  ['0.10.3', '4.3.1', '3.0.0'], ['0.10.3', '0.10.8', 'beta.8'], ['0.10.8', '4.3.1', 'beta.7'], ['0.10.8', '0.10.3', '3.0.0'],
  ['rc.3', '3.0.0', '0.10.3'], ['rc.3', 'beta.8', '4.3.0']
]
const LOSERS = [
  ['beta.7', '3.0.0'], ['3.0.0', '4.3.1'], ['4.3.0', '0.10.3'], ['4.3.1', '0.10.3', '0.10.3'], ['beta.8', '0.10.8', '0.10.8'],
  ['4.3.1', 'rc.14', 'rc.14']
]
// Only the first of each loses them: netflux 1.1 counts the bridge's peer as a member at once, and sends to it.
const FIRST_LOSERS = [['beta.7', '4.3.1'], ['beta.8', '3.0.0'], ['beta.7', '0.10.8']]
// A fault that depends on the moment is tried for.
const ALONE_ROUNDS = 10
const ALONE = [['1.1.0-beta.8', runAfterDeparture], ['0.10.3', runWhileMemberLeaves], ['3.0.0', runWhileEntryLeaves]]
async function tryAlone (run, scenario, spec) {
  for (let round = 1; ; round += 1) {
    const result = await run(lab, (room) => scenario(room, spec))
    if (!result.passed || result.seen || round === ALONE_ROUNDS) {
      return { ...result, passed: result.passed && result.seen, note: `round ${round}: ${result.note}` }
    }
  }
}
const isForeign = ([one, other]) => one.layer !== other.layer
const pairs = options.only ? [options.only] : options.versions.flatMap((one) => options.versions.map((other) => [one, other]))
const jobs = options.scenarios.flatMap((scenario) => {
  switch (scenario) {
    // Two that open one key natively refuse each other; pairs of one group are without the bridge.
    case 'open':
    case 'join':
      return pairs.filter((pair) => scenario === 'join' || isForeign(pair)).map((pair) => ({
        kind: scenario,
        name: `${scenario} ${pair[0].version}:${pair[1].version}`,
        attempts: isForeign(pair) ? options.attempts : Math.max(options.attempts, 2),
        run: (room) => runPair(room, pair, scenario)
      }))
    case 'stay':
      return STAYS.map((names) => ({
        kind: scenario,
        name: `stay ${names.join(' ')}`,
        run: (room) => runStay(room, names.map(findVersion))
      }))
    case 'lost':
      return [...LOSERS.map((names) => ({ names, count: names.length })), ...FIRST_LOSERS.map((names) => ({ names, count: 1 }))]
        .map(({ names, count }) => ({
          kind: scenario,
          name: `first messages lost by ${count} of ${names.join(' ')}`,
          run: (room) => runLosers(room, names.map(findVersion), count)
        }))
    case 'crowds':
      return options.crowds.flatMap((size) => options.seeds.map((seed) => {
        const plan = crowdPlan(size, seed)
        return {
          kind: scenario,
          alone: true,
          name: `crowd of ${size}, seed ${seed}: ${plan.map(({ spec, how }) => `${spec.version}/${how}`).join(' ')}`,
          run: (room) => runCrowd(room, plan)
        }
      }))
    case 'churn':
      return options.seeds.map((seed) => ({
        kind: scenario, alone: true, name: `churn, seed ${seed}`, run: (room) => runChurn(room, seed)
      }))
    case 'alone':
      return ALONE.map(([version, scenario]) => ({
        kind: 'alone',
        alone: true,
        name: `${scenario.name} ${version}`,
        around: (run) => tryAlone(run, scenario, findVersion(version))
      }))
    case 'faults':
      return [
        { name: 'page killed', run: (room) => runKilledPage(room, ['4.3.1', '3.0.0', '0.10.8']) },
        { name: 'page killed', run: (room) => runKilledPage(room, ['beta.8', 'rc.14', '4.3.0']) },
        { name: 'bridge killed', run: (room) => runEndedBridge(room, ['4.3.1', '3.0.0', '0.10.8'], gateway, 'SIGKILL') },
        { name: 'bridge stopped', run: (room) => runEndedBridge(room, ['4.3.1', '3.0.0', '0.10.8'], gateway, 'SIGTERM') },
        { name: 'gateway restarted', around: (run) => runRestartedGateway(lab, run, options.bin) }
      ].map((job) => ({ kind: scenario, alone: true, ...job }))
    case 'figures': {
      const roundTrips = (name, versions) => ({
        kind: scenario, alone: true, name: `${name} ${versions.join(' ')}`, run: (room) => measureRoundTrips(room, versions)
      })
      return [
        roundTrips('direct', ['4.3.1', '4.3.0']),
        roundTrips('direct', ['3.0.0', '3.0.0']),
        roundTrips('direct', ['0.10.8', '0.10.8']),
        roundTrips('bridged', ['4.3.1', '3.0.0']),
        roundTrips('bridged', ['4.3.1', '0.10.8']),
        roundTrips('bridged', ['0.10.8', '3.0.0']),
        { kind: scenario, alone: true, name: 'crowd', run: (room) => measureCrowd(room, crowdPlan(15, 3), bridgePid(gateway.pid)) }
      ]
    }
    default:
      throw new Error(`unknown scenario ${scenario}`)
  }
})

const results = []
async function work (queue) {
  for (const job of queue) {
    const result = job.around
      ? await job.around((lab, run) => runInRoom(lab, run))
      : await runInRoom(lab, job.run, job.attempts ?? options.attempts)
    results.push({ ...job, ...result })
    show(job.name, result)
  }
}

try {
  const together = jobs.filter(({ alone }) => !alone).values()
  await Promise.all(Array.from({ length: options.parallel }, () => work(together)))
  await work(jobs.filter(({ alone }) => alone).values())
} finally {
  await Promise.all([...browsers.values()].map(({ browser }) => browser.close()))
  site.close()
  await gateway.stop()
  await path?.close()
}

for (const kind of options.scenarios) {
  const of = results.filter((result) => result.kind === kind)
  const times = of.filter(({ setup }) => setup).map(({ setup }) => setup).sort((one, other) => one - other)
  const median = times.length > 0 ? `, median ${times[times.length >> 1]} ms and at most ${times.at(-1)} ms until both see each other` : ''
  console.log(`${kind}: ${of.filter(({ passed }) => passed).length} of ${of.length}${median}`)
}
const passed = results.filter((result) => result.passed)
const again = passed.filter(({ failures }) => failures.length > 0)
console.log(`bridge: ${passed.length} passed, ${again.length} of them again, ${results.length - passed.length} failed`)
process.exitCode = passed.length === results.length && passed.length > 0 && again.length <= Math.ceil(results.length / 20) ? 0 : 1
