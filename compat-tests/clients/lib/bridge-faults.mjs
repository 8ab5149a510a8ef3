// Faults around a bridged room.

import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { bridgePid } from './bridge-figures.mjs'
import { startGateway } from './gateway.mjs'
import { findVersion } from './versions.mjs'

const MESSAGES = [{ kind: 'text', length: 50 }, { kind: 'bytes', length: 50, directed: true }]
// A bridge notices a client's silence after eight seconds.
const SILENCE_LIMIT = 9500

async function gather (room, names) {
  for (const [index, name] of names.entries()) {
    await room.enter(findVersion(name), index === 0 ? 'first' : name.startsWith('0.10') ? 'first' : 'join')
    await room.meet()
  }
  await room.introduce()
}

// The page of a member is killed.
export async function runKilledPage (room, names) {
  await gather(room, names)
  const ms = await room.remove(room.members.at(-1), 'kill', SILENCE_LIMIT)
  await room.exchange(MESSAGES)
  return { note: `noticed after ${ms} ms` }
}

// The process of the bridge ends by a signal, and the gateway starts it again.
export async function runEndedBridge (room, names, gateway, signal) {
  await gather(room, names)
  const before = bridgePid(gateway.pid)
  const known = new Map(room.members.map((peer) => [peer, [...peer.present]]))
  const begin = Date.now()
  process.kill(Number(before), signal)
  if (signal === 'SIGTERM') {
    await room.wait('everyone notices that the foreign members have left', () => {
      return room.members.every((peer) => known.get(peer).every((id) => peer.left.includes(id)))
    })
  } else {
    // Clients notice it after six to eight seconds, unless a member is back under its id before that.
    await sleep(12_000)
  }
  const ms = Date.now() - begin
  await room.meet()
  await room.introduce()
  await room.exchange(MESSAGES)
  const after = bridgePid(gateway.pid)
  if (after === before) {
    throw new Error('the bridge was not started again')
  }
  return signal === 'SIGTERM' ? { note: `noticed after ${ms} ms` } : {}
}

// The gateway ends and starts again; the bridge is a process of its own.
export async function runRestartedGateway (lab, run, bin) {
  const socket = `/tmp/sigver-bridge-test-${process.pid}.sock`
  const bridge = spawn(bin, ['bridge', '--socket', socket, '--listen', '127.0.0.1:0', '--log', 'error'], { stdio: ['ignore', 'ignore', 'inherit'] })
  const start = (port) => startGateway(bin, ['-h', '127.0.0.1', '-p', port, '--bridge-socket', socket])
  let gateway = await start('0')
  try {
    return await run({ ...lab, signaling: gateway.url }, async (room) => {
      await gather(room, ['4.3.1', '0.10.8', '3.0.0'])
      await gateway.stop()
      await room.exchange(MESSAGES)
      await sleep(2000)
      gateway = await start(gateway.port)
      await sleep(6000)
      await room.exchange(MESSAGES)
      await room.enter(findVersion('4.3.0'), 'join')
      await room.meet()
      await room.introduce()
      await room.exchange(MESSAGES)
      room.checkPresence()
      return {}
    })
  } finally {
    await gateway.stop()
    bridge.kill('SIGTERM')
  }
}
