// What a bridge costs: time of a message, memory of a connection, processor time of a message.

import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { runCrowd } from './bridge-scenarios.mjs'
import { findVersion } from './versions.mjs'

const ROUND_TRIPS = 400
const FLOOD_SECONDS = 5
// Messages per second in all, to clients of other groups.
const FLOOD_RATE = 3000
// Clock ticks of the kernel per second.
const TICKS = 100

// The process `sigver bridge` that a gateway has started.
export function bridgePid (gatewayPid) {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.find((pid) => {
    try {
      const isChild = Number(readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')[1]) === gatewayPid
      return isChild && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('\0bridge\0')
    } catch {
      return false
    }
  })
}

function residentBytes (pid) {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024
}

function processorSeconds (pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}

function quantile (times, part) {
  return times.sort((one, other) => one - other)[Math.floor(times.length * part)].toFixed(2)
}

async function roundTrips (room, versions) {
  const [one, two] = versions.map(findVersion)
  const first = await room.enter(one, 'first')
  await room.wait('the first is in the room', () => first.ready)
  const second = await room.enter(two, 'join')
  await room.meet()
  await room.introduce()
  await first.roundTrips(room.idOf(first, second), 50)
  return first.roundTrips(room.idOf(first, second), ROUND_TRIPS)
}

export async function measureRoundTrips (room, versions) {
  const times = await roundTrips(room, versions)
  return { note: `round trip of a message ${quantile(times, 0.1)} ms p10, ${quantile(times, 0.5)} ms median, ${quantile(times, 0.99)} ms p99` }
}

// A member sends to clients of other groups, to each as many per second. Resolves with the processor time of a message.
async function measureFlood (pid, sender, receivers, options) {
  const count = async () => {
    const counted = await Promise.all(receivers.map((peer) => peer.counted()))
    return counted.reduce((sum, one) => sum + one, 0)
  }
  const [counted, before] = [await count(), processorSeconds(pid)]
  const sent = receivers.length * await sender.flood(FLOOD_RATE / receivers.length, FLOOD_SECONDS, options)
  await sleep(500)
  const seconds = processorSeconds(pid) - before
  const received = await count() - counted
  if (received !== sent) {
    throw new Error(`${received} of ${sent} messages arrived`)
  }
  return `${received} at ${Math.round(received / FLOOD_SECONDS)}/s, ${(seconds * 1e6 / received).toFixed(1)} µs of processor time each`
}

// A crowd in which each client but one has connections to the bridge: memory, then processor time, of messages to all
// one by one, and of as many in bursts to a few, as a page sends a stroke or a text that is pasted.
export async function measureCrowd (room, plan, pid) {
  const empty = residentBytes(pid)
  await runCrowd(room, plan)
  const layers = plan.map(({ spec }) => spec.layer)
  const channels = layers.flatMap((one, at) => layers.filter((other, place) => place !== at && other !== one)).length
  await sleep(2000)
  const each = (residentBytes(pid) - empty) / channels
  const [sender] = room.members
  const foreign = room.members.filter(({ spec }) => spec.layer !== sender.spec.layer)
  const single = await measureFlood(pid, sender, foreign)
  // One of each of the other groups.
  const few = foreign.filter(({ spec }, at) => foreign.findIndex((other) => other.spec.layer === spec.layer) === at)
  const to = few.map((peer) => room.idOf(sender, peer))
  const bursts = await measureFlood(pid, sender, few, { burst: 10, to })
  return {
    note: `${channels} channels, ${Math.round(each / 1024)} KiB each and ${Math.round(empty / 1024)} KiB; ` +
      `messages one by one to ${foreign.length}: ${single}; in bursts of ten to each of ${few.length}: ${bursts}`
  }
}
