// What a bridge costs: time of a message, memory of a connection, processor time of a message.

import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { runCrowd } from './bridge-scenarios.mjs'
import { findVersion } from './versions.mjs'

const ROUND_TRIPS = 400
const FLOOD_SECONDS = 5
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

// A crowd in which each client but one has connections to the bridge: memory, then processor time.
export async function measureCrowd (room, plan, pid) {
  const empty = residentBytes(pid)
  await runCrowd(room, plan)
  const layers = plan.map(({ spec }) => spec.layer)
  const channels = layers.flatMap((one, at) => layers.filter((other, place) => place !== at && other !== one)).length
  await sleep(2000)
  const each = (residentBytes(pid) - empty) / channels
  const [sender] = room.members
  const foreign = layers.filter((layer) => layer !== sender.spec.layer).length
  const before = processorSeconds(pid)
  const sent = await sender.flood(3000 / foreign, FLOOD_SECONDS)
  await sleep(500)
  const seconds = processorSeconds(pid) - before
  const counted = await Promise.all(room.members.map((peer) => peer.counted()))
  const received = room.members.reduce((sum, peer, at) => sum + (peer.spec.layer === sender.spec.layer ? 0 : counted[at]), 0)
  const lost = sent * foreign - received
  if (lost > 0) {
    throw new Error(`${lost} of ${sent * foreign} messages are lost`)
  }
  const micros = seconds * 1e6 / received
  return {
    note: `${channels} channels, ${Math.round(each / 1024)} KiB each and ${Math.round(empty / 1024)} KiB; ` +
      `${received} messages at ${Math.round(received / FLOOD_SECONDS)}/s, ${micros.toFixed(1)} µs of processor time each`
  }
}
